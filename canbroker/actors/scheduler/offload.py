"""Offloads tasks to a channel whose driver can repeat frames by itself, and reclaims them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Final, Protocol

from canbroker.actors.scheduler.schedule import Schedule, Task
from canbroker.backends import RepeatKey
from canbroker.system import clock
from canbroker.transport.calls import ControlError, result_of
from canbroker.wire import WireError, control
from canbroker.wire.tasks import SCHEDULER_ID, Repeat, RepeatCount, RepeatCounts, Repeating, TaskKey

#: Offers under way at a time: the channel handles them between the frames of all clients.
_AT_ONCE: Final = 64

#: How often the channel is asked what it repeats. It stops repeating if it is not asked.
ASK_NS: Final = clock.SECOND

_logger = logging.getLogger(__name__)


class ControlRequests(Protocol):
    """The channel's control socket. Nothing here blocks."""

    def request(self, method: str, params: control.Params) -> int:
        """Sends a request; returns its number, from 1 on, or 0 if it cannot be sent now."""

    def reply(self) -> control.Reply | None:
        """The next reply, if one has arrived."""


class _OffloadedTask:
    """A task that the channel was asked to repeat."""

    def __init__(self, task: Task, slot_ns: int, sent: int = 0) -> None:
        """
        :param slot_ns: when its first frame from the channel is due.
        :param sent: frames that the channel has sent already.
        """
        self.request = 0  # number of the last request about it
        self.confirmed = False
        self.slot_ns = slot_ns
        self.sent = sent  # frames, as the channel last said
        self._task = task
        self._skipped = task.skipped
        self._period_ns = task.period_ns
        self._before = sent  # frames due before slot_ns

    def change(self) -> None:
        """The task has changed. A new period begins at the task's anchor."""
        task = self._task
        if task.period_ns != self._period_ns:
            self._before += max(0, task.anchor_ns - self.slot_ns) // self._period_ns
            self.slot_ns, self._period_ns = task.anchor_ns, task.period_ns

    def account(self, sent: int, now_ns: int) -> None:
        """The channel has sent this many frames; the driver had no room for the missing ones."""
        self.sent = sent
        task = self._task
        due = self._before + max(0, now_ns - self.slot_ns) // self._period_ns
        # The frame that is due just now does not count.
        task.skipped = self._skipped + max(0, due - 1 - sent)


