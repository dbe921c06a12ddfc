"""Deadlines for a channel whose host has another monotonic clock."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from canbroker.bus.channel_clock import ChannelClock
from canbroker.bus.channel_watch import ChannelWatch
from canbroker.bus.transmitter import Transmitter
from canbroker.model.frame import Frame
from canbroker.system import clock
from canbroker.system.clock import MILLISECOND, SECOND
from canbroker.system.throttle import Throttle
from canbroker.transport.address import IpcAddress
from canbroker.transport.links import KeepingLink
from canbroker.transport.routers import Router, router
from canbroker.transport.sockets import Context
from canbroker.transport.waiter import Waiter
from canbroker.wire import topics
from canbroker.wire.stream import StateEvent, encode_event
from canbroker.wire.transmit import MAX_REPLY_BYTES, decode_request

#: How far the two clocks are apart.
AHEAD_NS = 3600 * SECOND


def remote() -> ChannelClock:
    return ChannelClock(is_ours=False)


def test_on_the_same_host_a_late_state_changes_nothing() -> None:
    ours = ChannelClock(is_ours=True)
    for delay in (0, 1, SECOND):
        ours.note(10 * SECOND, 10 * SECOND + delay)
        assert ours.deadline(17 * SECOND) == 17 * SECOND
        assert ours.ours(17 * SECOND) == 17 * SECOND


def test_a_deadline_is_early_by_the_least_delay() -> None:
    theirs = remote()
    now = 10_000 * SECOND
    for delay in (5 * MILLISECOND, 2 * MILLISECOND, 900 * MILLISECOND):
        theirs.note(now - AHEAD_NS, now + delay)
    early = now - AHEAD_NS - theirs.deadline(now)
    assert 2 * MILLISECOND <= early < 2.1 * MILLISECOND, "the clocks may have drifted meanwhile"
    assert theirs.ours(theirs.deadline(now)) == now


def test_no_deadline_stays_none() -> None:
    theirs = remote()
    theirs.note(SECOND, AHEAD_NS + SECOND)
    assert theirs.deadline(0) == 0
    assert theirs.deadline(1) > 0, "long over, which is not the same as never"


def test_a_state_without_a_stamp_says_nothing() -> None:
    theirs = remote()
    theirs.note(0, AHEAD_NS)
    assert theirs.deadline(SECOND) == SECOND


def test_a_state_that_waited_is_an_old_one() -> None:
    theirs = remote()
    now = 10_000 * SECOND
    theirs.note(now - AHEAD_NS, now)
    later = now + 100 * SECOND
    theirs.note(later - AHEAD_NS - 90 * SECOND, later)
    age = later - theirs.ours(later - AHEAD_NS - 90 * SECOND)
    assert 89 * SECOND < age <= 90 * SECOND


def test_clocks_that_drift_apart_are_followed() -> None:
    theirs = remote()
    now = 10_000 * SECOND
    for second in range(1_000):  # ours gains 50 millionths
        ours = now + second * SECOND
        theirs.note(ours - AHEAD_NS - second * SECOND // 20_000, ours)
    assert theirs.deadline(ours) == ours - AHEAD_NS - 999 * SECOND // 20_000


def test_a_host_that_was_booted_again_has_another_clock() -> None:
    theirs = remote()
    now = 10_000 * SECOND
    theirs.note(now - AHEAD_NS, now)
    theirs.begin()
    theirs.note(SECOND, now)
    assert theirs.deadline(now) == SECOND


@contextmanager
def remote_channel(directory: Path) -> Iterator[tuple[Context, IpcAddress]]:
    context = Context()
    try:
        yield context, IpcAddress(directory / "rx")
    finally:
        context.close()


def test_a_request_expires_on_the_channels_clock(tmp_path: Path) -> None:
    with remote_channel(tmp_path) as (context, stream):
        watch = ChannelWatch(context, stream, "can0", remote())
        now = clock.monotonic_ns()
        watch.begin(1, StateEvent(state="active", monotonic_ns=now + AHEAD_NS))
        transmit = IpcAddress(tmp_path / "tx")
        intake = router(context, transmit, Throttle(logging.getLogger("test")))
        waiter = Waiter()
        intake.watch(waiter)
        link = KeepingLink(context, transmit, MAX_REPLY_BYTES)
        transmitter = Transmitter(link, "c1", watch, lambda: None)
        try:
            deadline = now + 10 * SECOND
            for expires in (deadline, 0):
                transmitter.offer([Frame(0, 1, 0, b"")], expires, lambda *_: None)
            expiries = [_expires_ns(intake, waiter) for _ in range(2)]
        finally:
            transmitter.close()
            intake.close()
            watch.close()
        early = deadline + AHEAD_NS - expiries[0]
        assert 0 <= early < SECOND, "it took that long from the state's stamp to its receipt"
        assert expiries[1] == 0


def _expires_ns(intake: Router, waiter: Waiter) -> int:
    while (received := intake.receive()) is None:
        assert waiter.wait(20 * SECOND)
    _, (body,) = received
    return decode_request(body).expires_ns


def test_the_age_of_a_state_is_by_the_channels_clock(tmp_path: Path) -> None:
    """A state of now is not asked for again because the clocks differ."""
    with remote_channel(tmp_path) as (context, stream):
        publisher = context.publisher(stream)
        waiter = Waiter()
        waiter.add(publisher)
        watch = ChannelWatch(context, stream, "can0", remote())
        topic = topics.state_topic("can0")
        try:
            assert waiter.wait(20 * SECOND)
            assert publisher.recv() == b"\1" + topic
            state = StateEvent(state="error", monotonic_ns=clock.monotonic_ns() + AHEAD_NS)
            publisher.send_multipart([topic, encode_event(1, state)])
            watch.wait_for("error", clock.deadline_after(20))
            assert not waiter.wait(0), "it has not subscribed again"
        finally:
            watch.close()
            publisher.close()
