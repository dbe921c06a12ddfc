"""Events of several channels in one order of time, with the time passed in."""

from __future__ import annotations

import random
from typing import Final

import pytest

from canbroker.delivery.merging import HOLD_NS, MAX_HELD, Disorder, Merger
from canbroker.model.frame import EchoFrame
from canbroker.system.clock import MILLISECOND, SECOND

#: An event: the name of its channel and frames, or a text.
Event = tuple[str, list[EchoFrame]] | str

#: When time stamps begin.
WALL: Final = 1_700_000_000 * SECOND


def frames(*at_ms: float) -> list[EchoFrame]:
    return [
        EchoFrame(WALL + round(at * MILLISECOND), number, 0, b"") for number, at in enumerate(at_ms)
    ]


def told(name: str, *at_ms: float) -> Event:
    return (name, frames(*at_ms))


def frames_of(event: Event) -> list[EchoFrame]:
    return [] if isinstance(event, str) else event[1]


def with_frames(event: Event, kept: list[EchoFrame]) -> Event:
    assert not isinstance(event, str)
    return (event[0], kept)


def merger(channels: int = 2) -> Merger[Event]:
    return Merger(channels, frames_of, with_frames)


def times(events: list[Event]) -> list[tuple[str, float] | str]:
    """The frames with their milliseconds, and the texts."""
    seen: list[tuple[str, float] | str] = []
    for event in events:
        if isinstance(event, str):
            seen.append(event)
        else:
            seen += [(event[0], (frame.timestamp_ns - WALL) / MILLISECOND) for frame in event[1]]
    return seen


def test_a_single_channel_is_not_held_back() -> None:
    one = merger(1)
    one.add(0, [told("a", 5, 3), "lost", told("a", 9)], 0)
    assert times(one.take(0)) == [("a", 5), ("a", 3), "lost", ("a", 9)]
    assert one.due_ns() is None


def test_a_frame_waits_until_the_other_channel_has_told_a_later_one() -> None:
    both = merger()
    both.add(0, [told("a", 1, 5)], 0)
    assert both.take(0) == []
    both.add(1, [told("b", 3, 4)], 1)
    assert times(both.take(1)) == [("a", 1), ("b", 3), ("b", 4)]
    assert both.held == 1
    both.add(1, [told("b", 6)], 2)
    assert times(both.take(2)) == [("a", 5)]
    assert both.disorder == Disorder()


def test_a_silent_channel_delays_the_others_for_a_short_time_only() -> None:
    both = merger()
    both.add(0, [told("a", 1)], 1000)
    both.add(0, [told("a", 2)], 2000)
    assert both.due_ns() == 1000 + HOLD_NS
    assert both.take(999 + HOLD_NS) == []
    assert times(both.take(1000 + HOLD_NS)) == [("a", 1)]
    assert times(both.take(2000 + HOLD_NS)) == [("a", 2)]
    assert both.due_ns() is None


def test_what_is_released_takes_along_what_was_before_it() -> None:
    both = merger()
    both.add(0, [told("a", 5)], 0)
    both.add(1, [told("b", 3)], HOLD_NS - 1)
    both.add(1, [told("b", 4, 6)], HOLD_NS)
    assert times(both.take(HOLD_NS)) == [("b", 3), ("b", 4), ("a", 5)]


def test_other_events_keep_their_place_among_their_channels_frames() -> None:
    both = merger()
    both.add(0, [told("a", 1), "a lost", told("a", 4)], 0)
    both.add(1, [told("b", 2), "b away", told("b", 5)], 0)
    assert times(both.take(0)) == [("a", 1), "a lost", ("b", 2), "b away", ("a", 4)]


def test_frames_that_come_too_late_are_counted() -> None:
    both = merger()
    both.add(0, [told("a", 30)], 0)
    both.take(HOLD_NS)
    both.add(1, [told("b", 10, 20, 40)], 2 * HOLD_NS)
    assert times(both.take(3 * HOLD_NS)) == [("b", 10), ("b", 20), ("b", 40)]
    assert both.disorder == Disorder(2, 20 * MILLISECOND)


def test_a_channel_that_has_ended_is_not_waited_for() -> None:
    both = merger()
    both.add(0, [told("a", 1)], 0)
    both.end(1)
    assert times(both.take(0)) == [("a", 1)]
    both.add(0, [told("a", 2)], 0)
    both.end(0)
    assert times(both.take(0)) == [("a", 2)]


def test_a_wall_clock_that_is_set_back_holds_nothing_for_longer() -> None:
    both = merger()
    both.add(0, [told("a", 3_600_000)], 0)
    both.add(1, [told("b", 3_600_001)], 0)
    both.take(0)
    both.add(0, [told("a", 10, 30)], HOLD_NS)
    both.add(1, [told("b", 20, 40)], HOLD_NS)
    assert len(times(both.take(HOLD_NS))) == 5
    both.add(0, [told("a", 50, 70)], HOLD_NS)
    both.add(1, [told("b", 60, 80)], HOLD_NS)
    assert times(both.take(HOLD_NS)) == [("a", 50), ("b", 60), ("a", 70)]
    assert both.disorder == Disorder()


def test_memory_is_bounded() -> None:
    both = merger()
    for number in range(MAX_HELD + 1):
        both.add(0, [told("a", number)], 0)
    assert len(both.take(0)) == MAX_HELD + 1
    assert both.held == 0


@pytest.mark.parametrize("seed", range(5))
def test_channels_that_are_late_by_less_than_the_wait_are_in_order(seed: int) -> None:
    chance = random.Random(seed)
    many = merger(4)
    stamps = sorted(chance.uniform(0, 2000) for _ in range(4000))
    arrivals: list[tuple[float, int, float]] = []
    latest = [0.0] * 4
    for at in stamps:
        channel = chance.randrange(4)
        latest[channel] = max(latest[channel], at + chance.uniform(0, 15))
        arrivals.append((latest[channel], channel, at))
    seen: list[tuple[str, float] | str] = []
    longest = 0
    for arrived, channel, at in sorted(arrivals):
        now = round(arrived * MILLISECOND)
        due = many.due_ns()
        if due is not None and due <= now:
            seen += times(many.take(due))
        many.add(channel, [told(f"{channel}", at)], now)
        seen += times(many.take(now))
        longest = max(longest, many.held)
    seen += times(many.rest())
    assert [entry[1] for entry in seen] == pytest.approx(stamps, abs=1e-5)
    assert many.disorder == Disorder()
    assert longest < 200
