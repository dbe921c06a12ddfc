"""All periodic tasks of one bus: which exist, which run, and their errors."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Final
from weakref import WeakValueDictionary

from canbroker.bus.connection import Connection
from canbroker.bus.periodic.callback import CallbackTask
from canbroker.bus.periodic.scheduled import ScheduledTask
from canbroker.bus.periodic.scheduler_link import TaskLink
from canbroker.bus.periodic.task import PeriodicTask, TaskPlan
from canbroker.bus.periodic.timer import shared
from canbroker.bus.unanswered import Failed, Unanswered
from canbroker.errors import CanOperationError
from canbroker.model.frame import Frame, describe
from canbroker.system import clock, locks
from canbroker.system.locks import Rank
from canbroker.wire.tasks import MAX_TASKS, TaskTrouble

#: Seconds that the timer's thread gets to end, before the bus is closed all the same.
_JOIN_S: Final = 1.0

#: By then, frames of a callback task are on the bus or have expired.
_STOP_NS: Final = 5 * clock.SECOND


class Periodic:
    """The periodic tasks of one bus. Any thread. It is the :class:`TaskKeeper` that they know."""

    def __init__(self, connection: Connection) -> None:
        self.used = False  # whether there has been any task
        self._connection = connection
        self._link = connection.task_link(self._refused)
        self._lock = locks.make(Rank.TASKS)
        self._numbers = itertools.count(1)
        self._closed = False
        self._stored: dict[PeriodicTask, None] = {}  # a set, in order
        self._running: set[CallbackTask] = set()
        self._heard: set[ScheduledTask] = set()  # those that run and have an on_error
        self._known: WeakValueDictionary[int, ScheduledTask] = WeakValueDictionary()
        self._troubles: dict[PeriodicTask | int, CanOperationError] = {}

    # ----------------------------------------------------------------------------- for the bus

    def add(self, plan: TaskPlan, *, autostart: bool) -> PeriodicTask:
        """A new task, which runs on return if ``autostart``.

        :raises ValueError: an argument is not valid, or two do not go together.
        :raises CanOperationError: it cannot be started.
        """
        task = self._make(plan)
        if autostart:
            try:
                task.start()
            except BaseException:
                if not task.started:  # otherwise it ends with all that are stored
                    self._drop([task])
                    self.ended(task)
                raise
        elif task.is_stored:
            self._stored[task] = None
        return task

    def stop_all(self, *, remove: bool) -> None:
        """Ends the stored tasks; ``remove``: and removes them from the store."""
        with self._lock:
            tasks = list(self._stored)
        self.stop(tasks, remove=remove)

    def raise_troubles(self) -> None:
        """Raises the errors that were kept for all tasks."""
        self._hear()
        with self._lock:
            troubles, self._troubles = list(self._troubles.values()), {}
        if len(troubles) > 1:
            raise CanOperationError(f"{troubles[0]} (and {len(troubles) - 1} more)")
        if troubles:
            raise troubles[0]

    def close(self) -> None:
        """Ends all tasks, for good."""
        if self._connection.closed:
            return
        with self._lock:
            self._closed = True
            running = list(self._running)
        for task in running:
            task.halt()
        if running:
            shared().join(_JOIN_S)
        self._link.leave()

    def forget(self) -> None:
        """[forked child] The tasks are the parent's, and so is the lock."""
        self._lock = locks.make(Rank.TASKS)
        self._stored, self._running, self._heard, self._troubles = {}, set(), set(), {}

    # ----------------------------------------------------------------------------- for the tasks

    @property
    def channel(self) -> str:
        return self._connection.attached.name

    def check_open(self) -> None:
        self._connection.check_open()

    def in_turn(self, job: Callable[[TaskLink], None]) -> None:
        self._link.in_turn(functools.partial(job, self._link))

    def offer(self, frame: Frame, expires_ns: int, failed: Failed) -> Unanswered | None:
        return self._connection.sending.offer([frame], expires_ns, failed)

    def wait_until_answered(self, request: Unanswered) -> None:
        deadline = clock.monotonic_ns() + _STOP_NS
        self._connection.sending.wait_until_answered(request, deadline)
        if not request.answered:
            raise CanOperationError(
                f"{describe(request.frames[0])} may still be sent: the driver has taken it"
            )

    def begin(self, task: PeriodicTask) -> None:
        with self._lock:
            if self._closed:
                raise CanOperationError("the bus is shut down")
            if isinstance(task, CallbackTask):
                if len(self._running) >= MAX_TASKS:
                    raise CanOperationError(f"a client may have {MAX_TASKS:,} tasks")
                self._running.add(task)
            elif isinstance(task, ScheduledTask) and task.on_error is not None:
                self._heard.add(task)
                self._listen()
            if task.is_stored:
                self._stored[task] = None
            self.used = True

    def ended(self, task: PeriodicTask) -> None:
        with self._lock:
            if isinstance(task, CallbackTask):
                self._running.discard(task)
            elif isinstance(task, ScheduledTask) and task in self._heard:
                self._heard.discard(task)
                self._listen()

    def stop(self, tasks: Sequence[PeriodicTask], *, remove: bool) -> None:
        if self._closed:
            return
        self.check_open()
        scheduled = [task for task in tasks if isinstance(task, ScheduledTask) and task.started]
        for task in tasks:
            if isinstance(task, CallbackTask):
                task.halt()
        try:
            if scheduled:
                self.in_turn(functools.partial(_stop, scheduled))
            for task in tasks:
                if isinstance(task, CallbackTask):
                    task.wait_until_answered()
        except CanOperationError:
            if not self._closed:  # by another thread, which ends all tasks
                raise
        if remove:
            self._drop(tasks)

    def note(self, task: PeriodicTask, error: CanOperationError) -> None:
        if task.on_error is not None and not self._closed:
            shared().at(clock.monotonic_ns(), functools.partial(task.report, error))
            return
        with self._lock:
            self._troubles[task] = error

    def raise_trouble(self, task: PeriodicTask) -> None:
        self._hear()
        with self._lock:
            trouble = self._troubles.pop(task, None)
        if trouble is not None:
            raise trouble

    def _make(self, plan: TaskPlan) -> PeriodicTask:
        """A task that does not run yet."""
        if plan.modifier is not None:
            if (plan.phase, plan.counter, plan.checksum) != (None, None, None):
                raise ValueError(
                    "phase, counter and checksum are the scheduler's, which cannot call a "
                    "modifier_callback: let that write them"
                )
            return CallbackTask(self, plan, plan.modifier)
        number = next(self._numbers)
        task = self._known[number] = ScheduledTask(self, plan, number)
        return task

    def _drop(self, tasks: Sequence[PeriodicTask]) -> None:
        with self._lock:
            for task in tasks:
                self._stored.pop(task, None)

    def _listen(self) -> None:
        self._link.listen(bool(self._heard))

    def _hear(self) -> None:
        if not self._connection.closed:
            self._link.collect()

    def _refused(self, trouble: TaskTrouble) -> None:
        """The scheduler reports that frames were refused. Any thread, in a turn."""
        task = self._known.get(trouble.task)
        name = "a periodic task" if task is None else repr(task)
        error = CanOperationError(
            f"{name}: {trouble.failed} of its frames were not sent: {trouble.reason}"
        )
        if task is not None:
            self.note(task, error)
            return
        with self._lock:
            self._troubles[trouble.task] = error


def _stop(tasks: Sequence[ScheduledTask], link: TaskLink) -> None:
    """In a turn."""
    link.stop([task.number for task in tasks if task.started])
    for task in tasks:
        task.ended()
