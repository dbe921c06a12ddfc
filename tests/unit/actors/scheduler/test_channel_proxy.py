"""A channel as the scheduler sees it, by scripts and with the time passed in."""

from __future__ import annotations

from typing import Final

from canbroker.actors.scheduler.channel_proxy import POLL_NS, SILENCE_NS, ChannelProxy
from canbroker.actors.scheduler.schedule import Schedule, Task
from canbroker.system.clock import MILLISECOND, SECOND
from canbroker.wire.control import Nothing
from canbroker.wire.tasks import SCHEDULER_ID
from canbroker.wire.transmit import CREDIT, Status
from tests.support.channel_scripts import PERIOD_NS, Connections, due, task

NOW: Final = 1_000 * SECOND


class Channel:
    """A proxy, and both ends of its connections."""

    def __init__(self, *tasks: Task, up: bool = True) -> None:
        self.ends = Connections()
        self.refused: list[tuple[int, str]] = []
        self.schedule = Schedule()
        self.proxy = ChannelProxy("x", self.ends, self.schedule, self._refuse, NOW)
        for each in tasks:
            self.schedule.add(each, NOW, None, None)
            self.proxy.enroll(each)
        if up:
            self.come_up(NOW)

    def _refuse(self, task: Task, reason: str) -> None:
        self.refused.append((task.task, reason))

    def come_up(self, now_ns: int, *clients: str, supported: bool = False) -> None:
        """Publishes a state, and answers what the scheduler asks then."""
        self.ends.states.publish("alice", *clients)
        self.proxy.receive(now_ns)
        self.ends.control.answer("discard", Nothing())
        self.proxy.receive(now_ns)
        self.ends.control.in_sync(supported=supported)
        self.proxy.receive(now_ns)

    def send_due(self, now_ns: int) -> None:
        for due_ns, tasks in self.schedule.step(now_ns):
            self.proxy.send(due_ns, tasks, now_ns)

    def sent(self) -> list[list[int]]:
        """The identifiers of each request."""
        return [
            [frame.arbitration_id - 0x100 for frame in request.frames]
            for request in self.ends.transmit.requests
        ]


def counts(each: Task) -> tuple[int, int, int]:
    return each.sent, each.skipped, each.failed


def test_what_is_due_together_is_one_request() -> None:
    tasks = [task(1), task(2, origin="bob")]
    channel = Channel(*tasks)
    channel.send_due(NOW)
    [request] = channel.ends.transmit.requests
    assert channel.sent() == [[1, 2]]
    assert (request.client_id, request.origins) == (SCHEDULER_ID, ["alice", "bob"])
    assert (request.epoch, request.due_ns) == (1, NOW)
    assert request.expires_ns == NOW + 100 * MILLISECOND
    assert [counts(each) for each in tasks] == [(1, 0, 0), (1, 0, 0)]


def test_nothing_is_sent_before_it_is_known_what_the_channel_repeats() -> None:
    """A previous scheduler may have sent or offloaded the same frame."""
    only = task()
    channel = Channel(only, up=False)
    channel.ends.states.publish("alice")
    channel.proxy.receive(NOW)
    channel.send_due(NOW)
    assert channel.sent() == []
    assert channel.proxy.step(NOW) == NOW + POLL_NS
    channel.ends.control.answer("discard", Nothing())
    channel.proxy.receive(NOW)
    channel.ends.control.in_sync()
    channel.proxy.receive(NOW)
    assert channel.sent() == [[1]]
    assert channel.proxy.step(NOW) is None


def test_a_channel_that_is_down_skips_slots() -> None:
    only = task()
    channel = Channel(only)
    channel.ends.states.publish("alice", state="error")
    channel.proxy.receive(NOW)
    channel.send_due(NOW)
    assert channel.sent() == []
    assert counts(only) == (0, 1, 0)
    assert channel.proxy.status(only, NOW).mode == "paused"


def test_a_channel_that_is_silent_is_down() -> None:
    channel = Channel(task())
    assert channel.proxy.is_up(NOW + SILENCE_NS - 1)
    assert not channel.proxy.is_up(NOW + SILENCE_NS)


def test_frames_without_credit_wait_and_skip_their_next_slot() -> None:
    tasks = [task(number) for number in range(1, CREDIT + 2)]
    channel = Channel(*tasks)
    last = tasks[-1]
    channel.send_due(NOW)
    assert sum(map(len, channel.sent())) == CREDIT
    assert counts(last) == (0, 0, 0)
    assert channel.proxy.step(NOW) == NOW + POLL_NS, "answers do not wake the scheduler"
    channel.send_due(NOW + PERIOD_NS)
    assert counts(last) == (0, 1, 0)
    channel.ends.transmit.reply(channel.ends.transmit.requests[0].token)
    channel.proxy.receive(NOW + PERIOD_NS)
    assert last.sent == 1


