"""Transmits and their confirmations, without a kernel."""

from __future__ import annotations

from canbroker.backends.base import Transmit
from canbroker.backends.socketcan.codec import encode
from canbroker.backends.socketcan.queue import (
    DOUBT_NS,
    RETRY_FIRST_NS,
    RETRY_MAX_NS,
    STALLED,
    WINDOW,
    TransmitQueue,
)
from canbroker.model.frame import EXTENDED, EchoFrame, Frame


def transmit(number: int, expires_ns: int = 0) -> Transmit:
    return Transmit(Frame(0, number, 0, b"\x01"), "client", None, 0, expires_ns)


def wire(item: Transmit) -> bytes:
    return encode(item.frame)


def written(*items: Transmit) -> TransmitQueue:
    queue = TransmitQueue()
    queue.add(items, 0)
    while queue.head() is not None:
        queue.written(0, 0)
    return queue


def test_confirmations_come_in_order() -> None:
    first, second = transmit(1), transmit(2)
    queue = written(first, second)
    assert queue.confirm(wire(first), 10, 0) is first
    assert queue.confirm(wire(second), 20, 0) is second
    assert (first.timestamp_ns, second.timestamp_ns) == (10, 20)
    assert queue.due_ns() is None
    assert queue.confirm(wire(second), 30, 0) is None


def test_equal_frames_are_confirmed_oldest_first() -> None:
    first, second = transmit(1), transmit(1)
    queue = written(first, second)
    assert queue.confirm(wire(first), 10, 0) is first
    assert queue.confirm(wire(first), 20, 0) is second


def test_what_was_never_sent_confirms_nothing() -> None:
    sent = transmit(1)
    queue = written(sent)
    assert queue.confirm(wire(transmit(2)), 10, 0) is None
    assert queue.due_ns() is None
    assert queue.confirm(wire(sent), 10, 0) is sent


def test_an_overtaken_one_may_come_late() -> None:
    first, second = transmit(1), transmit(2)
    queue = written(first, second)
    assert queue.confirm(wire(second), 10, 1_000) is second
    queue.give_up(1_000 + DOUBT_NS - 1)
    assert queue.take_ended() == []
    assert queue.confirm(wire(first), 20, 2_000) is first
    queue.give_up(1_000 + DOUBT_NS)
    assert queue.take_ended() == []
    assert queue.due_ns() is None


def test_an_overtaken_one_that_never_comes_fails() -> None:
    first, second = transmit(1), transmit(2)
    queue = written(first, second)
    queue.confirm(wire(second), 10, 1_000)
    assert queue.due_ns() == 1_000 + DOUBT_NS
    queue.give_up(1_000 + DOUBT_NS)
    assert queue.take_ended() == [first]
    assert "did not confirm" in (first.failure or "")
    assert first.unknown
    assert queue.room() == WINDOW
    assert queue.due_ns() is None


def test_after_an_overflow_a_lost_confirmation_is_not_waited_for_without_end() -> None:
    lost, later = transmit(1), transmit(2)
    queue = written(lost)
    queue.doubt_all(1_000)
    queue.add([later], 0)
    queue.written(0, 0)
    queue.give_up(1_000 + DOUBT_NS)
    assert queue.take_ended() == [lost]
    assert queue.confirm(wire(later), 10, 0) is later


def test_what_the_kernel_has_does_not_expire() -> None:
    sent = transmit(1, expires_ns=5)
    queue = written(sent)
    queue.give_up(3600 * DOUBT_NS)
    assert queue.take_ended() == []
    assert queue.confirm(wire(sent), 10, 0) is sent
    assert sent.failure is None


def test_a_stall_gives_up_what_is_under_way_and_tries_one_at_a_time() -> None:
    items = [transmit(1), transmit(2), transmit(3), transmit(4, expires_ns=100)]
    queue = written(*items[:2])
    queue.add(items[2:], 5)
    queue.stall(10)
    assert queue.take_ended() == items[:3]
    assert [item.unknown for item in items] == [True, True, False, False]
    assert {item.failure for item in items[:3]} == {STALLED}
    queue.add([transmit(5)], 10)
    assert queue.room() == WINDOW - 2
    assert queue.head() == wire(items[3]), "what may wait is tried"
    queue.written(10, 0)
    assert queue.head() is None
    assert queue.due_ns() is None
    assert queue.confirm(wire(items[3]), 20, 20) is items[3]
    assert not queue.stalled
    assert queue.progress_ns == 20
    assert queue.head() == wire(transmit(5))


