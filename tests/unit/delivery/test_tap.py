"""A tap's stream by scripts: the steps of a channel, and the events that they make."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import pytest

from canbroker.delivery.order import REPLACED, Loss, Order, Part, Place
from canbroker.delivery.tap import (
    Dropped,
    Ended,
    Event,
    Feed,
    Frames,
    Interrupted,
    Missed,
    Restarted,
    Resumed,
    Silent,
    Tap,
)
from canbroker.errors import CanOperationError
from canbroker.model.frame import EchoFrame
from canbroker.transport.sockets import Socket
from canbroker.wire.stream import AdapterClock, StateEvent, encode_event

#: What a channel does: it has a part of a route, a state, an answer, or an error for us.
Step = Callable[["Script"], None]

DOWN: Final = StateEvent(state="error", reason="unplugged", interruptions=1)


def frame(number: int, timestamp_ns: int = 0) -> EchoFrame:
    return EchoFrame(timestamp_ns or number, number, 0, b"")


def frames(first: int, end: int) -> list[EchoFrame]:
    return [frame(number) for number in range(first, end)]


def part(epoch: int, first: int, end: int) -> Step:
    return lambda script: script.order.add(Part(epoch, first, frames(first, end)))


def state(epoch: int, event: StateEvent) -> Step:
    body = encode_event(epoch, event)
    return lambda script: script.states.append((body, script.order.gap is not None))


def found(first: int, end: int, *, complete: bool = True) -> Step:
    """The answer to the request for the gap."""

    def answer(script: Script) -> None:
        assert script.order.gap is not None
        script.order.found(script.order.gap, first, frames(first, end), complete=complete)

    return answer


def failure(text: str) -> Step:
    def fail(_: Script) -> None:
        raise CanOperationError(text)

    return fail


def dropped(total: int) -> Step:
    def tell(script: Script) -> None:
        script.dropped_upstream = total

    return tell


def pause(_: Script) -> None:
    """Nothing more has arrived for now."""


class Script:
    """A source that does its steps whenever it is read, up to the next pause."""

    def __init__(self, *steps: Step, repairs: bool = True, dropped: int = 0) -> None:
        self.order = Order(repairs=repairs)
        self.order.begin(1, 0)
        self.dropped_upstream = dropped
        self.states: deque[tuple[bytes, bool]] = deque()
        self.silence = ""
        self.sockets: Sequence[Socket] = ()
        self._steps = deque(steps)

    def follow_state(self) -> None:
        self.states.append((encode_event(1, StateEvent(state="active")), False))

    def receive(self) -> bool:
        while not self.order.frames:
            step = self._steps.popleft() if self._steps else pause
            if step is pause:
                return bool(self.order.losses)
            step(self)
        return True

    def check_alive(self) -> None:
        if self.silence:
            raise CanOperationError(self.silence)


def events_of(*steps: Step, repairs: bool = True) -> list[Event]:
    feed = Feed("x", Script(*steps, repairs=repairs))
    return joined(event for _ in range(1 + steps.count(pause)) for event in feed.read())


def joined(events: Iterable[Event]) -> list[Event]:
    """With frames that follow each other in one event."""
    result: list[Event] = []
    for event in events:
        last = result[-1] if result else None
        if isinstance(event, Frames) and isinstance(last, Frames):
            result[-1] = Frames(last.channel, last.frames + event.frames)
        else:
            result.append(event)
    return result


def seen(*numbers: int) -> Frames:
    return Frames("x", [frame(number) for number in numbers])


def test_frames_come_as_they_are() -> None:
    assert events_of(part(1, 0, 2), part(1, 2, 2), part(1, 2, 3)) == [seen(0, 1, 2)]


def test_what_was_missed_is_where_it_was() -> None:
    """Whatever came behind it waits for the answer."""
    script = part(1, 0, 2), part(1, 5, 6), pause, found(4, 5), part(1, 6, 7)
    loss = Loss(1, 2, 2, "the channel does not have them any more")
    assert events_of(*script) == [seen(0, 1), Missed("x", loss), seen(4, 5, 6)]


def test_a_restart_is_between_the_last_frame_and_the_first() -> None:
    """The last frames of the old process arrive after the first ones of the new."""
    script = part(1, 0, 2), part(2, 0, 1), pause, found(2, 3), part(2, 1, 2)
    assert events_of(*script) == [seen(0, 1, 2), Restarted("x", Place(2, 0)), seen(0, 1)]


def test_a_restart_without_a_frame_is_told() -> None:
    assert events_of(part(2, 0, 0), pause, found(0, 0)) == [Restarted("x", Place(2, 0))]


def test_losses_around_a_restart_are_in_order() -> None:
    """The old process leaves nothing, and of the new one's frames the first are missing."""
    script = part(1, 0, 1), part(2, 3, 4)
    assert events_of(*script, repairs=False) == [
        seen(0),
        Missed("x", Loss(1, 1, None, REPLACED)),
        Restarted("x", Place(2, 0)),
        Missed("x", Loss(2, 0, 3, REPLACED)),
        seen(3),
    ]


def test_an_adapter_that_is_away_is_told_where_it_went_and_came_back() -> None:
    back = StateEvent(state="active", interruptions=1)
    script = part(1, 0, 1), state(1, DOWN), part(1, 1, 1), pause, state(1, back), part(1, 1, 2)
    expected = [seen(0), Interrupted("x", "unplugged"), Resumed("x"), seen(1)]
    assert events_of(*script) == expected


