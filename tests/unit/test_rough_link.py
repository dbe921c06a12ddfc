"""The bad line of other tests is as bad as they ask for, and no worse."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest

from tests.support.brokers import wait_until
from tests.support.rough_link import RETRANSMISSION_S, SEGMENT, WINDOW, RoughLink

DEADLINE_S = 20.0


class Peer:
    """A server that keeps the connections it is given."""

    def __init__(self, stack: ExitStack) -> None:
        self._listening = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        self._listening.settimeout(DEADLINE_S)
        self._stack = stack
        self.address: tuple[str, int] = self._listening.getsockname()

    def accept(self) -> socket.socket:
        connection, _ = self._listening.accept()
        connection.settimeout(DEADLINE_S)
        return self._stack.enter_context(connection)

    def close(self) -> None:
        self._listening.close()


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def peer(stack: ExitStack) -> Peer:
    return Peer(stack)


def connected(stack: ExitStack, link: RoughLink, peer: Peer) -> tuple[socket.socket, socket.socket]:
    """Both ends of a connection over the link."""
    near = stack.enter_context(socket.create_connection(link.address, DEADLINE_S))
    return near, peer.accept()


def received(end: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = end.recv(count - len(data))
        assert part, f"ended after {len(data)} bytes"
        data += part
    return data


def echo_time(near: socket.socket, far: socket.socket) -> float:
    """Seconds that a byte takes to the other end and back."""
    began = time.monotonic()
    near.sendall(b"x")
    far.sendall(received(far, 1))
    received(near, 1)
    return time.monotonic() - began


def is_reset(end: socket.socket) -> bool:
    try:
        end.recv(1)
    except ConnectionResetError:
        return True
    return False


def is_silent(end: socket.socket) -> bool:
    end.settimeout(0.3)
    try:
        end.recv(1)
    except TimeoutError:
        return True
    finally:
        end.settimeout(DEADLINE_S)
    return False


def test_every_byte_arrives_in_order_in_both_directions(stack: ExitStack, peer: Peer) -> None:
    link = stack.enter_context(RoughLink(peer.address, delay_s=0.005, loss=0.05))
    near, far = connected(stack, link, peer)
    sent = bytes(number % 251 for number in range(200 * SEGMENT))
    for source, sink in ((near, far), (far, near)):
        sending = threading.Thread(target=source.sendall, args=(sent,))
        sending.start()
        assert received(sink, len(sent)) == sent
        sending.join()
    assert link.lost > 0


def test_a_round_trip_takes_twice_the_delay(stack: ExitStack, peer: Peer) -> None:
    link = stack.enter_context(RoughLink(peer.address, delay_s=0.05))
    near, far = connected(stack, link, peer)
    assert echo_time(near, far) >= 0.1


def test_what_is_lost_is_late_and_so_is_what_follows(stack: ExitStack, peer: Peer) -> None:
    link = stack.enter_context(RoughLink(peer.address, delay_s=0.01, loss=1.0))
    near, far = connected(stack, link, peer)
    began = time.monotonic()
    near.sendall(b"x")
    wait_until(lambda: link.lost, "it is lost")
    link.loss = 0.0
    near.sendall(b"y")
    assert received(far, 2) == b"xy"
    assert time.monotonic() - began >= RETRANSMISSION_S


def test_a_narrow_link_passes_so_many_bytes_a_second(stack: ExitStack, peer: Peer) -> None:
    link = stack.enter_context(RoughLink(peer.address, bandwidth=100_000))
    near, far = connected(stack, link, peer)
    began = time.monotonic()
    near.sendall(bytes(30_000))
    received(far, 30_000)
    assert time.monotonic() - began >= 0.3


def test_a_sender_waits_when_nobody_reads_at_the_other_end(stack: ExitStack, peer: Peer) -> None:
    """Else the memory of the link would be a queue that the tested programs do not have."""
    link = stack.enter_context(RoughLink(peer.address))
    near, far = connected(stack, link, peer)
    near.settimeout(0.5)
    sent = 0
    with suppress(TimeoutError):
        while sent < 64 * WINDOW:
            sent += near.send(bytes(1 << 16))
    assert sent < 64 * WINDOW
    received(far, sent)


def test_an_end_that_closes_is_heard_of_after_its_last_byte(stack: ExitStack, peer: Peer) -> None:
    link = stack.enter_context(RoughLink(peer.address, delay_s=0.02))
    near, far = connected(stack, link, peer)
    near.sendall(b"last")
    near.shutdown(socket.SHUT_WR)
    assert received(far, 4) == b"last"
    assert far.recv(1) == b""
    far.sendall(b"and back")
    assert received(near, 8) == b"and back"
    far.close()
    assert near.recv(1) == b""
    wait_until(lambda: link.open == 0, "the connection is over")


def test_a_cut_resets_both_ends_and_the_next_connection_works(stack: ExitStack, peer: Peer) -> None:
    link = stack.enter_context(RoughLink(peer.address))
    near, far = connected(stack, link, peer)
    echo_time(near, far)
    assert link.cut() == 1
    assert is_reset(near)
    assert is_reset(far)
    echo_time(*connected(stack, link, peer))
    assert link.accepted == 2


def test_who_resets_a_connection_resets_the_other_end(stack: ExitStack, peer: Peer) -> None:
    link = stack.enter_context(RoughLink(peer.address))
    near, far = connected(stack, link, peer)
    echo_time(near, far)
    near.sendall(b"unread")
    assert far.recv(1, socket.MSG_PEEK) == b"u"
    far.close()  # with bytes that it has not read
    assert is_reset(near)


def test_what_is_swallowed_is_silent_for_ever_and_the_next_connection_works(
    stack: ExitStack, peer: Peer
) -> None:
    link = stack.enter_context(RoughLink(peer.address))
    near, far = connected(stack, link, peer)
    echo_time(near, far)
    assert link.swallow() == 1
    near.sendall(b"gone")
    assert is_silent(far)
    near.close()
    assert is_silent(far), "it is not told"
    assert link.open == 0
    echo_time(*connected(stack, link, peer))


def test_who_connects_is_reset_when_nobody_listens_behind(stack: ExitStack, peer: Peer) -> None:
    link = stack.enter_context(RoughLink(peer.address))
    peer.close()
    with (
        pytest.raises(ConnectionResetError),
        socket.create_connection(link.address, DEADLINE_S) as near,
    ):
        near.recv(1)


def test_a_link_leaves_nothing_behind(stack: ExitStack, peer: Peer) -> None:
    """The fixture of all tests looks at threads and descriptors."""
    with RoughLink(peer.address, delay_s=5.0) as link:
        socket.create_connection(link.address, DEADLINE_S).close()
        with socket.create_connection(link.address, DEADLINE_S) as near:
            near.sendall(b"under way for longer than anybody waits")
            wait_until(lambda: link.accepted == 2, "it has heard of both")