class Offload:
    """The tasks of one channel that its driver repeats. One thread; nothing here blocks.

    An offloaded task is parked in the schedule. ``in_sync``: it is known what the channel repeats;
    before that, a frame might be sent twice. ``supported``: the channel can repeat frames.
    """

    def __init__(
        self, requests: ControlRequests, schedule: Schedule, tasks: Collection[Task]
    ) -> None:
        """``tasks`` are all tasks of the channel, offloaded or not."""
        self.in_sync = False
        self.supported = False
        self.token = 0  # of the last request
        self._requests = requests
        self._schedule = schedule
        self._tasks = tasks
        self._offloaded: dict[Task, _OffloadedTask] = {}
        self._refused: set[Task] = set()
        self._unanswered: dict[int, Callable[[control.Reply, int], None]] = {}
        self._counting = 0  # the request for counts that has not been answered
        self._count_at = 0
        self._offers = 0

    def __repr__(self) -> str:
        return f"<Offload tasks={len(self._offloaded)} unanswered={len(self._unanswered)}>"

    @property
    def answered(self) -> int:
        """The channel has handled all requests up to this token."""
        return next(iter(self._unanswered), self.token + 1) - 1

    # ---------------------------------------------------------------------------------- tasks

    def offer(self, task: Task) -> bool:
        """Offloads a task that is due; ``False``: its frame is to be sent as usual."""
        if not self.supported or task.protections or task in self._refused:
            return False
        if task.end_ns is not None:
            return False  # the number of frames is exact only if each one is counted when sent
        if task.position or self._offers >= _AT_ONCE:
            return False  # its first message is not next, or there are enough offers
        return self._offload(task, _OffloadedTask(task, task.due_ns - task.period_ns))

    def change(self, task: Task, now_ns: int) -> None:
        """A task has other messages or another period."""
        self._refused.discard(task)
        offloaded = self._offloaded.get(task)
        if offloaded is not None:
            offloaded.change()
            if not self._repeat(task, offloaded):
                self._resume(task, now_ns)

    def stop(self, task: Task) -> None:
        """A task has ended. See :attr:`answered`."""
        self._refused.discard(task)
        if self._offloaded.pop(task, None) is not None:
            self._stop(task.origin, task.task)

    def reclaim(self, now_ns: int) -> None:
        """The channel is down or has restarted: it repeats nothing any more."""
        for task in list(self._offloaded):
            self._resume(task, now_ns)
        self._refused.clear()
        self.in_sync = self.supported = False
        self._counting = self._count_at = 0

    def give_up(self, now_ns: int) -> None:
        """As :meth:`reclaim`; and no request will be answered any more."""
        self.reclaim(now_ns)
        self._unanswered.clear()
        self._offers = 0

    def step(self, now_ns: int) -> None:
        """Asks a channel that is up what it repeats, when that is due.

        The first time, it has the channel discard frames that were sent before: by a previous
        scheduler, or by this one before the channel was down. Otherwise it would not know when
        these are through, and might send them twice.
        """
        if now_ns < self._count_at or (self.in_sync and not self._offloaded):
            return
        self._count_at = now_ns + ASK_NS
        if self.in_sync:
            self._count()
        else:
            discard = control.Discard(client_id=SCHEDULER_ID, token=0, through=True)
            self._ask("discard", discard, lambda *_: self._count())

    def _count(self) -> None:
        self._counting = self._ask("repeat_counts", control.Params(), self._counted)

    def receive(self, now_ns: int) -> None:
        """Handles the channel's answers."""
        while (reply := self._requests.reply()) is not None:
            done = self._unanswered.pop(reply.id, None)
            if done is not None:
                done(reply, now_ns)

    # ------------------------------------------------------------------------------- requests

    def _ask(
        self, method: str, params: control.Params, done: Callable[[control.Reply, int], None]
    ) -> int:
        """The request's number; 0 if it cannot be sent now."""
        number = self._requests.request(method, params)
        if number:
            self.token = number
            self._unanswered[number] = done
        return number

    def _offload(self, task: Task, offloaded: _OffloadedTask) -> bool:
        if not self._repeat(task, offloaded):
            return False
        self._offloaded[task] = offloaded
        self._schedule.park(task)
        return True

    def _repeat(self, task: Task, offloaded: _OffloadedTask) -> bool:
        params = Repeat(
            client_id=task.origin,
            task=task.task,
            messages=list(task.frames),
            period_ns=task.period_ns,
            due_ns=task.anchor_ns,
        )
        offloaded.request = self._ask("repeat", params, partial(self._repeated, task))
        self._offers += offloaded.request > 0
        return offloaded.request > 0

    def _stop(self, client_id: str, task: int) -> None:
        params = TaskKey(client_id=client_id, task=task)
        self._ask("repeat_stop", params, lambda *_: None)

    def _resume(self, task: Task, from_ns: int) -> None:
        task.sent += self._offloaded.pop(task).sent
        self._schedule.resume(task, from_ns)

    # -------------------------------------------------------------------------------- answers

    def _repeated(self, task: Task, reply: control.Reply, now_ns: int) -> None:
        self._offers -= 1
        offloaded = self._offloaded.get(task)
        if offloaded is None or offloaded.request != reply.id:
            return
        try:
            answer = result_of(reply, Repeating, "repeat")
        except (ControlError, WireError) as error:
            answer = Repeating(repeating=False, reason=str(error))
        if answer.repeating:
            offloaded.confirmed = True
            return
        reason = answer.reason
        _logger.debug("%r stays with the scheduler: %s", task, reason)
        self._refused.add(task)
        # The frame of the slot for which it was offered has not been sent yet.
        self._resume(task, now_ns if offloaded.confirmed else offloaded.slot_ns)

    def _counted(self, reply: control.Reply, now_ns: int) -> None:
        if reply.id != self._counting:
            return
        counts: list[RepeatCount] = []
        try:
            counts = result_of(reply, RepeatCounts, "repeat_counts").tasks
            self.supported = True
        except (ControlError, WireError):
            self.supported = False
        self.in_sync = True
        found = {(count.client_id, count.task): count.sent for count in counts}
        for task, offloaded in list(self._offloaded.items()):
            sent = found.get((task.origin, task.task))
            if sent is not None:
                offloaded.account(sent, now_ns)
            elif offloaded.confirmed:  # it has ended there, for whatever reason
                self._resume(task, now_ns)
        self._reconcile(found, now_ns)

    def _reconcile(self, found: Mapping[RepeatKey, int], now_ns: int) -> None:
        """Adopts tasks that a previous scheduler offloaded; stops those that no longer exist."""
        known = {(task.origin, task.task): task for task in self._tasks if not task.ended}
        for key, sent in found.items():
            task = known.get(key)
            if task is None:
                self._stop(*key)
            elif task not in self._offloaded:
                self._offload(
                    task, _OffloadedTask(task, self._schedule.next_ns(task, now_ns), sent)
                )
