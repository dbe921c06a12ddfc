"""Hands tasks down to a channel whose driver repeats frames by itself, and takes them back."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Final

from canbroker.actors.scheduler.schedule import Schedule, Task
from canbroker.backends import RepeatKey
from canbroker.system import clock
from canbroker.transport.address import Address
from canbroker.transport.calls import ControlError, ControlLink, result_of
from canbroker.transport.sockets import Context, Socket
from canbroker.wire import WireError, control
from canbroker.wire.tasks import SCHEDULER_ID, Repeat, RepeatCount, RepeatCounts, Repeating, TaskKey

#: Offers under way: the channel serves them between the frames of everybody.
_AT_ONCE: Final = 64

#: How often the channel is asked what it repeats. It ends everything when nobody asks.
_ASK_NS: Final = clock.SECOND

_logger = logging.getLogger(__name__)


class _Handed:
    """A task that the channel was asked to repeat."""

    def __init__(self, task: Task, slot_ns: int, sent: int = 0) -> None:
        self.request = 0  # the last one about it
        self.confirmed = False
        self.slot_ns = slot_ns  # its first frame there was due then
        self.sent = sent  # by the channel, as it last said
        self._task = task
        self._skipped = task.skipped
        self._period_ns = task.period_ns
        self._before = sent  # frames due before slot_ns

    def change(self) -> None:
        """The task has changed. With another period, its anchor is when that begins."""
        task = self._task
        if task.period_ns != self._period_ns:
            self._before += max(0, task.anchor_ns - self.slot_ns) // self._period_ns
            self.slot_ns, self._period_ns = task.anchor_ns, task.period_ns

    def account(self, sent: int, now_ns: int) -> None:
        """The channel has sent so many; what is missing, the driver had no room for."""
        self.sent = sent
        task = self._task
        due = self._before + max(0, now_ns - self.slot_ns) // self._period_ns
        # The one that is due just now does not count.
        task.skipped = self._skipped + max(0, due - 1 - sent)


class HandDown:
    """The tasks of one channel that its driver repeats. One thread; nothing here blocks.

    A task that is handed down is parked in the schedule. ``settled``: it is known what the
    channel repeats; before that a frame might be sent twice. ``supported``: it can.
    """

    def __init__(
        self, context: Context, endpoint: Address, schedule: Schedule, tasks: Collection[Task]
    ) -> None:
        """``tasks`` are those of the channel, whoever sends them.

        :raises CanInitializationError: no such address can be.
        """
        self.settled = False
        self.token = 0  # of the last request
        self._schedule = schedule
        self._tasks = tasks
        self.supported = False
        self._handed: dict[Task, _Handed] = {}
        self._refused: set[Task] = set()
        self._unanswered: dict[int, Callable[[control.Reply, int], None]] = {}
        self._counting = 0  # the request for counts whose answer is waited for
        self._count_at = 0
        self._offers = 0
        self._link = ControlLink(context, endpoint)

    def __repr__(self) -> str:
        return f"<HandDown tasks={len(self._handed)} unanswered={len(self._unanswered)}>"

    @property
    def socket(self) -> Socket:
        return self._link.socket

    @property
    def answered(self) -> int:
        """The channel has done what it was asked up to this token."""
        return next(iter(self._unanswered), self.token + 1) - 1

    def close(self) -> None:
        self._link.close()

    # ---------------------------------------------------------------------------------- tasks

    def offer(self, task: Task) -> bool:
        """Hands down a task that is due; ``False``: send its frame, as always."""
        if not self.supported or task.protections or task in self._refused:
            return False
        if task.end_ns is not None:
            return False  # a number of frames is exact only when they are counted as they are sent
        if task.position or self._offers >= _AT_ONCE:
            return False  # not in turn, or not now
        return self._hand_down(task, _Handed(task, task.due_ns - task.period_ns))

    def change(self, task: Task, now_ns: int) -> None:
        """A task has other messages, or another period."""
        self._refused.discard(task)
        handed = self._handed.get(task)
        if handed is not None:
            handed.change()
            if not self._repeat(task, handed):
                self._resume(task, now_ns)

    def stop(self, task: Task) -> None:
        """A task has ended. See :attr:`answered`."""
        self._refused.discard(task)
        if self._handed.pop(task, None) is not None:
            self._stop(task.origin, task.task)

    def take_back(self, now_ns: int) -> None:
        """The channel is down, or began anew: it repeats nothing any more."""
        for task in list(self._handed):
            self._resume(task, now_ns)
        self._refused.clear()
        self.settled = self.supported = False
        self._counting = self._count_at = 0

    def give_up(self, now_ns: int) -> None:
        """Nobody answers any more, either."""
        self.take_back(now_ns)
        self._unanswered.clear()
        self._offers = 0

    def step(self, now_ns: int) -> None:
        """Asks a channel that is up what it repeats, now and then.

        First it clears the channel of what a scheduler before us has sent there, or ourselves
        before it was down. We would not know when that is through, and might send it twice.
        """
        if now_ns < self._count_at or (self.settled and not self._handed):
            return
        self._count_at = now_ns + _ASK_NS
        if self.settled:
            self._count()
        else:
            discard = control.Discard(client_id=SCHEDULER_ID, token=0, through=True)
            self._ask("discard", discard, lambda *_: self._count())

    def _count(self) -> None:
        self._counting = self._ask("repeat_counts", control.Params(), self._counted)

    def receive(self, now_ns: int) -> None:
        """Takes the channel's answers."""
        while (reply := self._link.reply()) is not None:
            done = self._unanswered.pop(reply.id, None)
            if done is not None:
                done(reply, now_ns)

    # ------------------------------------------------------------------------------- requests

    def _ask(
        self, method: str, params: control.Params, done: Callable[[control.Reply, int], None]
    ) -> int:
        """The request's number; 0 if it cannot be sent now."""
        number = self._link.request(method, params)
        if number:
            self.token = number
            self._unanswered[number] = done
        return number

    def _hand_down(self, task: Task, handed: _Handed) -> bool:
        if not self._repeat(task, handed):
            return False
        self._handed[task] = handed
        self._schedule.park(task)
        return True

    def _repeat(self, task: Task, handed: _Handed) -> bool:
        params = Repeat(
            client_id=task.origin,
            task=task.task,
            messages=list(task.frames),
            period_ns=task.period_ns,
            due_ns=task.anchor_ns,
        )
        handed.request = self._ask("repeat", params, partial(self._repeated, task))
        self._offers += handed.request > 0
        return handed.request > 0

    def _stop(self, client_id: str, task: int) -> None:
        params = TaskKey(client_id=client_id, task=task)
        self._ask("repeat_stop", params, lambda *_: None)

    def _resume(self, task: Task, from_ns: int) -> None:
        task.sent += self._handed.pop(task).sent
        self._schedule.resume(task, from_ns)

    # -------------------------------------------------------------------------------- answers

    def _repeated(self, task: Task, reply: control.Reply, now_ns: int) -> None:
        self._offers -= 1
        handed = self._handed.get(task)
        if handed is None or handed.request != reply.id:
            return
        try:
            answer = result_of(reply, Repeating, "repeat")
        except (ControlError, WireError) as error:
            answer = Repeating(repeating=False, reason=str(error))
        if answer.repeating:
            handed.confirmed = True
            return
        reason = answer.reason
        _logger.debug("%r stays with the scheduler: %s", task, reason)
        self._refused.add(task)
        # The slot for which it was offered is still to be sent.
        self._resume(task, now_ns if handed.confirmed else handed.slot_ns)

    def _counted(self, reply: control.Reply, now_ns: int) -> None:
        if reply.id != self._counting:
            return
        counts: list[RepeatCount] = []
        try:
            counts = result_of(reply, RepeatCounts, "repeat_counts").tasks
            self.supported = True
        except (ControlError, WireError):
            self.supported = False
        self.settled = True
        found = {(count.client_id, count.task): count.sent for count in counts}
        for task, handed in list(self._handed.items()):
            sent = found.get((task.origin, task.task))
            if sent is not None:
                handed.account(sent, now_ns)
            elif handed.confirmed:  # it has ended there, whyever
                self._resume(task, now_ns)
        self._reconcile(found, now_ns)

    def _reconcile(self, found: Mapping[RepeatKey, int], now_ns: int) -> None:
        """Goes on with what a predecessor has handed down, and ends what it could not end."""
        known = {(task.origin, task.task): task for task in self._tasks if not task.ended}
        for key, sent in found.items():
            task = known.get(key)
            if task is None:
                self._stop(*key)
            elif task not in self._handed:
                self._hand_down(task, _Handed(task, self._schedule.next_ns(task, now_ns), sent))
