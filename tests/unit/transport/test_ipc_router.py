"""A ROUTER without libzmq, to sockets of libzmq."""

from __future__ import annotations

import logging
import os
import socket as sockets
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zmq

from canbroker.system import clock
from canbroker.system.portable import PORTABLE
from canbroker.system.throttle import Throttle
from canbroker.transport.address import IpcAddress
from canbroker.transport.ipc_router import IpcRouter
from canbroker.transport.kept_out import KeptOut
from canbroker.transport.waiter import Waiter
from canbroker.transport.zmtp import encode, opening
from canbroker.wire import MAX_MESSAGE_BYTES

pytestmark = pytest.mark.skipif(PORTABLE, reason="sockets are not Unix sockets")

LIMIT = 10
UNREAD = 100


class Desk:
    """A router, and what it has received."""

    def __init__(self, path: Path) -> None:
        self.kept = KeptOut()
        self.refused = Throttle(logging.getLogger("test"))
        self.router = IpcRouter(IpcAddress(path), self.kept, LIMIT, self.refused, UNREAD)
        self.endpoint = f"ipc://{path}"
        self.received: list[tuple[bytes, list[bytes]]] = []
        self._waiter = Waiter()
        self.router.watch(self._waiter)

    def serve(self, until: Callable[[], object]) -> None:
        end = clock.monotonic_ns() + 20 * clock.SECOND
        while not until():
            assert clock.monotonic_ns() < end
            received = self.router.receive() if self._waiter.wait(clock.SECOND // 100) else None
            if received is not None:
                self.received.append((received[0], list(received[1])))


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path / "socket")
    yield made
    made.router.close()


@pytest.fixture
def context() -> Iterator[zmq.Context[zmq.Socket[bytes]]]:
    made = zmq.Context[zmq.Socket[bytes]]()
    yield made
    made.destroy(linger=0)


Connect = Callable[..., "zmq.Socket[bytes]"]


@pytest.fixture
def connect(context: zmq.Context[zmq.Socket[bytes]], desk: Desk) -> Connect:
    opened = []

    def connect(kind: int = zmq.DEALER, routing_id: bytes = b"") -> zmq.Socket[bytes]:
        made = context.socket(kind)
        opened.append(made)
        made.setsockopt(zmq.RCVTIMEO, 20_000)
        if routing_id:
            made.setsockopt(zmq.ROUTING_ID, routing_id)
        made.connect(desk.endpoint)
        return made

    return connect


def test_requests_are_answered_to_who_asked(desk: Desk, connect: Connect) -> None:
    one, two = connect(), connect(routing_id=b"two")
    one.send(b"1")
    two.send(b"2")
    desk.serve(lambda: len(desk.received) == 2)
    for routing_id, (body,) in desk.received:
        desk.router.reply(routing_id, body * 300)
    assert (one.recv(), two.recv()) == (b"1" * 300, b"2" * 300)
    given, chosen = sorted(routing_id for routing_id, _ in desk.received)
    assert given.startswith(b"\0")
    assert chosen == b"two"
    desk.router.reply(b"nobody", b"lost")


def test_an_empty_delimiter_is_a_part(desk: Desk, connect: Connect) -> None:
    peer = connect(zmq.REQ)
    peer.send(b"request")
    desk.serve(lambda: desk.received)
    assert desk.received[0][1] == [b"", b"request"]


def test_a_message_may_have_a_mebibyte(desk: Desk, connect: Connect) -> None:
    peer = connect()
    body = os.urandom(MAX_MESSAGE_BYTES)
    peer.send(body)
    desk.serve(lambda: desk.received)
    routing_id, parts = desk.received[0]
    assert parts == [body]
    desk.router.reply(routing_id, body)
    peer.setsockopt(zmq.RCVTIMEO, 10)
    replies: list[bytes] = []

    def is_there() -> bool:
        try:
            replies.append(peer.recv())
        except zmq.Again:
            return False
        return True

    desk.serve(is_there)
    assert replies == [body]


def test_who_connects_again_keeps_its_id(desk: Desk, connect: Connect) -> None:
    former = connect(routing_id=b"me")
    former.send(b"1")
    desk.serve(lambda: desk.received)
    present = connect(routing_id=b"me")
    present.send(b"2")
    desk.serve(lambda: len(desk.received) == 2)
    desk.router.reply(b"me", b"answer")
    assert present.recv() == b"answer"
    assert desk.router.is_connected(b"me")


def test_who_is_gone_is_not_connected(desk: Desk, connect: Connect) -> None:
    peer = connect(routing_id=b"me")
    peer.send(b"1")
    desk.serve(lambda: desk.received)
    assert desk.router.is_connected(b"me")
    peer.close(linger=0)
    desk.serve(lambda: not desk.router.is_connected(b"me"))
    desk.router.reply(b"me", b"lost")
    desk.serve(lambda: not desk.router.peers())


def test_nobody_has_an_id_that_was_given_to_another(desk: Desk, connect: Connect) -> None:
    peer = connect()
    peer.send(b"1")
    desk.serve(lambda: desk.received)
    (routing_id, _) = desk.received[0]
    # libzmq refuses to have such an id.
    with sockets.socket(sockets.AF_UNIX) as thief:
        thief.connect(desk.endpoint.removeprefix("ipc://"))
        thief.sendall(opening("DEALER", routing_id.decode("latin-1")) + encode(b"2"))
        thief.settimeout(20)
        desk.serve(lambda: len(desk.router) == 2)
        desk.serve(lambda: len(desk.router) == 1)
    desk.router.reply(routing_id, b"answer")
    assert peer.recv() == b"answer"
    assert len(desk.received) == 1


def test_who_is_refused_too_often_is_hung_up_on_and_kept_out(desk: Desk, connect: Connect) -> None:
    peer = connect()
    for _ in range(LIMIT):
        peer.send(b"garbage")
        desk.serve(lambda: desk.received)
        desk.received.clear()
        desk.router.refuse()
    assert len(desk.router) == 1
    peer.send_multipart([b"gar", b"bage"])
    desk.serve(lambda: desk.received)
    desk.router.refuse()
    assert desk.refused.counts == {"connection ended": 1}
    assert desk.kept.until(os.getpid()) > clock.monotonic_ns()
    assert desk.router.peers() == []


def test_who_does_not_read_loses_answers_and_others_do_not(desk: Desk, connect: Connect) -> None:
    slow, other = connect(routing_id=b"slow"), connect(routing_id=b"other")
    slow.setsockopt(zmq.RCVHWM, 1)
    for peer in (slow, other):
        peer.send(b"hello")
    desk.serve(lambda: len(desk.received) == 2)
    for _ in range(10 * UNREAD):
        desk.router.reply(b"slow", bytes(20_000))
    desk.router.reply(b"other", b"answer")
    assert other.recv() == b"answer"
    assert desk.router.is_connected(b"slow")