def test_what_was_given_up_is_recognised_when_it_is_sent_after_all() -> None:
    lost = transmit(1)
    queue = written(lost)
    queue.stall(10)
    assert queue.can_ids() == {1}
    echo = queue.confirm(wire(lost), 20, 20)
    assert isinstance(echo, EchoFrame)
    assert (echo.timestamp_ns, echo.arbitration_id, echo.origin) == (20, 1, "client")
    assert lost.failure is not None
    assert queue.confirm(wire(lost), 30, 30) is None


def test_what_was_given_up_before_a_frame_that_is_confirmed_was_dropped() -> None:
    """One of the same content is waited for: nobody knows which of the two was confirmed."""
    queue = written(transmit(1), transmit(2))
    queue.stall(10)
    same = transmit(2)
    queue.add([same], 10)
    queue.written(10, 0)
    assert queue.confirm(wire(same), 20, 20) is same
    assert queue.can_ids() == {2}
    assert isinstance(queue.confirm(wire(same), 30, 30), EchoFrame)
    assert queue.confirm(wire(transmit(1)), 40, 40) is None


def test_without_confirmations_what_is_written_is_sent() -> None:
    first, second = transmit(1), transmit(2)
    queue = written(first)
    queue.trust(77)
    assert queue.take_ended() == [first]
    queue.add([second], 0)
    queue.written(5, 88)
    assert queue.needs_reader()
    assert queue.take_ended() == [second]
    assert [(item.timestamp_ns, item.failure) for item in (first, second)] == [
        (77, None), (88, None),
    ]  # fmt: skip
    assert (queue.under_way(), queue.room()) == (False, WINDOW)


def test_a_full_kernel_is_tried_again_at_growing_intervals() -> None:
    queue = TransmitQueue()
    queue.add([transmit(1)], 0)
    now, waits = 0, []
    for _ in range(6):
        queue.full(now)
        due = queue.due_ns()
        assert due is not None
        assert not queue.should_retry(due - 1, confirmed=False)
        assert queue.should_retry(due, confirmed=False)
        waits.append(due - now)
        now = due
    assert waits[0] == RETRY_FIRST_NS
    assert waits == sorted(waits)
    assert waits[-1] == RETRY_MAX_NS
    assert queue.should_retry(now, confirmed=True)
    queue.written(0, 0)
    assert not queue.should_retry(now, confirmed=True)
    queue.add([transmit(2)], 0)
    queue.full(now)
    assert queue.due_ns() == now + RETRY_FIRST_NS


def test_what_waits_expires_and_leaves_the_order_of_the_others() -> None:
    items = [transmit(1), transmit(2, expires_ns=100), transmit(3)]
    queue = TransmitQueue()
    queue.add(items, 0)
    queue.full(0)
    queue.give_up(99)
    assert queue.take_ended() == []
    assert queue.due_ns() == 100
    queue.give_up(100)
    assert queue.take_ended() == [items[1]]
    assert (items[1].failure or "").startswith("expired")
    assert queue.head() == wire(items[0])
    queue.written(0, 0)
    assert queue.head() == wire(items[2])


def test_room_is_what_the_window_has_left_and_none_while_the_kernel_is_full() -> None:
    queue = TransmitQueue()
    assert queue.room() == WINDOW
    queue.add([transmit(1), transmit(2)], 0)
    assert queue.room() == 0
    queue.written(0, 0)
    queue.refused("no")
    assert queue.room() == WINDOW - 2
    assert [item.failure for item in queue.take_ended()] == ["no"]
    assert queue.room() == WINDOW - 1


def test_bus_off_fails_all_and_abandon_returns_what_is_left_once() -> None:
    items = [transmit(number) for number in range(4)]
    queue = written(*items[:2])
    queue.add(items[2:3], 0)
    queue.fail_all("bus-off")
    assert queue.needs_reader()
    assert [item.failure for item in queue.take_ended()] == ["bus-off"] * 3
    queue.add(items[3:], 0)
    assert queue.abandon() == items[3:]
    assert queue.abandon() == []
    assert not queue.needs_reader()


def test_identifiers_under_way_are_known_by_format() -> None:
    queue = written(transmit(0x12))
    queue.add([Transmit(Frame(0, 0x12, EXTENDED, b""), "client", None, 0)], 0)
    assert queue.can_ids() == {0x12, 0x80000012}
