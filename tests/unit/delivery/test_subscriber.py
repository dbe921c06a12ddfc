"""A client's route over a scripted link: filters, gaps, silence, and how long each may take."""

from __future__ import annotations

from typing import Any

import pytest

from canbroker.delivery.order import Order
from canbroker.delivery.subscriber import CATCH_UP_NS, SILENCE_NS, Identity, Subscriber
from canbroker.errors import CanOperationError, CanPermissionError, CanTimeoutError
from canbroker.model.filters import EVERYTHING, FilterSet, validate
from canbroker.model.frame import EchoFrame, Frame
from canbroker.system.clock import MILLISECOND, SECOND
from canbroker.wire import stream, topics
from canbroker.wire.forbidden import Forbidden
from canbroker.wire.stream import ReadyEvent, StateEvent, encode_event, pack_frame
from tests.support.scripted_links import ScriptedStream

CHANNEL = "can0"
EPOCH = 3
ROUTE = topics.route_topic(CHANNEL, EVERYTHING)
PRIVATE = topics.private_topic(CHANNEL, "c1", EVERYTHING)
SOME = validate([{"can_id": 0x100, "can_mask": 0x700, "extended": False}])


class Past:
    """A channel that answers ``found`` frames for a gap, some time after it was asked."""

    lasting = False
    socket: Any = None

    def __init__(self, link: ScriptedStream, after_ns: int) -> None:
        self.asked: list[bytes] = []
        self.closed = 0
        self._link = link
        self._after_ns = after_ns
        self._due_ns: int | None = None

    def due_ns(self) -> int:
        return self._link.time_ns + SECOND

    def mend(self, order: Order, topic: bytes) -> bool:
        if self._due_ns is None:
            self.asked.append(topic)
            self._due_ns = self._link.time_ns + self._after_ns
        if self._link.time_ns < self._due_ns or order.gap is None:
            return False
        gap = order.gap
        assert gap.end is not None
        numbers = range(gap.first, gap.end)
        order.found(gap, gap.first, [echo(number) for number in numbers], complete=True)
        self._due_ns = None
        return True

    def history(
        self,
        topic: bytes,
        seconds: float,
        wake: Any,  # noqa: ARG002 - a test does not wait
        deadline: int | None,
    ) -> tuple[list[EchoFrame], int] | None:
        self.asked.append(topic)
        return ([echo(number) for number in range(int(seconds))], 10) if deadline else None

    def readable(self) -> bool:
        return False

    def wait(self, timeout_ns: int | None) -> None:
        assert self._due_ns is not None
        assert timeout_ns is not None
        self._link.time_ns = min(self._due_ns, self._link.time_ns + timeout_ns)

    def close(self) -> None:
        self.closed += 1


class Side:
    """A subscriber with its link, and a channel that answers after ``delay_ns``."""

    def __init__(self, *, repairs: bool = True, answer_ns: int = MILLISECOND) -> None:
        self.link = ScriptedStream()
        self.past = Past(self.link, answer_ns)
        self.subscriber = Subscriber(
            self.link,
            Identity(CHANNEL, "c1"),
            lambda: self.past,
            repairs=repairs,
            now=self.link.now,
        )

    def ready(self, filters: FilterSet, at_ns: int, next_seq: int, epoch: int = EPOCH) -> None:
        event = ReadyEvent(next_seq, StateEvent(state="active"))
        private = topics.private_topic(CHANNEL, "c1", filters)
        self.link.at(at_ns, (private, encode_event(epoch, event)))

    def batch(self, at_ns: int, first: int, count: int, epoch: int = EPOCH) -> None:
        packed = [pack_frame(echo(number)) for number in range(first, first + count)]
        self.link.at(at_ns, (ROUTE, stream.encode_frames(epoch, first, 0, packed)))

    def subscribed(self) -> Side:
        """At number 10, 1 ms after the beginning."""
        self.ready(EVERYTHING, MILLISECOND, 10)
        self.subscriber.subscribe(EVERYTHING, SECOND)
        return self

    def received(self) -> list[int]:
        """Numbers of the frames that are there."""
        numbers: list[int] = []
        while self.subscriber.receive():
            frames, _, _ = self.subscriber.order.take()
            numbers += [frame.arbitration_id for frame in frames]
            if not frames:
                break
        return numbers


def echo(number: int) -> EchoFrame:
    frame = Frame(0, number, 0, b"")
    return stream.echo(frame, number, "c2")


