"""Sockets on ports of this host: which clients are admitted, and what is found again."""

from __future__ import annotations

import errno
import os
import socket as sockets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest
import zmq

from canbroker.errors import CanInitializationError
from canbroker.system import endpoint_files
from canbroker.system.endpoint_files import KEY_FILE
from canbroker.transport import curve, loopback
from canbroker.transport.loopback import Admission, FabricKey, Reached
from canbroker.transport.shared import QuietSocket
from tests.support.brokers import wait_until

_PATIENCE_MS = 10_000


class Fabric:
    """A directory with a listening ROUTER, and DEALERs that connect to it."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "can0.tx"
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.admission = Admission(self.context)
        self.key = FabricKey.make(directory)
        self.admission.open(self.key)
        self.sockets: list[QuietSocket] = []

    def listen(self) -> tuple[QuietSocket, str]:
        socket = self.socket(zmq.ROUTER)
        socket.setsockopt(zmq.ZAP_DOMAIN, b"canbroker")
        return socket, loopback.bind(socket, self.path, self.key)

    def socket(self, kind: int) -> QuietSocket:
        socket = cast("QuietSocket", self.context.socket(kind, socket_class=QuietSocket))
        socket.setsockopt(zmq.LINGER, 0)
        self.sockets.append(socket)
        return socket

    def close(self) -> None:
        for socket in self.sockets:
            socket.close()
        self.admission.close()
        self.context.term()


@pytest.fixture
def fabric(tmp_path: Path) -> Iterator[Fabric]:
    fabric = Fabric(tmp_path)
    yield fabric
    fabric.close()


def arrives(server: QuietSocket, text: bytes) -> bool:
    """Whether the next message that arrives is ``text``."""
    return bool(server.poll(_PATIENCE_MS)) and server.recv_multipart()[1] == text


def test_whoever_has_the_key_is_admitted(fabric: Fabric) -> None:
    server, endpoint = fabric.listen()
    client = fabric.socket(zmq.DEALER)
    loopback.connect(client, fabric.path)
    client.send(b"hello")
    assert arrives(server, b"hello")
    found = endpoint_files.read(fabric.path)
    assert found is not None
    assert found.endpoint == endpoint
    assert found.is_listening


def test_files_are_for_their_owner_alone(fabric: Fabric) -> None:
    fabric.listen()
    for path in (fabric.path, fabric.path.with_name(KEY_FILE)):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("knows", ["nothing", "the public key"])
def test_strangers_are_not_admitted(fabric: Fabric, knows: str) -> None:
    """Any user of the host can connect to the port. Then the owner's message is the first one."""
    server, endpoint = fabric.listen()
    stranger = fabric.socket(zmq.DEALER)
    refused = stranger.get_monitor_socket(
        zmq.EVENT_HANDSHAKE_FAILED_AUTH
        | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
        | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
        | zmq.EVENT_DISCONNECTED
    )
    if knows == "the public key":
        public, secret = curve.new_pair()
        curve.join(stranger, public, secret)
        stranger.setsockopt(zmq.CURVE_SERVERKEY, fabric.key.public.raw)
    stranger.connect(endpoint)
    stranger.send(b"stranger")
    assert refused.poll(_PATIENCE_MS)
    stranger.disable_monitor()
    refused.close()
    client = fabric.socket(zmq.DEALER)
    loopback.connect(client, fabric.path)
    client.send(b"owner")
    assert arrives(server, b"owner")


