"""Secret keys are in the files that keep them, and nowhere else."""

from __future__ import annotations

import base64
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from zmq.utils import z85

from canbroker import Bus, Message
from canbroker.keys import edits, secret_file
from canbroker.keys.authorized import Role, authorized_path
from canbroker.keys.broker_key import broker_key_path
from canbroker.keys.edits import Rights
from canbroker.keys.identity import KEY_VARIABLE
from canbroker.model.key import SecretKey
from canbroker.system.entry_points import EntryPoint
from canbroker.transport.curve import new_pair
from canbroker.transport.runtime import Runtime
from tests.support.brokers import status_of, wait_until
from tests.support.ledger import serving
from tests.support.processes import Program
from tests.support.remote import free_port

#: A client that logs everything, sends, and in the end is refused.
CLIENT: Final = """
import logging
logging.basicConfig(level=logging.DEBUG, filename=arguments["log"])
bus = Bus("body", broker=arguments["address"])
bus.send(Message(arbitration_id=1, is_extended_id=False), timeout=5)
say([repr(bus), repr(vars(bus)), repr(bus.stats)])
hear()
try:
    while True:
        bus.recv(1)
except canbroker.CanError:
    logging.exception("this is the end")
"""


def spellings(secret: SecretKey) -> list[bytes]:
    """The texts by which a secret may be in a file: half of each is enough to find it."""
    raw = secret.reveal()
    texts = (base64.urlsafe_b64encode(raw), base64.b64encode(raw), z85.encode(raw))
    return [raw[:16], raw.hex().encode()[:32], repr(raw)[2:20].encode(), *(t[:20] for t in texts)]


def files_of(directory: Path) -> Iterator[Path]:
    for path in directory.rglob("*"):
        if path.is_file():
            yield path


def test_no_secret_is_in_a_log_a_record_or_a_status(
    runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    broker_public, broker_secret = new_pair()
    public, secret = new_pair()
    secret_file.create(broker_key_path(), broker_secret)
    edits.authorize(authorized_path(), "bob", public, Rights(Role.TRANSMIT))
    address = f"tcp://127.0.0.1:{free_port()}"
    config = (
        f'[broker]\nlog_level = "debug"\n[remote]\nlisten = "{address}"\n'
        '[channels.body]\ninterface = "virtual"\n'
    )
    monkeypatch.setenv(KEY_VARIABLE, secret.reveal_text())
    said: list[bytes] = []
    client_log = tmp_path / "client.log"
    with (tmp_path / "broker.log").open("wb") as log, serving(runtime, tmp_path, config, log):
        wait_until(lambda: _listens(runtime), "the gateway runs", timeout=20)
        where = f"{address}?key={broker_public}"
        with Program(CLIENT, address=where, log=str(client_log)) as bob:
            said.append(repr(bob.said()).encode())
            with Bus("body") as bus:
                bus.send_batch([Message(arbitration_id=2, is_extended_id=False)] * 100, 5)
                os.kill(status_of(runtime).channels[0].pid or 0, signal.SIGKILL)
                wait_until(lambda: status_of(runtime).channels[0].record, "a record", timeout=30)
            said.append(_status())
            edits.revoke(authorized_path(), "bob", None)
            bob.tell("go on")
            assert bob.end() == 0
        said.append(_status())
        records = [*files_of(runtime.records_path)]
        said += [path.read_bytes() for path in files_of(runtime.directory)]
    assert records
    logs = [path.read_bytes() for path in (tmp_path / "broker.log", client_log)]
    assert all(logs)
    assert str(public).encode() in b"".join([*said, *logs]), "we look in the right places"
    for text in [*said, *logs]:
        for spelling in spellings(secret) + spellings(broker_secret):
            assert spelling not in text, text[-2000:]


def _listens(runtime: Runtime) -> bool:
    gateway = status_of(runtime).gateway
    return gateway is not None and gateway.phase == "running"


def _status() -> bytes:
    done = subprocess.run(
        EntryPoint.COMMAND.command("status", "--json"), capture_output=True, check=True, timeout=30
    )
    return done.stdout + done.stderr
