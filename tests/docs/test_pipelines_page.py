"""The server that the page about pipelines sets up: real processes use it with its permissions."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from canbroker import Bus, Message
from canbroker.errors import CanPermissionError
from canbroker.integrations.nats import Batches, batches
from canbroker.jetstream.server import Server, Tls
from canbroker.transport.runtime import Runtime
from canbroker.view.fleet import fleet
from tests.docs.pages import blocks
from tests.support.brokers import status_of, wait_until
from tests.support.ledger import serving
from tests.support.nats_benches import connected, make_streams
from tests.support.nats_servers import NatsServer, certificates, program
from tests.support.remote import free_port

PAGE: Final = "guides/pipelines.md"
PATIENCE_S: Final = 30.0
USERS: Final = ("admin", "bench-7", "pipeline", "operator")


def file_of(title: str) -> str:
    (text,) = [block.text for block in blocks(PAGE) if block.title == title]
    return text


class PagesServer(NatsServer):
    """The server of the page, at a free port, with its files below a directory."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._files = certificates(directory)

    def config(self) -> str:
        text = file_of("lab.conf").replace("0.0.0.0:4222", f"127.0.0.1:{self.port}")
        text = text.replace("127.0.0.1:8222", f"127.0.0.1:{self._monitoring}")
        text = text.replace("/etc/nats/server.pem", str(self._files["certificate"]))
        text = text.replace("/etc/nats/server.key", str(self._files["key"]))
        return text.replace("/var/lib/nats", str(self._path("store")))

    def login(self, user: str) -> str:
        return f"tls://{user}:secret@127.0.0.1:{self.port}"

    @property
    def trusted(self) -> dict[str, str]:
        return {"ca": str(self._files["ca"])}


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PagesServer]:
    for user in USERS:
        monkeypatch.setenv(f"{user.upper().replace('-', '_')}_PASSWORD", "secret")
    server = PagesServer(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", server.trusted["ca"])  # of connected()
    server.start()
    try:
        asyncio.run(_make_streams(server.login("admin")))
        yield server
    finally:
        server.kill()


async def _make_streams(url: str) -> None:
    client = await connected(url)
    try:
        await make_streams(client)
    finally:
        await client.close()


def test_each_user_may_do_what_the_page_says(
    server: PagesServer, runtime: Runtime, tmp_path: Path
) -> None:
    table = (
        f'[nats]\nurl = "{server.login("bench-7")}"\nsite = "lab"\nbench = "bench-7"\n'
        f'tls.ca = "{server.trusted["ca"]}"\ntransmit = ["100-1FF"]\n'
    )
    wish: Any = {"site": "lab", "after": 0, "tls": server.trusted}
    config = '[channels.body]\ninterface = "virtual"\n' + table
    with serving(runtime, tmp_path, config), Bus("body") as bus:
        bus.send(Message(arbitration_id=0x123, is_extended_id=False, data=[1, 2]), timeout=10)
        with batches(server.login("pipeline"), **wish) as stream:
            batch = stream.take(PATIENCE_S)
        assert batch is not None
        assert (batch.bench, batch.channel) == ("bench-7", "body")
        assert batch.messages[0].arbitration_id == 0x123
        operator = Server(url=server.login("operator"), tls=Tls(**server.trusted))
        wait_until(lambda: fleet(operator, "lab").channels, "its state", timeout=PATIENCE_S)
        assert asyncio.run(_transmitted(server.login("operator")))
        received = bus.recv(PATIENCE_S)
        assert received is not None
        assert received.arbitration_id == 0x155
        wait_until(lambda: _trouble(runtime) == "", "all is well", timeout=PATIENCE_S)


def _trouble(runtime: Runtime) -> str | None:
    found = status_of(runtime).nats
    return None if found is None else found.trouble


async def _transmitted(url: str) -> bytes:
    """The bench's answer to a request of the operator."""
    client = await connected(url)
    try:
        answer = await client.request("can.v1.lab.bench-7.body.tx", b"155#0102", timeout=PATIENCE_S)
    finally:
        await client.close()
    data: bytes = answer.data
    return data


def test_nobody_may_do_more(server: PagesServer) -> None:
    wish: Any = {"after": 0, "tls": server.trusted}
    for user, site in [("bench-7", "lab"), ("operator", "lab"), ("pipeline", "yard")]:
        with (
            pytest.raises(CanPermissionError),
            batches(server.login(user), site=site, **wish) as stream,
        ):
            stream.take(PATIENCE_S)
    with pytest.raises(CanPermissionError):
        fleet(Server(url=server.login("pipeline"), tls=Tls(**server.trusted)))
    for user, subject in [
        ("bench-7", "can.v1.lab.bench-8.body.rx"),
        ("pipeline", "can.v1.lab.bench-7.body.rx"),
        ("pipeline", "can.v1.lab.bench-7.body.tx"),
        ("operator", "can.v1.lab.bench-7.drive.tx"),
        ("operator", "$JS.API.STREAM.DELETE.CAN_FRAMES"),
        ("bench-7", "$JS.API.STREAM.PURGE.CAN_FRAMES"),
    ]:
        said = asyncio.run(_refusal(server.login(user), subject))
        assert subject.lower() in said.lower(), (user, subject)


async def _refusal(url: str, subject: str) -> str:
    """What the server says to a message with this subject."""
    refused = asyncio.Event()
    said = ""

    async def on_error(error: Exception) -> None:
        nonlocal said
        said = str(error)
        refused.set()

    client = await connected(url)
    client._error_cb = on_error
    try:
        await client.publish(subject, b"")
        await asyncio.wait_for(refused.wait(), PATIENCE_S)
    finally:
        await client.close()
    return said


# ------------------------------------------------------------------------------------- leaf nodes


class LeafServer(NatsServer):
    """A server of the page with this file; ``port`` of the hub's leaf nodes."""

    def __init__(self, directory: Path, title: str, port: int) -> None:
        super().__init__(directory)
        self._title = title
        self._leaves = port

    def config(self) -> str:
        text = file_of(self._title).replace("/var/lib/nats", str(self._path("store")))
        text = text.replace("hub.example.com:7422", f"127.0.0.1:{self._leaves}")
        text = text.replace("0.0.0.0:7422", f"127.0.0.1:{self._leaves}")
        text = re.sub(r'"[\d.]+:4222"', f'"127.0.0.1:{self.port}"', text)
        return f'http: "127.0.0.1:{self._monitoring}"\n{text}'


@pytest.mark.long
@pytest.mark.timeout(240)  # the hub copies on some 40 s after it is back
def test_a_hub_has_what_a_leaf_node_has_taken(runtime: Runtime, tmp_path: Path) -> None:
    port = free_port()
    hub = LeafServer(tmp_path / "hub", "hub.conf", port)
    leaf = LeafServer(tmp_path / "leaf", "leaf.conf", port)
    table = f'[nats]\nurl = "{leaf.url}"\nsite = "lab"\nbench = "bench-7"\ntransmit = ["100-1FF"]\n'
    config = '[channels.body]\ninterface = "virtual"\n' + table
    with hub, leaf, serving(runtime, tmp_path, config), Bus("body") as bus:
        wait_until(lambda: _trouble(runtime) == "", "it publishes", timeout=PATIENCE_S)
        program = file_of("hub_streams.py").replace("127.0.0.1:4222", f"127.0.0.1:{hub.port}")
        subprocess.run([sys.executable, "-c", program], check=True)
        with batches(hub.url, site="lab", after=0) as stream:
            _send(bus, range(1000))
            assert _numbers(stream, 1000) == [*range(1000)]
            assert asyncio.run(_transmitted(hub.url))
            states = partial(fleet, Server(url=hub.url), "lab")
            wait_until(
                lambda: [each.word for each in states().channels] == ["active"],
                "its state",
                timeout=PATIENCE_S,
            )
            hub.kill()
            _send(bus, range(1000, 2000))
            wait_until(lambda: _stored(runtime) == 2001, "the leaf has it", timeout=PATIENCE_S)
            wait_until(lambda: _trouble(runtime) == "", "all is well", timeout=PATIENCE_S)
            hub.start()
            assert _numbers(stream, 1001) == [*range(1000, 2000)]
    assert not hub.is_running


def _send(bus: Bus, numbers: range) -> None:
    data = [number.to_bytes(4, "big") for number in numbers]
    bus.send_batch([Message(arbitration_id=1, data=each, is_extended_id=False) for each in data])
    bus.flush()


def _stored(runtime: Runtime) -> int:
    found = status_of(runtime).nats
    return 0 if found is None else found.frames


def _numbers(stream: Batches, count: int) -> list[int]:
    """Those that the next ``count`` frames with identifier 1 have as data."""
    found: list[int] = []
    seen = 0
    while seen < count:
        batch = stream.take(3 * PATIENCE_S)
        assert batch is not None
        assert not batch.gaps
        seen += len(batch)
        own = [each for each in batch.messages if each.arbitration_id == 1]
        found += [int.from_bytes(each.data, "big") for each in own]
    return found


# ------------------------------------------------------------------------------ compose, systemd


def test_the_container_has_the_files_that_its_command_needs() -> None:
    document = yaml.safe_load(file_of("compose.yaml"))
    service = document["services"]["nats"]
    mounted = {target.split(":")[1] for target in service["volumes"]}
    assert service["command"] == ["-c", "/etc/nats/lab.conf"]
    config = file_of("lab.conf")
    needed = set(re.findall(r'"(/[\w/.]+)"', config)) | {"/etc/nats/lab.conf"}
    assert needed == mounted
    assert service["ports"] == ["4222:4222"]
    shown = subprocess.run([program(), "--version"], capture_output=True, text=True, check=True)
    assert re.search(r"v\d+\.\d+", shown.stdout)
    assert service["image"] == f"nats:{re.findall(r'v([0-9]+.[0-9]+)', shown.stdout)[0]}"


def test_compose_takes_its_file(tmp_path: Path) -> None:
    docker = shutil.which("docker")
    if (
        docker is None
        or subprocess.run(
            [docker, "compose", "version"], capture_output=True, check=False
        ).returncode
    ):
        pytest.skip("needs docker compose")
    (tmp_path / "compose.yaml").write_text(file_of("compose.yaml"))
    (tmp_path / "passwords.env").write_text("ADMIN_PASSWORD=x\n")
    subprocess.run([docker, "compose", "config", "--quiet"], cwd=tmp_path, check=True)


def test_the_unit_is_one_and_has_few_rights(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("needs systemd-analyze")
    unit = file_of("nats.service")
    (command,) = re.findall(r"^ExecStart=(.*)$", unit, flags=re.MULTILINE)
    path = tmp_path / "nats.service"
    path.write_text(unit.replace(command.split()[0], program()))
    done = subprocess.run(
        [analyze, "verify", str(path)], capture_output=True, text=True, check=True
    )
    assert str(path) not in done.stderr
    subprocess.run(
        [analyze, "security", "--offline=yes", "--threshold=25", str(path)],
        check=True,
        capture_output=True,
        env={**os.environ, "SYSTEMD_PAGER": ""},
    )
    assert command.split()[1:] == ["-c", "/etc/nats/lab.conf"]
    assert "StateDirectory=nats\n" in unit
    assert 'store_dir: "/var/lib/nats"' in file_of("lab.conf")