def test_a_full_queue_skips_slots() -> None:
    only = task()
    channel = Channel(only)
    channel.ends.transmit.full = True
    channel.send_due(NOW)
    assert counts(only) == (0, 1, 0)


def test_refused_frames_are_told_and_paused_ones_are_skipped() -> None:
    tasks = [task(1), task(2)]
    channel = Channel(*tasks)
    channel.send_due(NOW)
    channel.ends.transmit.reply(1, Status.NOT_PERMITTED, failed=(1, 7))
    channel.proxy.receive(NOW)
    assert channel.refused == [(2, "NOT_PERMITTED")]
    channel.send_due(NOW + PERIOD_NS)
    channel.ends.transmit.reply(2, Status.EXPIRED, failed=(0,))
    channel.proxy.receive(NOW + PERIOD_NS)
    assert channel.refused == [(2, "NOT_PERMITTED")]
    assert [counts(each) for each in tasks] == [(1, 1, 0), (1, 0, 1)]


def test_an_answer_confirms_all_requests_before_it() -> None:
    only = task()
    channel = Channel(only)
    for slot in range(3):
        channel.send_due(NOW + slot * PERIOD_NS)
    watermark = channel.proxy.watermark([only])
    assert watermark.frames == 3
    channel.ends.transmit.reply(2)
    channel.proxy.receive(NOW)
    assert not channel.proxy.is_past(watermark)
    channel.ends.transmit.reply(3)
    channel.proxy.receive(NOW)
    assert channel.proxy.is_past(watermark)
    assert counts(only) == (3, 0, 0)


def test_a_new_actor_has_none_of_the_requests() -> None:
    only = task()
    channel = Channel(only)
    channel.send_due(NOW)
    watermark = channel.proxy.watermark([only])
    channel.ends.states.publish("alice", epoch=2)
    channel.proxy.receive(NOW)
    assert channel.proxy.is_past(watermark)
    assert counts(only) == (0, 1, 0), "whether it was sent is unknown"


def test_a_channel_that_is_silent_has_none_of_the_requests() -> None:
    only = task()
    channel = Channel(only)
    channel.send_due(NOW)
    later = NOW + SILENCE_NS
    channel.proxy.check(later - 1)
    assert not channel.proxy.is_past(channel.proxy.watermark([only]))
    channel.proxy.check(later)
    assert channel.proxy.is_past(channel.proxy.watermark([only]))


def test_frames_of_a_previous_scheduler_may_be_under_way_until_the_channel_answers() -> None:
    channel = Channel(task(), up=False)
    nothing = channel.proxy.watermark([])
    assert not channel.proxy.is_past(nothing)
    channel.proxy.check(NOW + SILENCE_NS)
    assert not channel.proxy.is_past(nothing)
    channel.proxy.check(NOW + SILENCE_NS + 1)
    assert channel.proxy.is_past(nothing), "it has never said anything"


def test_clients_come_and_go() -> None:
    channel = Channel()
    assert channel.proxy.newcomers() == {"alice"}
    assert channel.proxy.newcomers() == set()
    channel.ends.states.publish("alice", "bob")
    channel.ends.states.publish("bob")
    assert channel.proxy.receive(NOW) == {"alice"}
    assert channel.proxy.newcomers() == {"bob"}


def test_a_client_that_is_not_back_in_a_new_epoch_has_not_left() -> None:
    channel = Channel()
    channel.ends.states.publish(epoch=2)
    assert channel.proxy.receive(NOW) == set()
    channel.ends.states.publish("alice", epoch=2)
    channel.proxy.receive(NOW)
    channel.ends.states.publish(epoch=2)
    assert channel.proxy.receive(NOW) == {"alice"}


def test_a_client_that_left_while_no_scheduler_ran_is_gone() -> None:
    channel = Channel(up=False)
    channel.proxy.resume(1, {"alice", "bob"})
    channel.ends.states.publish("bob")
    assert channel.proxy.receive(NOW) == {"alice"}


def test_frames_are_sent_ahead_but_tasks_are_not_offloaded_ahead() -> None:
    """A channel that repeats a task begins at once."""
    ahead = Channel(task())
    ahead.proxy.send(NOW + 5, [task()], NOW)
    assert len(ahead.sent()) == 1
    only = task()
    channel = Channel(only, up=False)
    channel.come_up(NOW, supported=True)
    [only] = due(channel.schedule, NOW)
    channel.proxy.send(NOW + 5, [only], NOW)
    assert channel.proxy.step(NOW) == NOW + 5
    assert channel.ends.control.calls == []
    assert channel.proxy.step(NOW + 5) is None
    assert [call.method for call in channel.ends.control.calls] == ["repeat"]
    assert only.parked
    assert channel.proxy.status(only, NOW).mode == "kernel"
    assert channel.sent() == []