def test_an_adapter_that_was_away_between_two_states_is_told() -> None:
    script = state(1, StateEvent(state="active", interruptions=1)), part(1, 0, 1)
    assert events_of(*script) == [Interrupted("x", ""), Resumed("x"), seen(0)]


def test_an_adapter_that_is_away_from_the_beginning_is_told() -> None:
    script = Script()
    feed = Feed("x", script)
    script.states.clear()
    script.states.append((encode_event(1, DOWN), False))
    assert feed.read() == [Interrupted("x", "unplugged")]


def test_an_interruption_waits_for_what_was_missed_before_it() -> None:
    script = part(1, 0, 1), part(1, 2, 3), state(1, DOWN), pause, found(1, 2)
    assert events_of(*script) == [seen(0, 1, 2), Interrupted("x", "unplugged")]


def test_another_process_counts_interruptions_from_0() -> None:
    script = (
        state(1, DOWN),
        part(2, 0, 0),
        pause,
        found(0, 0),
        state(2, StateEvent(state="active")),
        part(2, 0, 1),
    )
    expected = [Interrupted("x", "unplugged"), Resumed("x"), Restarted("x", Place(2, 0)), seen(0)]
    assert events_of(*script) == expected


def test_frames_lost_in_the_adapter_are_counted_from_now_on() -> None:
    script = Script(dropped(12), part(1, 0, 1), pause, dropped(13), part(1, 1, 2), dropped=10)
    feed = Feed("x", script)
    assert feed.read() == [Dropped("x", 2), seen(0)]
    assert feed.read() == [Dropped("x", 1), seen(1)]
    assert feed.read() == []


def test_a_silent_channel_is_told_once_until_it_speaks() -> None:
    script = Script(pause, pause, part(1, 0, 1))
    feed = Feed("x", script)
    script.silence = "channel 'x' is silent"
    assert feed.read() == [Silent("x", "channel 'x' is silent")]
    assert feed.read() == []
    script.silence = ""
    assert feed.read() == [Resumed("x"), seen(0)]


def test_a_channel_that_ends_says_why_after_its_last_frame() -> None:
    ending = StateEvent(state="active", reason="the broker was stopped", ended=True)
    script = Script(
        part(1, 0, 1), state(1, ending), part(1, 1, 2), failure("channel 'x': END"), part(1, 2, 3)
    )
    tap = Tap([Feed("x", script)])
    assert joined(tap) == [seen(0, 1), Ended("x", "channel 'x': the broker was stopped")]
    assert tap.receive() == []
    tap.close()


def test_a_channel_that_does_not_follow_the_protocol_ends() -> None:
    events = events_of(part(1, 0, 1), failure("channel 'x': nonsense"))
    assert events == [seen(0), Ended("x", "channel 'x': nonsense")]


def test_a_channel_tells_how_well_its_adapters_clock_is_known() -> None:
    known = AdapterClock(drift_ppb=-30_000, error_ns=120_000)
    feed = Feed("x", Script(state(1, StateEvent(state="active", clock=known))))
    assert feed.clock is None
    feed.read()
    assert feed.clock == known


def test_a_state_that_is_not_readable_is_passed_over() -> None:
    script = Script(part(1, 0, 1))
    feed = Feed("x", script)
    script.states.append((b"nonsense", False))
    assert feed.read() == [seen(0)]


def stamped(channel: str, *at_ns: int) -> Frames:
    return Frames(channel, [frame(at, at) for at in at_ns])


def arriving(*at_ns: int) -> Step:
    def arrive(script: Script) -> None:
        first = script.order.received
        script.order.add(Part(1, first, [frame(at, at) for at in at_ns]))

    return arrive


def test_channels_are_merged_by_time_and_each_keeps_its_order() -> None:
    """The clocks of adapters step back now and then; the order of their frames counts."""
    one = Script(arriving(10, 30, 20, 50))
    other = Script(arriving(15), state(1, DOWN), arriving(40))
    tap = Tap([Feed("one", one), Feed("other", other)])
    assert tap.receive(0) == [
        stamped("one", 10),
        stamped("other", 15),
        Interrupted("other", "unplugged"),
        stamped("one", 30, 20),
        stamped("other", 40),
    ]
    assert tap.receive(0) == [], "the other one may tell an earlier frame still"
    assert tap.receive(5) == [stamped("one", 50)]
    tap.close()


def test_a_channel_that_ends_leaves_the_others() -> None:
    tap = Tap([Feed("one", Script(failure("gone"))), Feed("other", Script(pause, arriving(1)))])
    assert tap.receive(1) == [Ended("one", "gone")]
    assert tap.receive(1) == [stamped("other", 1)]
    assert not tap.over
    tap.close()


def test_a_stream_without_events_ends_in_time() -> None:
    with Tap([Feed("x", Script())]) as tap:
        assert tap.receive(0) == []
        assert tap.receive(0.3) == []


@pytest.mark.parametrize("early", [True, False])
def test_a_stream_is_stopped_from_another_thread(early: bool) -> None:
    with Tap([Feed("x", Script(part(1, 0, 1)))]) as tap:
        stopper = threading.Timer(0 if early else 0.2, tap.stop)
        stopper.start()
        if early:
            stopper.join()
        assert list(tap) == ([] if early else [seen(0)])
        stopper.join()
