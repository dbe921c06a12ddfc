"""Keys that are revoked or replaced while their owners are connected."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from canbroker import Bus, CanError, CanInitializationError, Message
from canbroker.keys import edits, secret_file
from canbroker.keys.authorized import Role, authorized_path
from canbroker.keys.broker_key import broker_key_path
from canbroker.keys.edits import Rights
from canbroker.keys.known_brokers import known_brokers_path
from canbroker.model.key import PublicKey, SecretKey
from canbroker.transport.address import TcpAddress
from canbroker.transport.curve import new_pair
from canbroker.transport.runtime import Runtime
from tests.support.brokers import status_of, tasks_of, wait_until
from tests.support.processes import Program
from tests.support.remote import Lab, lab

pytestmark = pytest.mark.long

OTHER_KEY: Final = "does not have the key that is known for it"

CONFIG: Final = '[channels.body]\ninterface = "virtual"\npool = "bench"\n'

#: Receives until that fails, and says why. It has a task and a lease meanwhile.
CLIENT: Final = """
import os
os.environ["CANBROKER_KEY"] = arguments["secret"]
from canbroker import CanError, lease
bus = None
while bus is None:
    try:
        bus = Bus("body", broker=arguments["address"])
    except CanError:  # the gateway does not know of us yet
        continue
channel = lease("bench", broker=arguments["address"]) if arguments["lease"] else None
frame = Message(arbitration_id=0x111, is_extended_id=False)
task = bus.send_periodic(frame, 0.05)
say("open")
try:
    while True:
        if arguments["sends"]:
            bus.send(frame, timeout=5)
        else:
            bus.recv(1)
except CanError as error:
    say(str(error))
try:
    if arguments["sends"]:
        bus.send(frame, timeout=5)
    Bus("body", broker=arguments["address"])
except CanError as error:
    say(str(error))
os._exit(0)
"""


@pytest.fixture
def bench(runtime: Runtime, tmp_path: Path) -> Iterator[Lab]:
    with lab(runtime, tmp_path, config=CONFIG) as bench:
        assert bench.gateway.is_running()
        yield bench


def connected(
    bench: Lab, secret: SecretKey, *, lease: bool = False, sends: bool = False
) -> Program:
    """A client with that key, which has a task and, if told so, a lease; it receives, or sends."""
    given = {"address": bench.address, "secret": secret.reveal_text()}
    program = Program(CLIENT, lease=lease, sends=sends, **given)
    assert program.said() == "open"
    return program


def received(bus: Bus, identifier: int) -> None:
    """Fails if no frame with that identifier arrives."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        message = bus.recv(1)
        if message is not None and message.arbitration_id == identifier:
            return
    raise AssertionError(f"{identifier:X} does not arrive")


def said(bus: Bus) -> str:
    """What the bus raises; empty if it does not."""
    try:
        bus.recv(0.2)
    except CanError as error:
        return str(error)
    return ""


def unauthorized(key: PublicKey) -> str:
    return (
        f"does not know this key ({key}); its admin runs there: canbroker keys authorize NAME {key}"
    )


def test_a_user_who_is_revoked_is_told_so_and_leaves_nothing(bench: Lab) -> None:
    key, secret = new_pair()
    edits.authorize(authorized_path(), "bob", key, Rights(Role.TRANSMIT))
    with connected(bench, secret, lease=True) as bob, Bus("body", broker=bench.address) as bus:
        received(bus, 0x111)
        assert [task.arbitration_id for task in tasks_of(bench.runtime)] == [0x111]
        assert len(status_of(bench.runtime).leases) == 1
        edits.revoke(authorized_path(), "bob", None)
        assert unauthorized(key) in bob.said()
        assert unauthorized(key) in bob.said(), "nor can it connect again"
        wait_until(lambda: not tasks_of(bench.runtime), "its task ends")
        wait_until(lambda: not status_of(bench.runtime).leases, "its lease ends", timeout=20)
        assert len(status_of(bench.runtime).channels[0].clients) == 1
        with Bus("body", broker=bench.address) as other:
            other.send(Message(arbitration_id=0x222, is_extended_id=False), timeout=5)
            received(bus, 0x222)


def test_a_revoked_user_who_only_sends_is_told_so(bench: Lab) -> None:
    key, secret = new_pair()
    edits.authorize(authorized_path(), "bob", key, Rights(Role.TRANSMIT))
    with connected(bench, secret, sends=True) as bob:
        edits.revoke(authorized_path(), "bob", None)
        assert unauthorized(key) in bob.said(), "of the frame that was under way"
        assert unauthorized(key) in bob.said(), "of the next one"


def test_a_user_replaces_a_key_while_connected(bench: Lab) -> None:
    old, old_secret = new_pair()
    new, new_secret = new_pair()
    edits.authorize(authorized_path(), "bob", old, Rights(Role.TRANSMIT))
    with connected(bench, old_secret) as before:
        edits.authorize(authorized_path(), "bob", new, Rights())
        with connected(bench, new_secret) as after, Bus("body", broker=bench.address) as bus:
            wait_until(lambda: len(tasks_of(bench.runtime)) == 2, "both are connected")
            edits.revoke(authorized_path(), "bob", old)
            assert unauthorized(old) in before.said()
            wait_until(lambda: len(tasks_of(bench.runtime)) == 1, "the task of the old one ends")
            received(bus, 0x111)
            assert after.process.poll() is None


def test_a_fault_in_the_file_ends_nothing_and_is_shown(bench: Lab) -> None:
    key, secret = new_pair()
    edits.authorize(authorized_path(), "bob", key, Rights(Role.TRANSMIT))
    with connected(bench, secret) as bob, Bus("body", broker=bench.address) as bus:
        text = authorized_path().read_text()
        authorized_path().write_text(text.replace('"transmit"', '"trasmit"'))
        wait_until(lambda: "bob.role: must be observe, transmit" in fault(bench), "it is shown")
        received(bus, 0x111)
        authorized_path().write_text(text)
        wait_until(lambda: not fault(bench), "it is mended")
        received(bus, 0x111)
        edits.revoke(authorized_path(), "bob", None)
        assert unauthorized(key) in bob.said()


def fault(bench: Lab) -> str:
    gateway = status_of(bench.runtime).gateway
    assert gateway is not None
    return gateway.fault


def test_a_broker_replaces_its_key_while_clients_are_connected(bench: Lab) -> None:
    _, secret = new_pair()
    address = TcpAddress(*bench.endpoint)
    edits.trust(known_brokers_path(), address, bench.key)
    with Bus("body", broker=str(address)) as bus:
        bus.send(Message(arbitration_id=1, is_extended_id=False), timeout=5)
        broker_key_path().unlink()
        secret_file.create(broker_key_path(), secret)
        bench.kill_gateway()
        wait_until(lambda: OTHER_KEY in said(bus), "the bus says why", timeout=30)
    with pytest.raises(CanInitializationError, match=OTHER_KEY):
        Bus("body", broker=str(address))
    gateway = status_of(bench.runtime).gateway
    assert gateway is not None
    edits.trust(known_brokers_path(), address, PublicKey.parse(gateway.key))
    with Bus("body", broker=str(address)) as bus:
        bus.send(Message(arbitration_id=1, is_extended_id=False), timeout=5)