def test_a_successor_listens_on_the_same_port(fabric: Fabric) -> None:
    server, endpoint = fabric.listen()
    client = fabric.socket(zmq.DEALER)
    loopback.connect(client, fabric.path)
    client.send(b"one")
    assert arrives(server, b"one")
    ended = client.get_monitor_socket(zmq.EVENT_DISCONNECTED)
    server.close()
    assert ended.poll(_PATIENCE_MS), "what is sent before is lost with the connection"
    client.disable_monitor()
    ended.close()
    loopback.withdraw(fabric.path, endpoint)
    assert not fabric.path.exists()
    wait_until(lambda: not _is_taken(endpoint), "libzmq has closed the port")
    successor, same = fabric.listen()
    if same != endpoint and not _is_free(endpoint):
        pytest.skip("another program has taken the port meanwhile")
    assert same == endpoint
    client.send(b"two")
    assert arrives(successor, b"two")


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """No file can be made that has bytes."""

    def full(path: Path, content: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(endpoint_files, "write_private", full)


@pytest.mark.parametrize("left", ["can0.tx", "can0.tx.was"])
def test_on_a_full_disk_a_successor_takes_the_file_of_its_predecessor(
    fabric: Fabric, full_disk: None, left: str
) -> None:
    long = b'{"endpoint": "tcp://127.0.0.1:1", "pid": 1, "started": 1}' + b" " * 100
    fabric.path.with_name(left).write_bytes(long)
    _, endpoint = fabric.listen()
    found = endpoint_files.read(fabric.path)
    assert found is not None
    assert (found.endpoint, found.pid) == (endpoint, os.getpid())
    assert {path.name for path in fabric.path.parent.iterdir()} == {KEY_FILE, "can0.tx"}


def test_on_a_full_disk_nobody_is_the_first_to_listen(fabric: Fabric, full_disk: None) -> None:
    with pytest.raises(OSError, match="No space left"):
        fabric.listen()


def test_a_former_file_that_was_not_written_to_its_end_is_ignored(fabric: Fabric) -> None:
    fabric.path.with_name("can0.tx.was").write_bytes(b'{"endpoint": "tcp://127')
    _, endpoint = fabric.listen()
    found = endpoint_files.read(fabric.path)
    assert found is not None
    assert found.endpoint == endpoint


def _is_free(endpoint: str) -> bool:
    with sockets.socket() as ours:
        ours.setsockopt(sockets.SOL_SOCKET, sockets.SO_REUSEADDR, 1)
        try:
            ours.bind(("127.0.0.1", int(endpoint.rpartition(":")[2])))
        except OSError:
            return False
        return True


def _is_taken(endpoint: str) -> bool:
    with sockets.socket() as asking:
        return asking.connect_ex(("127.0.0.1", int(endpoint.rpartition(":")[2]))) == 0


def test_a_socket_that_lost_its_port_is_found_again(fabric: Fabric) -> None:
    server, endpoint = fabric.listen()
    client = fabric.socket(zmq.DEALER)
    loopback.connect(client, fabric.path)
    # The port is taken still, as if by another program.
    successor, other = fabric.listen()
    assert other != endpoint
    assert isinstance(client.reached, Reached)
    client.reached.look(client)
    assert client.reached.moves == 1
    client.send(b"moved")
    assert arrives(successor, b"moved")
    assert not server.poll(0)


def test_what_has_arrived_is_read_before_a_socket_moves(fabric: Fabric) -> None:
    server, _ = fabric.listen()
    client = fabric.socket(zmq.DEALER)
    loopback.connect(client, fabric.path)
    client.send(b"hello")
    server.poll(_PATIENCE_MS)
    server.send_multipart([server.recv_multipart()[0], b"last words"])
    assert client.poll(_PATIENCE_MS)
    fabric.listen()
    assert client.reached is not None
    client.reached.look(client)
    assert client.recv() == b"last words"
    client.reached.look(client)
    assert client.reached.moves == 1


def test_a_socket_connects_when_something_listens(fabric: Fabric) -> None:
    client = fabric.socket(zmq.DEALER)
    loopback.connect(client, fabric.path)
    server, _ = fabric.listen()
    assert client.reached is not None
    client.reached.look(client)
    client.send(b"late")
    assert arrives(server, b"late")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff",
        b"[]",
        b'{"endpoint": "tcp://10.0.0.1:80", "pid": 1, "started": 1}',
        b'{"endpoint": "tcp://127.0.0.1:70000", "pid": 1, "started": 1}',
        b'{"endpoint": "ipc:///tmp/x", "pid": 1, "started": 1}',
    ],
)
def test_a_file_that_says_something_else_is_named(fabric: Fabric, content: bytes) -> None:
    fabric.path.write_bytes(content)
    with pytest.raises(CanInitializationError, match=r"can0\.tx"):
        loopback.connect(fabric.socket(zmq.DEALER), fabric.path)
    assert endpoint_files.listener(fabric.path) is None


def test_a_file_of_a_process_that_has_ended_is_no_listener(tmp_path: Path) -> None:
    path = tmp_path / "broker"
    path.write_bytes(b'{"endpoint": "tcp://127.0.0.1:1234", "pid": 1, "started": 0}')
    assert endpoint_files.is_endpoint(path)
    assert endpoint_files.listener(path) is None


@pytest.mark.parametrize("content", [b"", b"{}", b'{"public": "x", "secret": "y"}'])
def test_a_broken_key_is_named_and_not_shown(tmp_path: Path, content: bytes) -> None:
    (tmp_path / KEY_FILE).write_bytes(content)
    with pytest.raises(CanInitializationError, match=rf"{KEY_FILE} does not contain a key"):
        FabricKey.load(tmp_path)


def test_a_public_key_of_another_secret_is_refused(tmp_path: Path) -> None:
    FabricKey(curve.new_pair()[0], curve.new_pair()[1]).write(tmp_path)
    with pytest.raises(CanInitializationError, match="does not belong"):
        FabricKey.load(tmp_path)


def test_a_unix_socket_is_that_of_a_native_broker(tmp_path: Path) -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    with context, context.socket(zmq.ROUTER) as native:
        native.bind(f"ipc://{tmp_path}/broker")
        with pytest.raises(CanInitializationError, match="without CANBROKER_PORTABLE"):
            endpoint_files.read(tmp_path / "broker")
