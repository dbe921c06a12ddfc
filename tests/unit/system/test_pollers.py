"""Waiting for descriptors: what every system has does as Linux's own."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable, Iterator

import pytest

from canbroker.system.pollers import AT_ONCE, READ, WRITE, Poller, PortablePoller, poller


@pytest.fixture(params=[poller, PortablePoller])
def made(request: pytest.FixtureRequest) -> Iterator[Poller]:
    make: Callable[[], Poller] = request.param
    one = make()
    yield one
    one.close()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    near, far = socket.socketpair()
    with near, far:
        yield near, far


Pair = tuple[socket.socket, socket.socket]


def test_what_can_be_read_is_reported_until_it_is_read(made: Poller, pair: Pair) -> None:
    near, far = pair
    made.register(near.fileno(), READ)
    assert made.poll(0.0, AT_ONCE) == []
    far.send(b"1")
    assert [made.poll(20.0, AT_ONCE) for _ in range(2)] == [[(near.fileno(), READ)]] * 2
    near.recv(1)
    assert made.poll(0.0, AT_ONCE) == []


def test_what_is_awaited_can_be_changed(made: Poller, pair: Pair) -> None:
    near, _ = pair
    made.register(near.fileno(), READ)
    made.modify(near.fileno(), READ | WRITE)
    assert [number for number, _ in made.poll(20.0, AT_ONCE)] == [near.fileno()]
    made.modify(near.fileno(), READ)
    assert made.poll(0.0, AT_ONCE) == []


def test_what_is_forgotten_is_not_reported(made: Poller, pair: Pair) -> None:
    near, far = pair
    made.register(near.fileno(), READ)
    far.send(b"1")
    made.unregister(near.fileno())
    assert made.poll(0.0, AT_ONCE) == []


@pytest.mark.skipif(sys.platform != "linux", reason="Linux's own numbers")
def test_events_are_as_linux_has_them() -> None:
    import select  # noqa: PLC0415 - others have no such names

    assert (READ, WRITE) == (select.EPOLLIN, select.EPOLLOUT)
