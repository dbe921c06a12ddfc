"""Transmits and their confirmations, without a kernel."""

from __future__ import annotations

from canbroker.backends.base import Transmit
from canbroker.backends.socketcan.codec import encode
from canbroker.backends.socketcan.queue import (
    DOUBT_NS,
    RETRY_FIRST_NS,
    RETRY_MAX_NS,
    WINDOW,
    TransmitQueue,
)
from canbroker.frame import EXTENDED, Frame


def transmit(number: int, expires_ns: int = 0) -> Transmit:
    return Transmit(Frame(0, number, 0, b"\x01"), "client", None, 0, expires_ns)


def wire(item: Transmit) -> bytes:
    return encode(item.frame)


def written(*items: Transmit) -> TransmitQueue:
    queue = TransmitQueue()
    queue.add(items)
    while queue.head() is not None:
        queue.written()
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
    assert queue.take_failed() == []
    assert queue.confirm(wire(first), 20, 2_000) is first
    queue.give_up(1_000 + DOUBT_NS)
    assert queue.take_failed() == []
    assert queue.due_ns() is None


def test_an_overtaken_one_that_never_comes_fails() -> None:
    first, second = transmit(1), transmit(2)
    queue = written(first, second)
    queue.confirm(wire(second), 10, 1_000)
    assert queue.due_ns() == 1_000 + DOUBT_NS
    queue.give_up(1_000 + DOUBT_NS)
    assert queue.take_failed() == [first]
    assert "did not confirm" in (first.failure or "")
    assert queue.room() == WINDOW
    assert queue.due_ns() is None


def test_after_an_overflow_a_lost_confirmation_is_not_waited_for_without_end() -> None:
    lost, later = transmit(1), transmit(2)
    queue = written(lost)
    queue.doubt_all(1_000)
    queue.add([later])
    queue.written()
    queue.give_up(1_000 + DOUBT_NS)
    assert queue.take_failed() == [lost]
    assert queue.confirm(wire(later), 10, 0) is later


def test_without_doubt_the_kernel_may_take_its_time() -> None:
    sent = transmit(1, expires_ns=5)
    queue = written(sent)
    queue.give_up(3600 * DOUBT_NS)
    assert queue.take_failed() == []
    assert queue.confirm(wire(sent), 10, 0) is sent
    assert sent.failure is None


def test_a_full_kernel_is_tried_again_at_growing_intervals() -> None:
    queue = TransmitQueue()
    queue.add([transmit(1)])
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
    queue.written()
    assert not queue.should_retry(now, confirmed=True)
    queue.add([transmit(2)])
    queue.full(now)
    assert queue.due_ns() == now + RETRY_FIRST_NS


def test_what_waits_expires_and_leaves_the_order_of_the_others() -> None:
    items = [transmit(1), transmit(2, expires_ns=100), transmit(3)]
    queue = TransmitQueue()
    queue.add(items)
    queue.full(0)
    queue.give_up(99)
    assert queue.take_failed() == []
    assert queue.due_ns() == 100
    queue.give_up(100)
    assert queue.take_failed() == [items[1]]
    assert (items[1].failure or "").startswith("expired")
    assert queue.head() == wire(items[0])
    queue.written()
    assert queue.head() == wire(items[2])


def test_room_is_what_the_window_has_left_and_none_while_the_kernel_is_full() -> None:
    queue = TransmitQueue()
    assert queue.room() == WINDOW
    queue.add([transmit(1), transmit(2)])
    assert queue.room() == 0
    queue.written()
    queue.refused("no")
    assert queue.room() == WINDOW - 2
    assert [item.failure for item in queue.take_failed()] == ["no"]
    assert queue.room() == WINDOW - 1


def test_bus_off_fails_all_and_abandon_returns_what_is_left_once() -> None:
    items = [transmit(number) for number in range(4)]
    queue = written(*items[:2])
    queue.add(items[2:3])
    queue.fail_all("bus-off")
    assert queue.needs_reader()
    assert [item.failure for item in queue.take_failed()] == ["bus-off"] * 3
    queue.add(items[3:])
    assert queue.abandon() == items[3:]
    assert queue.abandon() == []
    assert not queue.needs_reader()


def test_identifiers_under_way_are_known_by_format() -> None:
    queue = written(transmit(0x12))
    queue.add([Transmit(Frame(0, 0x12, EXTENDED, b""), "client", None, 0)])
    assert queue.can_ids() == {0x12, 0x80000012}
