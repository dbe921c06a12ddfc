"""Waiting for sockets and descriptors: nothing that arrives is overlooked."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
import zmq
from zmq.backend import zmq_poll

from canbroker.system import clock
from canbroker.system.descriptors import POLL
from canbroker.system.wake import Wake
from canbroker.transport import waiter as waiter_module
from canbroker.transport.sockets import Socket
from canbroker.transport.waiter import SharedWaiter, Waiter

_SOON_NS = 20 * clock.SECOND


@pytest.fixture
def pair() -> Iterator[tuple[Socket, Socket]]:
    with zmq.Context() as context, context.socket(zmq.PAIR) as one, context.socket(zmq.PAIR) as two:
        one.bind("inproc://pair")
        two.connect("inproc://pair")
        yield one, two


@pytest.fixture
def wake() -> Iterator[Wake]:
    wake = Wake()
    yield wake
    wake.close()


def test_a_socket_is_reported_until_it_is_empty(pair: tuple[Socket, Socket], wake: Wake) -> None:
    one, two = pair
    waiter = Waiter()
    waiter.add(one)
    waiter.add(wake)
    assert waiter.wait(0) == set()
    two.send(b"1")
    two.send(b"2")
    assert waiter.wait(_SOON_NS) == {one}
    assert one.recv() == b"1"
    wake.set()
    assert waiter.wait(_SOON_NS) == {one, wake}
    assert one.recv() == b"2"
    assert waiter.wait(0) == {wake}


@pytest.mark.parametrize("portable", [False, True])
def test_sockets_that_were_seen_to_be_empty_are_not_looked_at_again(
    portable: bool, pair: tuple[Socket, Socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = pair
    waiter = Waiter()
    waiter.add(one)
    monkeypatch.setattr(waiter_module, "PORTABLE", portable)
    waiter.wait(0)
    looks = 0

    def poll(items: Any, timeout: int) -> Any:
        nonlocal looks
        looks += 1
        return zmq_poll(items, timeout)

    monkeypatch.setattr(waiter_module, "zmq_poll", poll)
    assert waiter.wait(0, is_seen=True) == set()
    assert not looks
    two.send(b"1")
    assert waiter.wait(_SOON_NS, is_seen=True) == {one}
    assert not looks
    waiter.wait(0)
    assert looks


def test_a_message_whose_sign_was_taken_away_is_reported(pair: tuple[Socket, Socket]) -> None:
    """Whoever uses a socket takes away what its descriptor tells."""
    one, two = pair
    waiter = Waiter()
    waiter.add(one)
    two.send(b"1")
    assert one.poll(10_000)
    one.send(b"2")
    assert waiter.wait(clock.MILLISECOND) == {one}


@pytest.mark.parametrize("timeout_ns", [clock.MILLISECOND, 15 * clock.MILLISECOND])
def test_a_wait_lasts_as_long_as_asked_for(wake: Wake, timeout_ns: int) -> None:
    waiter = Waiter()
    waiter.add(wake)
    began = clock.monotonic_ns()
    assert waiter.wait(timeout_ns) == set()
    assert clock.monotonic_ns() - began >= timeout_ns - clock.MILLISECOND


@pytest.mark.parametrize("kind", [Waiter, SharedWaiter])
def test_a_resting_socket_is_reported_afterwards(
    pair: tuple[Socket, Socket], kind: type[Waiter]
) -> None:
    one, two = pair
    waiter = kind()
    waiter.add(one)
    waiter.wait(0)
    two.send(b"1")
    assert waiter.wait(_SOON_NS) == {one}
    waiter.rest(one, 30 * clock.MILLISECOND)
    began = clock.monotonic_ns()
    while not (ready := waiter.wait(_SOON_NS)):
        pass
    assert ready == {one}
    assert clock.monotonic_ns() - began >= 29 * clock.MILLISECOND


@pytest.mark.parametrize("kind", [Waiter, SharedWaiter])
def test_what_was_removed_is_not_reported(
    pair: tuple[Socket, Socket], wake: Wake, kind: type[Waiter]
) -> None:
    one, two = pair
    waiter = kind()
    waiter.add(one)
    waiter.add(wake)
    two.send(b"1")
    wake.set()
    waiter.remove(one)
    assert waiter.wait(clock.MILLISECOND) == {wake}
    waiter.remove(wake)
    assert waiter.wait(clock.MILLISECOND) == set()


def test_a_shared_socket_is_reported_when_another_thread_has_used_it(
    pair: tuple[Socket, Socket],
) -> None:
    one, two = pair
    waiter = SharedWaiter()
    waiter.add(one)
    assert waiter.wait(0) == {one}, "perhaps it has a message"
    assert not waiter.look(one)
    assert waiter.wait(0) == set()
    two.send(b"1")
    assert one.poll(10_000)  # takes the sign away
    assert waiter.wait(0) == set()
    assert waiter.look(one)
    assert waiter.wait(_SOON_NS) == {one}
    assert one.recv() == b"1"
    assert not waiter.look(one)
    assert waiter.wait(0) == set()


@pytest.mark.skipif(POLL is None, reason="only poll() tells which descriptor was closed")
def test_a_descriptor_that_was_closed_is_reported(wake: Wake) -> None:
    """Its owner finds out when it looks."""
    waiter, gone = Waiter(), os.pipe()
    waiter.add(wake)
    waiter.add(gone[0])
    os.close(gone[0])
    try:
        for timeout_ns in (0, 5 * clock.MILLISECOND, 50 * clock.MILLISECOND):
            assert waiter.wait(timeout_ns) == {gone[0]}
    finally:
        os.close(gone[1])


@pytest.mark.skipif(POLL is None, reason="nothing else waits there")
def test_portable_waits_select(wake: Wake, monkeypatch: pytest.MonkeyPatch) -> None:
    """As ``poll()`` of macOS waits for no serial devices."""
    monkeypatch.setattr(waiter_module, "BY_SELECT", True)
    waiter = Waiter()
    waiter.add(wake)
    monkeypatch.setattr(waiter, "_polled", lambda _: pytest.fail("it polls"))
    assert waiter.wait(0) == set()
    wake.set()
    for timeout_ns in (None, 0, _SOON_NS):
        assert waiter.wait(timeout_ns) == {wake}


def test_a_wait_may_be_longer_than_the_system_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which counts milliseconds in 32 bits, if a descriptor has a large number."""
    monkeypatch.setattr("canbroker.transport.waiter.selectable", lambda _: [])
    waiter, wake = Waiter(), Wake()
    waiter.add(wake)
    wake.set()
    assert waiter.wait(100 * 86_400 * clock.SECOND) == {wake}
    wake.close()
