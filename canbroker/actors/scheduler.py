"""The scheduler actor: one process, one thread, one timer loop for all periodic tasks."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final, NamedTuple

import msgspec

from canbroker import clock
from canbroker.actors.journal import Entry, Journal
from canbroker.actors.outlet import Outlet
from canbroker.actors.schedule import Schedule, Task
from canbroker.actors.specs import SchedulerSpec
from canbroker.alive import is_alive
from canbroker.errors import CanInitializationError
from canbroker.fabric.requests import Caller, Replier
from canbroker.fabric.sockets import Context, Descriptor, Waiter
from canbroker.frame import FD, describe, frame_fault
from canbroker.protection import Protection, protection
from canbroker.runtime import Runtime
from canbroker.throttle import Throttle
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
    TaskStatus,
    TaskTrouble,
)

#: Requests served before the tasks get their turn again.
_SERVE: Final = 16

#: How often a client is looked for that was not seen on its channel.
_LOOK_NS: Final = 50 * clock.MILLISECOND

#: A channel has this long to say how it is before a task there is refused.
_ANSWER_NS: Final = 2 * clock.SECOND

#: The owner of a task in trouble is told this often.
_TELL_NS: Final = clock.SECOND

#: A connection to a channel without tasks is kept this long.
_KEEP_NS: Final = 5 * clock.SECOND

_logger = logging.getLogger(__name__)


class _Owner:
    """A client that has tasks."""

    __slots__ = ("identity", "pid", "tasks")

    def __init__(self, identity: bytes | None, pid: int) -> None:
        self.identity = identity  # of its connection, when it has one to us
        self.pid = pid
        self.tasks: dict[int, Task] = {}


class _Held(NamedTuple):
    """A request that waits for what a channel has to say."""

    caller: Caller
    request: AddTask
    until_ns: int


class _Stopping(NamedTuple):
    """A stop that is answered when nothing of the task can leave any more."""

    caller: Caller
    tokens: dict[Outlet, int]


class SchedulerActor:
    """Made: the socket listens, and the tasks of a predecessor run. :meth:`run` serves.

    :raises CanInitializationError: the socket cannot be bound, or the journal not be opened.
    """

    def __init__(self, spec: SchedulerSpec) -> None:
        self._runtime = Runtime.at(spec.address)
        self._schedule = Schedule()
        self._outlets: dict[str, Outlet] = {}
        self._owners: dict[str, _Owner] = {}
        self._requests: dict[Task, AddTask] = {}
        self._held: list[_Held] = []
        self._stopping: list[_Stopping] = []
        self._look_at = 0
        self._beat_at = 0
        self._refused = Throttle(_logger)
        self._waiter = Waiter()
        self._journal = Journal(self._runtime.journal_path)
        self._context = Context()
        try:
            self._control = Replier(
                self._context,
                self._runtime.scheduler_endpoint,
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
        self._restore()

    def __repr__(self) -> str:
        return f"<SchedulerActor owners={len(self._owners)} tasks={len(self._requests)}>"

    def run(self, *lifelines: Descriptor, beat: Callable[[], None]) -> None:
        """Serves until one of ``lifelines`` becomes readable; calls ``beat`` every second."""
        for lifeline in lifelines:
            self._waiter.add(lifeline)
        try:
            while True:
                now = clock.monotonic_ns()
                if now >= self._beat_at:
                    beat()
                    self._beat_at = now + clock.SECOND
                ready = self._waiter.wait(max(0, self.step() - clock.monotonic_ns()))
                if not ready.isdisjoint(lifelines):
                    return
                self._serve(ready)
        finally:
            self._end()

    def step(self) -> int:
        """Does what is due; returns the monotonic time of what is due next."""
        now = clock.monotonic_ns()
        due = self._schedule.step(now)
        if due:
            self._send(due, now)
        if now >= self._look_at:
            self._look_around(now)
        next_ns = self._schedule.due_ns
        at = min(self._look_at, self._beat_at)
        return at if next_ns is None else min(at, next_ns)

    def _send(self, due: list[Task], now: int) -> None:
        by_channel: dict[str, list[Task]] = {}
        for task in due:
            tasks = by_channel.get(task.channel)
            if tasks is None:
                by_channel[task.channel] = [task]
            else:
                tasks.append(task)
        for channel, tasks in by_channel.items():
            self._outlets[channel].send(tasks, now)
            for task in tasks:
                if task.ended:
                    self._forget(task)

    def _serve(self, ready: set[object]) -> None:
        now = clock.monotonic_ns()
        for outlet in list(self._outlets.values()):
            if not ready.isdisjoint(outlet.sockets):
                for client_id in outlet.receive(now):
                    self._gone(client_id, outlet)
        if self._held:
            self._serve_held(now)
        if self._stopping:
            self._serve_stopping()
        if self._control.socket in ready:
            self._control.serve(_SERVE)

    def _end(self) -> None:
        for outlet in self._outlets.values():
            outlet.close(self._waiter)
        self._control.close()
        self._context.close()
        self._journal.close()

    # -------------------------------------------------------------------------------- methods

    def _add(self, caller: Caller, request: AddTask) -> msgspec.Struct | None:
        owner = self._owner(request.client_id, caller.identity, request.pid)
        if request.task in owner.tasks:
            return TaskAdded()
        if len(owner.tasks) >= MAX_TASKS:
            return control.ErrorResult("limit", f"a client may have {MAX_TASKS:,} tasks")
        try:
            outlet = self._outlet(request.channel)
        except CanInitializationError as error:
            return control.ErrorResult("invalid", str(error))
        if outlet.state is None:
            until = clock.monotonic_ns() + _ANSWER_NS
            self._held.append(_Held(caller, request, until))
            return None
        return self._start(outlet, owner, request)

    def _serve_held(self, now: int) -> None:
        held, self._held = self._held, []
        for entry in held:
            outlet = self._outlet(entry.request.channel)
            owner = self._owners.get(entry.request.client_id)
            if owner is not None and outlet.state is not None:
                if entry.request.task in owner.tasks:
                    self._control.reply(entry.caller, TaskAdded())
                else:
                    result = self._start(outlet, owner, entry.request)
                    self._control.reply(entry.caller, result)
            elif owner is not None and now < entry.until_ns:
                self._held.append(entry)
            else:
                reason = f"channel {entry.request.channel!r} does not answer"
                self._control.reply(entry.caller, control.ErrorResult("down", reason))

    def _start(self, outlet: Outlet, owner: _Owner, request: AddTask) -> msgspec.Struct:
        fault = _fault_of(outlet, request)
        if fault is not None:
            return control.ErrorResult("invalid", fault)
        try:
            task = _task_of(request)
        except ValueError as error:
            return control.ErrorResult("invalid", str(error))
        now = clock.monotonic_ns()
        self._schedule.add(task, now, request.phase_ns, request.duration_ns)
        self._enroll(outlet, owner, request, task)
        self._write(task)
        outlet.load += outlet.load_of(task)
        return TaskAdded(warning=_overload(outlet))

    def _modify(self, caller: Caller, request: ModifyTask) -> msgspec.Struct:
        owner = self._owners.get(request.client_id)
        task = owner.tasks.get(request.task) if owner is not None else None
        if owner is None or task is None:
            return control.ErrorResult("unknown", f"no task {request.task} runs")
        owner.identity = caller.identity
        outlet = self._outlets[task.channel]
        added = self._requests[task]
        changed = msgspec.structs.replace(
            added,
            messages=request.messages or added.messages,
            period_ns=request.period_ns or added.period_ns,
        )
        fault = _fault_of(outlet, changed)
        if fault is None and len(changed.messages) != len(added.messages):
            fault = f"the task sends {len(added.messages)} messages, not {len(changed.messages)}"
        if fault is not None:
            return control.ErrorResult("invalid", fault)
        try:
            protections = _protections(changed)
        except ValueError as error:
            return control.ErrorResult("invalid", str(error))
        outlet.load -= outlet.load_of(task)
        task.frames, task.protections = tuple(changed.messages), tuple(protections)
        self._requests[task] = changed
        if changed.period_ns != added.period_ns:
            self._schedule.change_period(task, changed.period_ns, clock.monotonic_ns())
        outlet.load += outlet.load_of(task)
        self._write(task)
        return TaskAdded(warning=_overload(outlet) if request.period_ns else "")

    def _stop(self, caller: Caller, request: StopTasks) -> msgspec.Struct | None:
        self._held = [
            held
            for held in self._held
            if held.request.client_id != request.client_id
            or request.task not in {None, held.request.task}
        ]
        owner = self._owners.get(request.client_id)
        tasks = [] if owner is None else list(owner.tasks.values())
        if request.task is not None:
            tasks = [task for task in tasks if task.task == request.task]
        outlets = {self._outlets[task.channel] for task in tasks}
        for task in tasks:
            self._forget(task)
        tokens = {outlet: outlet.token for outlet in outlets if outlet.answered < outlet.token}
        if not tokens:
            return control.Nothing()
        self._stopping.append(_Stopping(caller, tokens))
        return None

    def _serve_stopping(self) -> None:
        stopping, self._stopping = self._stopping, []
        for entry in stopping:
            if all(outlet.answered >= token for outlet, token in entry.tokens.items()):
                self._control.reply(entry.caller, control.Nothing())
            else:
                self._stopping.append(entry)

    def _list(self, _: Caller, request: ListTasks) -> TaskList:
        now = clock.monotonic_ns()
        tasks = list(self._requests)
        return TaskList(
            total=len(tasks),
            tasks=[
                _status_of(task, self._outlets[task.channel], now)
                for task in tasks[request.start : request.start + LISTED]
            ],
        )

    # ---------------------------------------------------------------------------------- tasks

    def _outlet(self, channel: str) -> Outlet:
        outlet = self._outlets.get(channel)
        if outlet is None:
            outlet = Outlet(self._context, self._runtime, channel, self._trouble)
            self._outlets[channel] = outlet
            outlet.watch(self._waiter)
        return outlet

    def _owner(self, client_id: str, identity: bytes | None, pid: int) -> _Owner:
        owner = self._owners.get(client_id)
        if owner is None:
            owner = self._owners[client_id] = _Owner(identity, pid)
        owner.identity = identity
        return owner

    def _enroll(self, outlet: Outlet, owner: _Owner, request: AddTask, task: Task) -> None:
        owner.tasks[task.task] = task
        outlet.tasks[task.origin, task.task] = task
        self._requests[task] = request

    def _write(self, task: Task) -> None:
        self._journal.write(Entry(self._requests[task], task.anchor_ns, task.end_ns))

    def _forget(self, task: Task) -> None:
        """Ends a task, wherever it is."""
        task.ended = True
        outlet, owner = self._outlets[task.channel], self._owners[task.origin]
        outlet.load -= outlet.load_of(task)
        del outlet.tasks[task.origin, task.task]
        del owner.tasks[task.task]
        del self._requests[task]
        self._journal.remove(task.origin, task.task)

    def _gone(self, client_id: str, outlet: Outlet) -> None:
        """A client has left a channel: its tasks there end."""
        owner = self._owners.get(client_id)
        if owner is None:
            return
        for task in list(owner.tasks.values()):
            if task.channel == outlet.channel:
                self._forget(task)

    def _restore(self) -> None:
        """Goes on with the tasks of a scheduler that was killed, those whose owners live."""
        now = clock.monotonic_ns()
        for entry in self._journal.load():
            request = entry.task
            task = _task_of(request)
            task.anchor_ns, task.end_ns = entry.anchor_ns, entry.end_ns
            self._schedule.resume(task, now)
            owner = self._owner(request.client_id, None, request.pid)
            self._enroll(self._outlet(request.channel), owner, request, task)
            if task.ended or not is_alive(request.pid):
                self._forget(task)
        if self._requests:
            _logger.warning("goes on with %d tasks of its predecessor", len(self._requests))

    # ----------------------------------------------------------------------------- housekeeping

    def _look_around(self, now: int) -> None:
        """Finds the owners that nobody would tell us of, and channels that fell silent."""
        self._look_at = now + clock.SECOND
        for channel, outlet in list(self._outlets.items()):
            outlet.check(now)
            if outlet.tasks:
                outlet.idle_ns = now
            elif now - outlet.idle_ns > _KEEP_NS and not self._is_held(channel):
                outlet.close(self._waiter)
                del self._outlets[channel]
        for client_id, owner in list(self._owners.items()):
            self._look_for(client_id, owner, now)
        if self._held or self._stopping:
            self._look_at = now + _LOOK_NS
            self._serve_held(now)
            self._serve_stopping()

    def _look_for(self, client_id: str, owner: _Owner, now: int) -> None:
        channels = {task.channel for task in owner.tasks.values()}
        if all(client_id in self._outlets[channel].present for channel in channels):
            if not owner.tasks and not any(h.request.client_id == client_id for h in self._held):
                del self._owners[client_id]
            return
        self._look_at = now + _LOOK_NS
        if not is_alive(owner.pid):
            for task in list(owner.tasks.values()):
                self._forget(task)

    def _is_held(self, channel: str) -> bool:
        return any(held.request.channel == channel for held in self._held)

    def _trouble(self, task: Task, reason: str) -> None:
        """Tells the owner of a task that a frame was refused."""
        now = clock.monotonic_ns()
        is_new = reason != task.reason
        task.reason = reason
        owner = self._owners.get(task.origin)
        if owner is None or owner.identity is None:
            return
        if is_new or now - task.told_ns > _TELL_NS:
            task.told_ns = now
            trouble = TaskTrouble(task=task.task, failed=task.failed, reason=reason)
            self._control.reply(Caller(owner.identity, 0), trouble)


def _task_of(request: AddTask) -> Task:
    """:raises ValueError: the counter or the checksum does not fit the messages."""
    return Task(
        request.client_id,
        request.task,
        request.channel,
        request.messages,
        request.period_ns,
        _protections(request),
    )


def _protections(request: AddTask) -> list[Protection]:
    """What writes the counter and the checksum of each message; empty if there is neither.

    :raises ValueError: they do not fit a message.
    """
    if request.counter is None and request.checksum is None:
        return []
    lengths = [len(f.data) if isinstance(f.data, bytes) else 0 for f in request.messages]
    made = {n: protection(request.counter, request.checksum, n) for n in set(lengths)}
    return [made[length] for length in lengths]


def _fault_of(outlet: Outlet, request: AddTask) -> str | None:
    """Why no frame of a task could ever be sent, if so."""
    for frame in request.messages:
        fault = frame_fault(frame.arbitration_id, frame.flags, frame.data)
        if fault is None and frame.flags & FD and outlet.state and not outlet.state.fd:
            fault = "the channel was not opened for CAN FD (fd=True)"
        if fault is not None:
            return f"{describe(frame)}: {fault}"
    return None


def _overload(outlet: Outlet) -> str:
    if outlet.load <= 1:
        return ""
    bitrate = outlet.state.bitrate if outlet.state else None
    return (
        f"the periodic tasks on {outlet.channel!r} ask for {outlet.load:.0%} "
        f"of the bus at {bitrate} bit/s"
    )


def _status_of(task: Task, outlet: Outlet, now: int) -> TaskStatus:
    frame = task.frames[0]
    mode = "kernel" if task.parked else "scheduler" if outlet.is_up(now) else "paused"
    return TaskStatus(
        client_id=task.origin,
        task=task.task,
        channel=task.channel,
        arbitration_id=frame.arbitration_id,
        extended=bool(frame.flags & 1),
        messages=len(task.frames),
        period_ns=task.period_ns,
        mode=mode,
        sent=task.sent,
        skipped=task.skipped,
        failed=task.failed,
        reason=task.reason,
        late_p50_ns=task.lateness.percentile(0.5),
        late_p99_ns=task.lateness.percentile(0.99),
        late_max_ns=task.lateness.max_ns if task.lateness.count else None,
    )
