"""Waiting for many sockets: nothing is overlooked, and nothing is reported for ever."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import zmq

from canbroker.system.clock import SECOND
from canbroker.system.wake import Wake
from canbroker.transport.selector import SocketSelector

LONG_NS = 20 * SECOND


class Pair:
    """Two connected sockets; messages go from ``near`` to ``far``."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], name: str) -> None:
        self.near, self.far = context.socket(zmq.PAIR), context.socket(zmq.PAIR)
        self.far.bind(f"inproc://{name}")
        self.near.connect(f"inproc://{name}")

    def close(self) -> None:
        self.near.close(0)
        self.far.close(0)


@pytest.fixture
def pair() -> Iterator[Pair]:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    made = Pair(context, "one")
    yield made
    made.close()
    context.term()


@pytest.fixture
def selector() -> Iterator[SocketSelector[str]]:
    made = SocketSelector[str]()
    yield made
    made.close()


def test_a_message_is_reported_until_it_is_read(pair: Pair, selector: SocketSelector[str]) -> None:
    selector.add(pair.far, "far")
    assert selector.wait(0) == []
    pair.near.send(b"1")
    pair.near.send(b"2")
    assert selector.wait(LONG_NS) == ["far"]
    pair.far.recv()
    assert selector.wait(LONG_NS) == ["far"], "one is left"
    pair.far.recv()
    assert selector.wait(0) == []


def test_a_message_before_it_was_added_is_reported(
    pair: Pair, selector: SocketSelector[str]
) -> None:
    pair.near.send(b"early")
    selector.add(pair.far, "far")
    assert selector.wait(LONG_NS) == ["far"]


def test_a_message_that_sending_has_uncovered_is_reported(
    pair: Pair, selector: SocketSelector[str]
) -> None:
    """Using a socket takes away that its descriptor is readable."""
    selector.add(pair.far, "far")
    assert selector.wait(0) == []
    pair.near.send(b"crossing")
    pair.far.send(b"other way")
    selector.used(pair.far)
    assert selector.wait(LONG_NS) == ["far"]


def test_a_socket_that_was_seen_empty_is_reported_by_its_next_message(
    pair: Pair, selector: SocketSelector[str]
) -> None:
    selector.add(pair.far, "far")
    pair.near.send(b"1")
    assert selector.wait(LONG_NS) == ["far"]
    pair.far.recv()
    with pytest.raises(zmq.Again):
        pair.far.recv(zmq.NOBLOCK)
    selector.seen(pair.far)
    assert selector.wait(0) == []
    pair.near.send(b"2")
    assert selector.wait(LONG_NS) == ["far"]


def test_a_paused_socket_is_reported_when_it_is_resumed(
    pair: Pair, selector: SocketSelector[str]
) -> None:
    selector.add(pair.far, "far")
    selector.pause(pair.far)
    pair.near.send(b"1")
    for _ in range(3):
        assert selector.wait(SECOND // 100) == []
    selector.resume(pair.far)
    assert selector.wait(LONG_NS) == ["far"]


def test_a_removed_socket_is_forgotten(pair: Pair, selector: SocketSelector[str]) -> None:
    selector.add(pair.far, "far")
    pair.near.send(b"1")
    selector.remove(pair.far)
    selector.remove(pair.far)
    assert selector.wait(SECOND // 100) == []


def test_a_descriptor_is_reported_as_long_as_it_is_readable(
    selector: SocketSelector[str],
) -> None:
    wake = Wake()
    selector.watch(wake, "wake")
    wake.set()
    assert [selector.wait(LONG_NS) for _ in range(2)] == [["wake"], ["wake"]]
    wake.clear()
    assert selector.wait(0) == []
    wake.close()
