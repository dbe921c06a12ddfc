"""The scheduler actor: one process, one thread, one timer loop for all periodic tasks."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

import msgspec

from canbroker.actors.lifelines import Lifelines
from canbroker.actors.scheduler.held import HeldRequests
from canbroker.actors.scheduler.journal import Journal
from canbroker.actors.scheduler.outlet import DESCRIPTORS, Mark, Outlet, later
from canbroker.actors.scheduler.owners import Owner, Owners
from canbroker.actors.scheduler.schedule import Task
from canbroker.actors.scheduler.task_book import TaskBook, has_room
from canbroker.actors.specs import SchedulerSpec
from canbroker.errors import CanError, CanInitializationError
from canbroker.system import clock
from canbroker.system.descriptors import share
from canbroker.system.throttle import Throttle
from canbroker.transport.replier import Caller, Replier
from canbroker.transport.runtime import Runtime
from canbroker.transport.sockets import Context
from canbroker.transport.waiter import Waiter
from canbroker.wire import control
from canbroker.wire.tasks import (
    LISTED,
    MAX_TASKS,
    SCHEDULER_METHODS,
    AddTask,
    ListTasks,
    ModifyTask,
    StopTasks,
    TaskAdded,
    TaskList,
    TaskTrouble,
)

#: Frames are sent to their channels this long before they are due, or twice as long: there they
#: are kept until then. A scheduler that is late by less is not late, and need not wake up for
#: every due time. What was sent cannot be taken back: stopping and changing a task waits for it.
_LEAD_NS: Final = 4 * clock.MILLISECOND

#: While somebody waits for a channel's answers they are looked for this often.
_ANSWERS_NS: Final = clock.MILLISECOND

#: Requests served before the tasks get their turn again.
_SERVE: Final = 16

#: How often it is looked whether a channel answers that a request waits for.
_LOOK_NS: Final = 50 * clock.MILLISECOND

#: The owner of a task in trouble is told this often.
_TELL_NS: Final = clock.SECOND

#: A connection to a channel without tasks is kept this long.
_KEEP_NS: Final = 5 * clock.SECOND

_logger = logging.getLogger(__name__)


class _Settling(NamedTuple):
    """An answer for when nothing of the tasks as they were is on its way any more."""

    caller: Caller
    marks: dict[Outlet, Mark]
    result: msgspec.Struct


class SchedulerActor:
    """Made: the socket listens, and the tasks of a predecessor run. :meth:`run` serves.

    :raises CanInitializationError: the socket cannot be bound, or the journal not be opened.
    """

    def __init__(self, spec: SchedulerSpec) -> None:
        self._runtime = Runtime.at(spec.address)
        self._outlets: dict[str, Outlet] = {}
        self._held = HeldRequests()
        self._settling: list[_Settling] = []
        self._look_at = 0
        self._beat_at = 0
        self._refused = Throttle(_logger)
        self._waiter = Waiter()
        try:
            self._journal = Journal(self._runtime.journal_path)
        except sqlite3.Error as error:
            path = self._runtime.journal_path
            raise CanInitializationError(f"cannot keep tasks in {path}: {error}") from error
        self._context = Context()
        try:
            self._control = Replier(
                self._context,
                self._runtime.place.scheduler,
                SCHEDULER_METHODS,
                {
                    "task_add": self._add,
                    "task_modify": self._modify,
                    "task_stop": self._stop,
                    "task_list": self._list,
                },
                self._refused,
            )
        except BaseException:
            self._context.close()
            self._journal.close()
            raise
        self._waiter.add(self._control.socket)
        self._waiter.add(self._control.listening.monitor)
        self._owners = Owners(self._waiter, self._journal, self._control.is_connected)
        self._book = TaskBook(self._journal, self._owners)
        self._restore()

    def __repr__(self) -> str:
        return f"<SchedulerActor tasks={len(self._book)} channels={len(self._outlets)}>"

    def run(self, lifelines: Lifelines, beat: Callable[[], None]) -> None:
        """Serves until one of ``lifelines`` becomes readable; calls ``beat`` every second."""
        for lifeline in lifelines.descriptors:
            self._waiter.add(lifeline)
        try:
            while True:
                now = clock.monotonic_ns()
                if now >= self._beat_at:
                    beat()
                    self._beat_at = now + clock.SECOND
                ready = self._waiter.wait(max(0, self._step() - clock.monotonic_ns()))
                if not ready.isdisjoint(lifelines.descriptors):
                    return
                self._serve(ready)
        finally:
            self._end()

    # ------------------------------------------------------------------------------- the loop

    def _step(self) -> int:
        """Does what is due; returns the monotonic time of what is due next."""
        now = clock.monotonic_ns()
        schedule = self._book.schedule
        if schedule.due_ns is not None and schedule.due_ns <= now + _LEAD_NS:
            for due_ns, tasks in schedule.step(now, 2 * _LEAD_NS):
                self._send(due_ns, tasks, now)
        at = min(self._look_at, self._beat_at)
        for outlet in self._outlets.values():
            outlet.send_early(now)
            if outlet.early_ns is not None:
                at = min(at, outlet.early_ns)
            if outlet.is_short:
                at = min(at, now + _ANSWERS_NS)
        if now >= self._look_at:
            self._look_around(now)
            at = min(at, self._look_at)
        if self._settling:
            at = min(at, now + _ANSWERS_NS)
        return at if schedule.due_ns is None else min(at, schedule.due_ns - _LEAD_NS)

    def _send(self, due_ns: int, due: list[Task], now: int) -> None:
        by_channel: dict[str, list[Task]] = {}
        for task in due:
            tasks = by_channel.get(task.channel)
            if tasks is None:
                by_channel[task.channel] = [task]
            else:
                tasks.append(task)
        for channel, tasks in by_channel.items():
            self._outlets[channel].send(due_ns, tasks, now)

    def _serve(self, ready: set[object]) -> None:
        now = clock.monotonic_ns()
        for outlet in self._outlets.values():
            for client_id in outlet.receive(now):
                self._gone(client_id, outlet)
            self._owners.see(outlet.channel, outlet.epoch, outlet.newcomers())
        for owner in self._owners.ended(ready):
            self._forget_all(list(owner.tasks.values()))
        if self._held:
            self._serve_held(now)
        if self._settling:
            self._serve_settling()
        if self._control.socket in ready:
            self._control.serve(self._waiter, _SERVE)
        self._control.listening.attend(ready)

    def _look_around(self, now: int) -> None:
        """Finds what nobody tells of: owners that are gone, channels that fell silent, tasks
        that have sent their last frame."""
        self._look_at = now + clock.SECOND
        if not self._journal.is_in_place():
            self._renew_journal()
        for task in self._book.tasks():
            if task.ended:
                self._forget(task)
        for channel, outlet in list(self._outlets.items()):
            outlet.check(now)
            if outlet.tasks:
                outlet.idle_ns = now
            elif now - outlet.idle_ns > _KEEP_NS and channel not in self._held.channels():
                outlet.close(self._waiter)
                del self._outlets[channel]
        for owner in self._owners:
            self._look_for(owner, now)
        if self._held:
            self._look_at = now + _LOOK_NS
            self._serve_held(now)

    def _renew_journal(self) -> None:
        try:
            fresh = Journal(self._runtime.journal_path)
        except sqlite3.Error as error:  # the directory is gone, and may be back the next time
            self._refused.note("the journal of tasks was removed", str(error))
            return
        self._journal.close()
        self._journal = fresh
        self._book.use(fresh)
        self._owners.use(fresh)

    def _look_for(self, owner: Owner, now: int) -> None:
        for channel in {task.channel for task in owner.tasks.values()}:
            outlet = self._outlets[channel]
            if outlet.state is None or owner.client_id in outlet.present:
                continue
            if self._owners.is_gone(owner, now):
                self._gone(owner.client_id, outlet)
        if not owner.tasks and owner.client_id not in self._held.clients():
            self._owners.remove(owner)

    def _end(self) -> None:
        for outlet in self._outlets.values():
            outlet.close(self._waiter)
        self._owners.close()
        self._control.close()
        self._context.close()
        self._journal.close()

    # -------------------------------------------------------------------------------- methods

    def _add(self, caller: Caller, request: AddTask) -> msgspec.Struct | None:
        refused = self._no_room(request)
        if refused:
            self._refused.note("task refused", refused)
            return control.ErrorResult("limit", refused)
        owner = self._owners.of(request.client_id, request.pid)
        owner.identity = caller.identity
        if self._runs(request):
            return TaskAdded()
        try:
            outlet = self._outlet_of(request.channel)
        except CanError as error:
            return control.ErrorResult("invalid", str(error))
        if outlet is None or outlet.state is None:
            self._held.add(caller, request)
            return None
        return self._start(outlet, request)

    def _no_room(self, request: AddTask) -> str:
        """Why there is no room for a task; empty if there is."""
        owner = self._owners.find(request.client_id)
        if owner is None and len(self._owners) >= share():
            return f"{len(self._owners)} clients have tasks, which is the most"
        if owner is not None and request.task not in owner.tasks and not has_room(owner):
            return f"a client may have {MAX_TASKS:,} tasks"
        if self._held.full:
            return f"{len(self._held)} requests wait for channels already"
        if len(self._outlets) * DESCRIPTORS >= share() and request.channel not in self._outlets:
            return f"there are tasks on {len(self._outlets)} channels, which is the most"
        return ""

    def _serve_held(self, now: int) -> None:
        for entry in self._held:
            request = entry.request
            try:
                outlet = self._outlet_of(request.channel)
            except CanError as error:  # no descriptors are left
                result: msgspec.Struct = control.ErrorResult("down", str(error))
            else:
                if outlet is not None and outlet.state is not None:
                    result = TaskAdded() if self._runs(request) else self._start(outlet, request)
                elif now < entry.until_ns:
                    continue
                else:
                    reason = f"channel {request.channel!r} does not answer"
                    result = control.ErrorResult("down", reason)
            self._held.remove(entry)
            self._control.reply(entry.caller, result)

    def _runs(self, request: AddTask) -> bool:
        task = self._book.find(request.client_id, request.task)
        if task is not None and task.ended:
            self._forget(task)
            return False
        return task is not None

    def _start(self, outlet: Outlet, request: AddTask) -> msgspec.Struct:
        if 0 < request.expires_ns < clock.monotonic_ns():
            return control.ErrorResult("expired", "who asked for the task waits no longer")
        try:
            task = self._book.add(request, clock.monotonic_ns(), fd=outlet.fd)
        except ValueError as error:
            return control.ErrorResult("invalid", str(error))
        outlet.enroll(task)
        if request.client_id in outlet.present:
            self._owners.see(outlet.channel, outlet.epoch, [request.client_id])
        return TaskAdded(warning=outlet.overload())

    def _modify(self, caller: Caller, request: ModifyTask) -> msgspec.Struct | None:
        owner = self._owners.find(request.client_id)
        task = None if owner is None else owner.tasks.get(request.task)
        if owner is None or task is None or task.ended:
            return control.ErrorResult("unknown", f"no task {request.task} runs")
        owner.identity = caller.identity
        outlet = self._outlets[task.channel]
        now = clock.monotonic_ns()
        outlet.dismiss(task)
        try:
            self._book.modify(task, request, now, fd=outlet.fd)
        except ValueError as error:
            outlet.enroll(task)
            return control.ErrorResult("invalid", str(error))
        outlet.change(task, now)
        result = TaskAdded(warning=outlet.overload() if request.period_ns else "")
        mark = outlet.mark([task])
        if outlet.is_past(mark):
            return result
        self._settling.append(_Settling(caller, {outlet: mark}, result))
        return None

    def _stop(self, caller: Caller, request: StopTasks) -> msgspec.Struct | None:
        for held in self._held.give_up(request):
            error = control.ErrorResult("unknown", "the task was stopped before it began")
            self._control.reply(held.caller, error)
        owner = self._owners.find(request.client_id)
        tasks = [] if owner is None else list(owner.tasks.values())
        if request.task is not None:
            tasks = [task for task in tasks if task.task == request.task]
        outlets = {self._outlets[task.channel] for task in tasks}
        self._forget_all(tasks)
        marks = {
            outlet: outlet.mark(task for task in tasks if task.channel == outlet.channel)
            for outlet in outlets
        }
        for entry in self._settling:  # a stop that is repeated is done no sooner
            if entry.caller.identity == caller.identity:
                for outlet, mark in entry.marks.items():
                    marks[outlet] = later(mark, marks.get(outlet, mark))
        if all(outlet.is_past(mark) for outlet, mark in marks.items()):
            return control.Nothing()
        self._settling.append(_Settling(caller, marks, control.Nothing()))
        return None

    def _serve_settling(self) -> None:
        settling, self._settling = self._settling, []
        for entry in settling:
            if all(outlet.is_past(mark) for outlet, mark in entry.marks.items()):
                self._control.reply(entry.caller, entry.result)
            else:
                self._settling.append(entry)

    def _list(self, _: Caller, request: ListTasks) -> TaskList:
        now = clock.monotonic_ns()
        tasks = [task for task in self._book.tasks() if not task.ended]
        listed = tasks[request.start : request.start + LISTED]
        return TaskList(
            total=len(tasks), tasks=[self._outlets[t.channel].status(t, now) for t in listed]
        )

    # ---------------------------------------------------------------------------------- tasks

    def _outlet_of(self, channel: str) -> Outlet | None:
        """The outlet to a channel, ``None`` while that has no socket: there may be none, and
        an outlet costs descriptors.

        :raises CanInitializationError: no such address can be.
        """
        known = channel in self._outlets or self._runtime.place.has_channel(channel)
        return self._outlet(channel) if known else None

    def _outlet(self, channel: str) -> Outlet:
        """:raises CanInitializationError: no such address can be."""
        outlet = self._outlets.get(channel)
        if outlet is None:
            addresses = self._runtime.place.channel(channel)
            outlet = Outlet(self._context, channel, addresses, self._book.schedule, self._trouble)
            self._outlets[channel] = outlet
            outlet.watch(self._waiter)
        return outlet

    def _forget(self, task: Task) -> None:
        self._outlets[task.channel].stop(task)
        self._book.forget(task)

    def _forget_all(self, tasks: Iterable[Task]) -> None:
        for task in tasks:
            self._forget(task)

    def _gone(self, client_id: str, outlet: Outlet) -> None:
        """A client has left a channel: its tasks there end."""
        owner = self._owners.find(client_id)
        tasks = [] if owner is None else list(owner.tasks.values())
        self._forget_all(task for task in tasks if task.channel == outlet.channel)

    def _restore(self) -> None:
        """Goes on with the tasks of a scheduler that was killed."""
        tasks = self._book.restore(clock.monotonic_ns())
        for task in tasks:
            self._outlet(task.channel).enroll(task)
        for channel, outlet in self._outlets.items():
            outlet.resume(*self._owners.last_seen(channel))
        if tasks:
            _logger.warning("goes on with %d tasks of its predecessor", len(tasks))

    def _trouble(self, task: Task, reason: str) -> None:
        """Tells the owner of a task that a frame was refused."""
        now = clock.monotonic_ns()
        is_new = reason != task.reason
        task.reason = reason
        owner = self._owners.find(task.origin)
        if owner is None:
            return
        if is_new or now - task.told_ns > _TELL_NS:
            task.told_ns = now
            trouble = TaskTrouble(task=task.task, failed=task.failed, reason=reason)
            self._control.reply(Caller(owner.identity, 0), trouble)
