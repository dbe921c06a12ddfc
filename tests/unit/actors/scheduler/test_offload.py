"""Tasks that a driver repeats, by scripts and with the time passed in."""

from __future__ import annotations

from typing import Final

import pytest

from canbroker.actors.scheduler.offload import ASK_NS, Offload
from canbroker.actors.scheduler.schedule import Schedule, Task
from canbroker.model.frame import Frame
from canbroker.model.protection import Counter, protection
from canbroker.system.clock import SECOND
from canbroker.wire.control import ErrorResult, Nothing
from canbroker.wire.tasks import RepeatCount
from tests.support.channel_scripts import PERIOD_NS, Control, due, task

NOW: Final = 1_000 * SECOND


class Channel:
    """The offload of one channel, and the other end of its control connection."""

    def __init__(self, *tasks: Task, repeated: tuple[RepeatCount, ...] = ()) -> None:
        self.control = Control()
        self.schedule = Schedule()
        self.tasks = set(tasks)
        self.offload = Offload(self.control, self.schedule, self.tasks)
        for each in tasks:
            self.schedule.add(each, NOW, None, None)
        self.come_up(NOW, *repeated)

    def come_up(self, now_ns: int, *repeated: RepeatCount, supported: bool = True) -> None:
        self.offload.step(now_ns)
        assert not self.offload.in_sync
        discard = self.control.answer("discard", Nothing())
        assert discard.params.through, "frames of a previous scheduler are discarded first"
        self.offload.receive(now_ns)
        self.control.in_sync(*repeated, supported=supported)
        self.offload.receive(now_ns)
        assert self.offload.in_sync

    def offer(self, now_ns: int = NOW) -> Task:
        """Offers the task that is due."""
        [only] = due(self.schedule, now_ns)
        assert self.offload.offer(only)
        return only

    def count(self, now_ns: int, *repeated: RepeatCount) -> None:
        self.offload.step(now_ns)
        self.control.in_sync(*repeated, supported=True)
        self.offload.receive(now_ns)


def test_a_task_that_is_accepted_leaves_the_schedule() -> None:
    channel = Channel(task())
    only = channel.offer()
    call = channel.control.accept()
    assert call.params.due_ns == NOW
    assert call.params.period_ns == PERIOD_NS
    channel.offload.receive(NOW)
    assert only.parked
    assert due(channel.schedule, NOW + 5 * PERIOD_NS) == []


def test_a_task_that_is_refused_is_sent_in_its_slot_and_not_offered_again() -> None:
    channel = Channel(task())
    only = channel.offer()
    channel.control.accept("no room")
    channel.offload.receive(NOW)
    assert due(channel.schedule, NOW) == [only], "the slot of the offer"
    assert not channel.offload.offer(only)
    channel.offload.change(only, NOW)
    assert channel.offload.offer(only), "a changed task may fit"


def test_a_channel_that_cannot_repeat_is_offered_nothing() -> None:
    channel = Channel()
    channel.offload.give_up(NOW)
    channel.come_up(NOW, supported=False)
    assert not channel.offload.offer(task())


@pytest.mark.parametrize("why", ["duration", "position", "counter"])
def test_tasks_that_a_driver_cannot_repeat_exactly_stay(why: str) -> None:
    only = task(frames=2)
    if why == "duration":
        only.end_ns = NOW + SECOND
    elif why == "position":
        only.next_frame()
    else:
        frame = Frame(0, 0x101, 0, bytes(8))
        checks = [protection(Counter(byte=0, bits=4), None, 8)]
        only = Task("alice", 1, "x", [frame], PERIOD_NS, checks)
    assert not Channel().offload.offer(only)


def test_offers_under_way_are_bounded() -> None:
    channel = Channel(*(task(number) for number in range(100)))
    offered = [channel.offload.offer(each) for each in due(channel.schedule, NOW)]
    assert offered == [True] * 64 + [False] * 36


def test_what_the_driver_has_not_sent_is_skipped() -> None:
    channel = Channel(task())
    only = channel.offer()
    channel.control.accept()
    later = NOW + 100 * PERIOD_NS
    channel.offload.receive(NOW)
    channel.count(later, RepeatCount(client_id="alice", task=1, sent=90))
    assert only.skipped == 9, "the frame that is due just now does not count"
    assert channel.control.calls == []
    channel.offload.step(later + ASK_NS - 1)
    assert channel.control.calls == []
    channel.offload.step(later + ASK_NS)
    assert [call.method for call in channel.control.calls] == ["repeat_counts"]


def test_a_task_that_ended_in_the_driver_comes_back() -> None:
    channel = Channel(task())
    only = channel.offer()
    channel.control.accept()
    channel.offload.receive(NOW)
    channel.count(NOW + SECOND, RepeatCount(client_id="alice", task=1, sent=100))
    channel.count(NOW + 2 * SECOND)
    assert not only.parked
    assert only.sent == 100
    assert due(channel.schedule, NOW + 2 * SECOND) == [only]


def test_a_channel_that_goes_down_gives_its_tasks_back() -> None:
    channel = Channel(task())
    only = channel.offer()
    channel.control.accept()
    channel.offload.receive(NOW)
    channel.offload.reclaim(NOW + SECOND)
    assert not only.parked
    assert not channel.offload.in_sync
    assert not channel.offload.offer(only), "before it is known what the channel repeats"
    channel.come_up(NOW + SECOND)
    assert due(channel.schedule, NOW + SECOND) == [only]
    assert channel.offload.offer(only)


def test_tasks_of_a_previous_scheduler_are_adopted_in_their_rhythm() -> None:
    only = task()
    known = RepeatCount(client_id="alice", task=1, sent=40)
    unknown = RepeatCount(client_id="carol", task=9, sent=1)
    channel = Channel(only, repeated=(known, unknown))
    assert only.parked
    stop, repeat = sorted(channel.control.calls, key=lambda call: call.method, reverse=True)
    assert (stop.method, stop.params.client_id, stop.params.task) == ("repeat_stop", "carol", 9)
    assert (repeat.method, repeat.params.due_ns) == ("repeat", only.anchor_ns)


def test_a_task_is_stopped_in_the_driver() -> None:
    channel = Channel(task())
    only = channel.offer()
    channel.control.accept()
    channel.offload.receive(NOW)
    channel.offload.stop(only)
    token = channel.offload.token
    assert channel.offload.answered == token - 1
    channel.control.answer("repeat_stop", Nothing())
    channel.offload.receive(NOW)
    assert channel.offload.answered == token


def test_a_changed_task_changes_in_the_driver() -> None:
    channel = Channel(task())
    only = channel.offer()
    channel.control.accept()
    channel.offload.receive(NOW)
    channel.schedule.change_period(only, 2 * PERIOD_NS, NOW + 1)
    channel.offload.change(only, NOW + 1)
    call = channel.control.accept()
    assert (call.params.period_ns, call.params.due_ns) == (2 * PERIOD_NS, NOW + PERIOD_NS)
    channel.offload.receive(NOW)
    later = NOW + 201 * PERIOD_NS  # 1 frame in the old period, 100 in the new one
    channel.count(later, RepeatCount(client_id="alice", task=1, sent=100))
    assert only.skipped == 0
    channel.count(later + ASK_NS, RepeatCount(client_id="alice", task=1, sent=100))
    assert only.skipped == ASK_NS // (2 * PERIOD_NS)


def test_an_error_is_a_refusal() -> None:
    channel = Channel(task())
    only = channel.offer()
    channel.control.answer("repeat", ErrorResult("failed", "nonsense"))
    channel.offload.receive(NOW)
    assert not only.parked