def test_filters_are_in_force_when_the_channel_confirms_them() -> None:
    side = Side()
    side.ready(EVERYTHING, 5 * MILLISECOND, 10)
    assert side.subscriber.subscribe(EVERYTHING, SECOND).next_seq == 10
    assert side.link.time_ns == 5 * MILLISECOND
    assert side.link.joined == [ROUTE, PRIVATE]  # the presence after the route
    assert side.subscriber.filters == EVERYTHING


def test_a_right_that_our_key_does_not_have_is_an_error_of_its_own() -> None:
    side = Side()
    forbidden = Forbidden(name="bob", role="observe")
    refusal = stream.encode_error(0, "'bob' may not use channel 'can0'", forbidden)
    side.link.at(MILLISECOND, (PRIVATE, refusal))
    with pytest.raises(CanPermissionError, match="'bob' may not use channel 'can0'") as raised:
        side.subscriber.subscribe(EVERYTHING, SECOND)
    assert (raised.value.name, raised.value.role) == ("bob", "observe")
    assert side.link.time_ns == MILLISECOND


def test_a_lost_question_is_asked_again_after_half_a_second() -> None:
    side = Side()
    side.ready(EVERYTHING, 700 * MILLISECOND, 10)
    side.subscriber.subscribe(EVERYTHING, 2 * SECOND)
    assert side.link.joined == [ROUTE, PRIVATE, PRIVATE]


def test_filters_that_are_not_confirmed_in_time_leave_the_old_ones_in_force() -> None:
    side = Side().subscribed()
    began = side.link.time_ns
    with pytest.raises(CanTimeoutError, match="did not confirm the filters in time"):
        side.subscriber.subscribe(SOME, began + SECOND)
    assert side.link.time_ns == began + SECOND
    assert side.link.topics == {ROUTE, PRIVATE}
    assert side.subscriber.filters == EVERYTHING


def test_the_filters_in_force_are_not_asked_for_again() -> None:
    side = Side().subscribed()
    side.subscriber.subscribe(EVERYTHING, None)
    assert side.link.joined == [ROUTE, PRIVATE]


def test_a_change_drops_the_old_route_and_keeps_its_frames() -> None:
    side = Side().subscribed()
    now = side.link.time_ns
    side.batch(now, 10, 2)
    side.ready(SOME, now + MILLISECOND, 0)
    side.subscriber.subscribe(SOME, now + SECOND)
    some = topics.route_topic(CHANNEL, SOME), topics.private_topic(CHANNEL, "c1", SOME)
    assert side.link.topics == set(some)
    frames, losses, _ = side.subscriber.order.take()
    assert [frame.arbitration_id for frame in frames] == [10, 11]
    assert not losses


def test_a_change_waits_for_what_is_missing_of_the_old_route() -> None:
    side = Side(answer_ns=300 * MILLISECOND).subscribed()
    now = side.link.time_ns
    side.batch(now, 12, 1)
    side.ready(SOME, now, 0)
    side.subscriber.subscribe(SOME, now + 5 * SECOND)
    assert side.link.time_ns == now + 300 * MILLISECOND
    assert side.past.asked == [ROUTE]
    frames, losses, _ = side.subscriber.order.take()
    assert [frame.arbitration_id for frame in frames] == [10, 11, 12]
    assert not losses


def test_a_change_waits_a_second_for_it_at_most() -> None:
    side = Side(answer_ns=3 * SECOND).subscribed()
    now = side.link.time_ns
    side.batch(now, 12, 1)
    side.ready(SOME, now, 0)
    side.subscriber.subscribe(SOME, now + 5 * SECOND)
    assert side.link.time_ns == now + SECOND
    frames, losses, _ = side.subscriber.order.take()
    assert [frame.arbitration_id for frame in frames] == [12]
    assert "the filters were changed" in str(losses[0][1])


def test_frames_come_in_order() -> None:
    side = Side().subscribed()
    side.batch(side.link.time_ns, 10, 3)
    side.batch(side.link.time_ns, 13, 2)
    assert side.received() == [10, 11, 12, 13, 14]


def test_a_gap_is_asked_for_and_the_archive_closed_when_it_is_mended() -> None:
    side = Side(answer_ns=20 * MILLISECOND).subscribed()
    side.batch(side.link.time_ns, 12, 1)
    assert side.received() == []
    assert side.past.closed == 0
    side.link.time_ns += 20 * MILLISECOND
    assert side.received() == [10, 11, 12]
    assert side.past.closed == 1
    assert side.subscriber.order.repaired == 2


