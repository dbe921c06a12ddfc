"""A tap into real channels: what keeps frames from arriving is told in its place among them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from canbroker import Bus, CanOperationError, Message
from canbroker.bus.tapping import tap
from canbroker.delivery.tap import (
    Ended,
    Event,
    Frames,
    Interrupted,
    Missed,
    Restarted,
    Resumed,
    Tap,
)
from canbroker.model.frame import Frame
from canbroker.transport.runtime import Runtime
from tests.support.adapters import REMOVABLE
from tests.support.brokers import status_of, wait_until
from tests.support.ledger import serving

pytestmark = pytest.mark.long

DEADLINE_S: Final = 30.0


def message(number: int) -> Message:
    return Message(arbitration_id=0x100, data=number.to_bytes(4, "big"), is_extended_id=False)


def send(bus: Bus, numbers: range) -> None:
    bus.send_batch([message(number) for number in numbers], timeout=20)


def numbers_in(events: list[Event], channel: str = "x") -> list[int]:
    return [
        int.from_bytes(frame.data, "big")
        for event in events
        if isinstance(event, Frames) and event.channel == channel
        for frame in event.frames
        if not isinstance(frame.data, int)
    ]


def until(stream: Tap, done: Callable[[list[Event]], object]) -> list[Event]:
    """The events up to the first of which they are ``done``."""
    events: list[Event] = []
    deadline = time.monotonic() + DEADLINE_S
    while not done(events):
        assert time.monotonic() < deadline, f"in vain: {events[-5:]}"
        events += stream.receive(0.5)
    return events


def place(events: list[Event], kind: type[Event]) -> int:
    [index] = [index for index, event in enumerate(events) if isinstance(event, kind)]
    return index


def test_a_killed_actor_is_told_between_its_frames_and_its_successors(runtime: Runtime) -> None:
    with (
        Bus("x", "virtual") as sender,
        Bus("x", "virtual") as bus,
        tap([("x", bus)]) as stream,
    ):
        send(sender, range(1000))
        (channel,) = status_of(runtime).channels
        assert channel.pid is not None
        os.kill(channel.pid, signal.SIGKILL)  # what we have not read yet is in its ring
        wait_until(lambda: is_sent(sender, message(5000)), "it sends again", timeout=DEADLINE_S)
        events = until(stream, lambda events: 5000 in numbers_in(events))
    at = place(events, Restarted)
    assert numbers_in(events[:at]) == list(range(1000))
    assert numbers_in(events[at:]) == [5000]
    assert not any(isinstance(event, Missed) for event in events)


def is_sent(bus: Bus, message: Message) -> bool:
    try:
        bus.send(message, timeout=10)
    except CanOperationError:  # the actor that was killed is not replaced yet
        return False
    return True


@pytest.fixture
def small_ring(runtime: Runtime, tmp_path: Path) -> Iterator[None]:
    with serving(runtime, tmp_path, "[broker]\nring_mb = 1\n"):
        yield


def test_a_slow_reader_is_told_how_many_frames_it_missed_and_where(
    runtime: Runtime, small_ring: None
) -> None:
    total, each = 120_000, 10  # more batches than ZeroMQ and the ring keep
    with (
        Bus("x", "virtual") as sender,
        Bus("x", "virtual") as bus,
        tap([("x", bus)]) as stream,
    ):
        for first in range(0, total, each):
            sender.send_batch([message(number) for number in range(first, first + each)])
            sender.flush(timeout=20)  # or the channel publishes several of them as one
        events = until(stream, lambda events: (total - 1) in numbers_in(events[-1:]))
    assert any(isinstance(event, Missed) for event in events), "it was slow for long enough"
    expected = 0
    for event in events:
        if isinstance(event, Missed):
            assert event.loss.frames is not None
            expected += event.loss.frames
        else:
            for number in numbers_in([event]):
                assert number == expected
                expected += 1
    assert expected == total


@pytest.mark.parametrize("kind", REMOVABLE)
def test_an_unplugged_adapter_is_told_between_the_frames(runtime: Runtime, kind: str) -> None:
    with (
        REMOVABLE[kind]() as adapter,
        adapter.open() as bus,
        tap([("x", bus)]) as stream,
    ):
        adapter.inject([Frame(0, 0x100, 0, bytes((n,))) for n in range(3)])
        events = until(stream, lambda events: len(numbers_in(events)) == 3)
        adapter.unplug()
        events += until(stream, lambda events: any(isinstance(e, Interrupted) for e in events))
        adapter.replug()

        def heard(events: list[Event]) -> bool:
            adapter.inject([Frame(0, 0x100, 0, b"\7")])
            return 7 in numbers_in(events)

        events += until(stream, heard)
    away, back = place(events, Interrupted), place(events, Resumed)
    interrupted = events[away]
    assert isinstance(interrupted, Interrupted)
    assert numbers_in(events[:away]) == [0, 1, 2]
    assert adapter.channel in interrupted.reason
    assert numbers_in(events[away:back]) == []
    assert set(numbers_in(events[back:])) == {7}


def test_several_channels_are_one_stream_that_ends_with_the_broker(runtime: Runtime) -> None:
    with (
        Bus("x", "virtual") as x,
        Bus("y", "virtual", can_filters=[{"can_id": 0x100, "can_mask": 0x7FF}]) as y,
        Bus("x", "virtual") as to_x,
        Bus("y", "virtual") as to_y,
        tap([("x", x), ("y", y)]) as stream,
    ):
        send(to_x, range(100))
        send(to_y, range(200))
        to_y.send(Message(arbitration_id=0x200, is_extended_id=False), timeout=10)
        events = until(
            stream,
            lambda events: len(numbers_in(events)) + len(numbers_in(events, "y")) == 300,
        )
        assert numbers_in(events, "x") == list(range(100))
        assert numbers_in(events, "y") == list(range(200))
        pid = status_of(runtime).pid
        os.kill(pid, signal.SIGTERM)
        events = list(stream)
        assert {event.channel for event in events if isinstance(event, Ended)} == {"x", "y"}
