"""The tasks that run, their owners, and the journal that outlives a scheduler."""

from __future__ import annotations

import msgspec

from canbroker.actors.scheduler.journal import Entry, Journal
from canbroker.actors.scheduler.owners import Owner, Owners
from canbroker.actors.scheduler.schedule import Schedule, Task
from canbroker.model.frame import FD, describe, frame_fault
from canbroker.model.protection import Protection, protection
from canbroker.system.processes import same_start
from canbroker.wire.tasks import MAX_TASKS, AddTask, ModifyTask


class TaskBook:
    """All tasks that run, with their schedule. One thread."""

    def __init__(self, journal: Journal, owners: Owners) -> None:
        self.schedule = Schedule()
        self._owners = owners
        self._requests: dict[Task, AddTask] = {}
        self._journal = journal

    def __len__(self) -> int:
        return len(self._requests)

    def tasks(self) -> list[Task]:
        """In the order in which they were added."""
        return list(self._requests)

    def find(self, client_id: str, number: int) -> Task | None:
        owner = self._owners.find(client_id)
        return owner.tasks.get(number) if owner is not None else None

    def add(self, request: AddTask, now_ns: int, *, fd: bool) -> Task:
        """Starts a task; ``fd``: its channel accepts CAN FD frames.

        :raises ValueError: says why its frames could never be sent.
        """
        _check(request, fd=fd)
        task = _task_of(request)
        self.schedule.add(task, now_ns, request.phase_ns, request.duration_ns)
        self._enter(task, request, now_ns)
        self._write(task, now_ns)
        return task

    def modify(self, task: Task, change: ModifyTask, now_ns: int, *, fd: bool) -> None:
        """Changes messages, period, or both, from the task's next due time on.

        :raises ValueError: they do not fit the task, or could never be sent. The task continues
            unchanged.
        """
        before = self._requests[task]
        after = msgspec.structs.replace(
            before,
            messages=change.messages or before.messages,
            period_ns=change.period_ns or before.period_ns,
        )
        if len(after.messages) != len(before.messages):
            raise ValueError(
                f"the task sends {len(before.messages)} messages, not {len(after.messages)}"
            )
        _check(after, fd=fd)
        protections = _protections(after)
        task.frames, task.protections = tuple(after.messages), tuple(protections)
        self._requests[task] = after
        if after.period_ns != before.period_ns:
            self.schedule.change_period(task, after.period_ns, now_ns)
        self._write(task, now_ns)

    def forget(self, task: Task) -> None:
        """Ends a task."""
        task.ended = True
        owner = self._owners.find(task.origin)
        if owner is not None:
            del owner.tasks[task.task]
        del self._requests[task]
        self._journal.remove(task.origin, task.task)

    def restore(self, now_ns: int) -> list[Task]:
        """Continues the tasks in the journal whose owners are alive, and returns them."""
        for entry in list(self._journal.load()):
            request = entry.task
            task = _task_of(request)
            task.anchor_ns, task.end_ns = entry.anchor_ns, entry.end_ns
            self.schedule.resume(task, now_ns)
            self._enter(task, request, now_ns)
            owner = self._owners.of(request.client_id, request.pid, now_ns)
            is_same = same_start(owner.started, entry.started) or owner.process is None
            if task.ended or owner.ended or not is_same:
                self.forget(task)
        return self.tasks()

    def use(self, journal: Journal, now_ns: int) -> None:
        """Writes all tasks to another journal, because the old one was removed."""
        self._journal = journal
        for task in self._requests:
            self._write(task, now_ns)

    def _enter(self, task: Task, request: AddTask, now_ns: int) -> None:
        self._owners.of(task.origin, request.pid, now_ns).tasks[task.task] = task
        self._requests[task] = request

    def _write(self, task: Task, now_ns: int) -> None:
        request = self._requests[task]
        started = self._owners.of(task.origin, request.pid, now_ns).started
        self._journal.write(Entry(request, task.anchor_ns, task.end_ns, started))


def has_room(owner: Owner) -> bool:
    """Whether a client may have one more task."""
    return len(owner.tasks) < MAX_TASKS


def _task_of(request: AddTask) -> Task:
    return Task(
        request.client_id,
        request.task,
        request.channel,
        request.messages,
        request.period_ns,
        _protections(request),
    )


def _protections(request: AddTask) -> list[Protection]:
    """The counter and checksum of each message; empty if the task has neither.

    :raises ValueError: they do not fit a message.
    """
    if request.counter is None and request.checksum is None:
        return []
    lengths = [len(f.data) if isinstance(f.data, bytes) else 0 for f in request.messages]
    made = {n: protection(request.counter, request.checksum, n) for n in set(lengths)}
    return [made[length] for length in lengths]


def _check(request: AddTask, *, fd: bool) -> None:
    """:raises ValueError: names a message that could never be sent, and says why."""
    for frame in request.messages:
        fault = frame_fault(frame.arbitration_id, frame.flags, frame.data)
        if fault is None and frame.flags & FD and not fd:
            fault = "the channel was not opened for CAN FD (fd=True)"
        if fault is not None:
            raise ValueError(f"{describe(frame)}: {fault}")