def test_without_repairs_a_gap_is_lost_at_once() -> None:
    side = Side(repairs=False).subscribed()
    side.batch(side.link.time_ns, 12, 1)
    assert side.received() == [12]
    assert side.subscriber.order.lost == 2
    assert side.past.asked == []


def test_the_past_comes_before_the_route() -> None:
    side = Side().subscribed()
    side.subscriber.remember(3.0, SECOND)
    assert side.received() == [0, 1, 2]
    assert side.past.closed == 1


def test_a_past_that_is_not_told_in_time_raises() -> None:
    side = Side().subscribed()
    with pytest.raises(CanTimeoutError, match="did not tell its history in time"):
        side.subscriber.remember(3.0, 0)
    assert side.past.closed == 1


def test_a_wait_ends_with_what_arrives() -> None:
    side = Side().subscribed()
    now = side.link.time_ns
    side.batch(now + 70 * MILLISECOND, 10, 1)
    side.subscriber.wait(None, None)
    assert side.link.time_ns == now + 70 * MILLISECOND
    assert side.received() == [10]


def test_a_channel_that_is_silent_for_too_long_is_gone() -> None:
    side = Side().subscribed()
    heard = side.link.time_ns
    side.subscriber.wait(None, None)
    assert side.link.time_ns == heard + SILENCE_NS
    with pytest.raises(CanOperationError, match="is silent: its broker or channel actor is gone"):
        side.subscriber.wait(None, None)
    assert side.link.time_ns == heard + SILENCE_NS + CATCH_UP_NS


def test_a_process_that_was_stopped_gets_to_see_its_backlog() -> None:
    side = Side().subscribed()
    side.link.time_ns += 10 * SECOND
    side.subscriber.check_alive()  # only suspected
    side.link.time_ns += CATCH_UP_NS - 1
    side.subscriber.check_alive()
    side.batch(side.link.time_ns, 10, 1)
    assert side.received() == [10]
    side.link.time_ns += CATCH_UP_NS
    side.subscriber.check_alive()


def test_who_was_away_is_behind_until_all_is_read_and_mended() -> None:
    side = Side().subscribed()
    now = side.link.time_ns + 10 * SECOND
    side.link.time_ns = now
    for first in (10, 12, 20):  # 14 to 19 are missing
        side.batch(now, first, 2)
    assert not side.subscriber.behind
    assert side.received() == [10, 11, 12, 13]
    assert side.subscriber.behind
    side.subscriber.wait(None, MILLISECOND)
    assert side.subscriber.behind, "frames are missing"
    assert side.received() == [14, 15, 16, 17, 18, 19, 20, 21]
    side.subscriber.wait(None, MILLISECOND)
    assert not side.subscriber.behind


def test_who_hears_heartbeats_is_not_behind() -> None:
    side = Side().subscribed()
    for _ in range(4):
        side.link.time_ns += SECOND // 2
        side.link.at(side.link.time_ns, (ROUTE, stream.encode_heartbeat(EPOCH, 10, 0)))
        assert side.received() == []
    assert not side.subscriber.behind


def test_an_error_of_the_channel_is_raised() -> None:
    side = Side().subscribed()
    side.link.at(side.link.time_ns, (ROUTE, stream.encode_end(EPOCH, 10, 0, "the channel ends")))
    with pytest.raises(CanOperationError, match="'can0': the channel ends"):
        side.subscriber.receive()


def test_messages_of_other_topics_are_passed_over() -> None:
    side = Side().subscribed()
    side.link.at(side.link.time_ns, (topics.route_topic(CHANNEL, SOME), b"whatever"))
    assert side.received() == []


def test_another_actor_begins_a_new_epoch() -> None:
    side = Side(repairs=False).subscribed()
    side.ready(EVERYTHING, side.link.time_ns, 0, EPOCH + 1)
    side.batch(side.link.time_ns, 0, 1, EPOCH + 1)
    assert side.received() == [0]
    assert side.subscriber.order.restarts == 1


def test_leaving_unsubscribes_from_everything() -> None:
    side = Side().subscribed()
    side.subscriber.leave()
    assert side.link.topics == set()
    side.subscriber.close()
    assert side.link.closed
