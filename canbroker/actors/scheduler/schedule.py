"""When each task sends which frame. Pure: it is passed the time, and does not send.

Due times are absolute times of the monotonic clock, start + n * period, so nothing drifts.
Tasks with the same due time share one heap entry, so the cost of a step depends only on the tasks
that are due in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heappop, heappush
from typing import Final

from canbroker.actors.scheduler.lateness import Lateness
from canbroker.model.frame import Frame
from canbroker.model.protection import Protection
from canbroker.system import clock

#: Tasks begin on a whole millisecond. Nearly all periods are whole milliseconds, so these tasks are
#: due together, and need one wake-up and one request together.
GRID_NS: Final = clock.MILLISECOND

#: Tasks in one step, unless more are due at the same time. Further tasks may wait, but the
#: scheduler's other work may not.
_STEP: Final = 4096

_NEVER: Final = -1


class Task:
    """One periodic task and its account. Changed only by the scheduler's thread."""

    __slots__ = (
        "anchor_ns",
        "begun",
        "channel",
        "count",
        "due_ns",
        "end_ns",
        "ended",
        "failed",
        "frames",
        "last",
        "lateness",
        "origin",
        "parked",
        "period_ns",
        "position",
        "protections",
        "reason",
        "request",
        "sent",
        "skipped",
        "task",
        "told_ns",
    )

    def __init__(
        self,
        origin: str,
        task: int,
        channel: str,
        frames: Sequence[Frame],
        period_ns: int,
        protections: Sequence[Protection] = (),
    ) -> None:
        self.origin = origin  # id of the client that owns it
        self.task = task  # its number at that client
        self.channel = channel
        self.frames = tuple(frames)
        self.period_ns = period_ns
        self.protections = tuple(protections)  # one for each frame, or empty
        self.anchor_ns = 0  # it is due then, and every period from then on
        self.due_ns = _NEVER
        self.begun = False  # it was due at least once
        self.end_ns: int | None = None  # nothing is sent from then on
        self.last = False  # what is due now is its last frame
        self.ended = False
        self.parked = False  # offloaded: the driver repeats it by itself
        self.position = 0  # in the sequence of its frames
        self.count = 0  # frames made
        self.sent = 0
        self.skipped = 0
        self.failed = 0
        self.request = 0  # token of the last request with a frame of it
        self.reason = ""  # of the last failure
        self.told_ns = 0  # when its owner was last told of a failure
        self.lateness = Lateness()

    def __repr__(self) -> str:
        return f"<Task {self.origin}/{self.task} on {self.channel} every {self.period_ns} ns>"

    def skip(self) -> None:
        """Skips the slot that is due."""
        self.skipped += 1
        self.ended = self.ended or self.last

    def next_frame(self) -> Frame:
        """The next frame of the sequence, with its counter and checksum."""
        frames = self.frames
        position = self.position
        frame = frames[position]
        if len(frames) > 1:
            self.position = (position + 1) % len(frames)
        if self.protections and isinstance(frame.data, bytes):
            data = self.protections[position].apply(frame.data, self.count)
            frame = Frame(0, frame.arbitration_id, frame.flags, data)
        self.count += 1
        self.ended = self.last
        return frame


class Schedule:
    """All tasks that run, in the order of their due times."""

    def __init__(self) -> None:
        self._times: list[int] = []  # a heap; each is a key of _buckets
        # An entry counts only if its task is due at that time: a task that was moved leaves its
        # old entry behind.
        self._buckets: dict[int, list[Task]] = {}

    @property
    def due_ns(self) -> int | None:
        """When to call :meth:`step`; ``None`` if no task runs."""
        return self._times[0] if self._times else None

    def add(self, task: Task, now_ns: int, phase_ns: int | None, duration_ns: int | None) -> None:
        """Starts a task on the next millisecond, or when the clock modulo its period is
        ``phase_ns``. It ends after ``duration_ns``; ``None``: never."""
        if phase_ns is None:
            task.anchor_ns = -(-now_ns // GRID_NS) * GRID_NS
        else:
            task.anchor_ns = now_ns + (phase_ns - now_ns) % task.period_ns
        if duration_ns is not None:
            task.end_ns = task.anchor_ns + duration_ns
        self._put(task, task.anchor_ns)

    def resume(self, task: Task, now_ns: int) -> None:
        """Starts a task that was parked or comes from a journal, in its old rhythm."""
        task.parked = False
        task.begun = True
        self._put_until_end(task, self.next_ns(task, now_ns))

    def next_ns(self, task: Task, now_ns: int) -> int:
        """The task's first due time at or after ``now_ns``."""
        gone = max(0, -(-(now_ns - task.anchor_ns) // task.period_ns))
        return task.anchor_ns + gone * task.period_ns

    def change_period(self, task: Task, period_ns: int, now_ns: int) -> None:
        """Changes the period, counted from the last due time: no gap and no duplicate.

        For a parked task, it is counted from the next due time, because the driver's timer is not
        shortened. A task that has not begun yet begins when it would have begun.
        """
        if task.parked:
            task.anchor_ns = self.next_ns(task, now_ns)
            task.period_ns = period_ns
            return
        last = task.due_ns - task.period_ns
        task.period_ns = period_ns
        if not task.begun:
            return
        task.anchor_ns = max(last + period_ns, now_ns)
        self._put_until_end(task, task.anchor_ns)

    def park(self, task: Task) -> None:
        """The driver sends the task, which has no end, from now on."""
        task.parked = True
        task.due_ns = _NEVER

    def step(self, now_ns: int, ahead_ns: int = 0) -> list[tuple[int, list[Task]]]:
        """The tasks that are due up to ``ahead_ns`` from now, as (due time, tasks) in order.

        If a task has missed several slots, all but one of them are skipped and counted. If there
        are too many tasks for one step, the rest is left for the next: :attr:`due_ns` is then in
        the past.
        """
        due: list[tuple[int, list[Task]]] = []
        times = self._times
        left = _STEP
        while left > 0 and times and times[0] <= now_ns + ahead_ns:
            time_ns = heappop(times)
            bucket = self._buckets.pop(time_ns)
            left -= len(bucket)
            tasks = self._advance(bucket, time_ns, now_ns)
            if tasks:
                due.append((time_ns, tasks))
        return due

    def _advance(self, tasks: list[Task], time_ns: int, now_ns: int) -> list[Task]:
        due: list[Task] = []
        buckets = self._buckets
        for task in tasks:
            if task.ended or task.due_ns != time_ns:
                continue
            period_ns = task.period_ns
            if (
                task.end_ns is not None and task.end_ns <= now_ns
            ):  # all of its slots are in the past
                task.skipped += -(-(task.end_ns - time_ns) // period_ns)
                task.ended = True
                continue
            next_ns = time_ns + period_ns
            if next_ns <= now_ns:
                missed = (now_ns - time_ns) // period_ns
                next_ns += missed * period_ns
                task.skipped += missed
            due.append(task)
            task.begun = True
            task.due_ns = next_ns
            end_ns = task.end_ns
            if end_ns is not None and next_ns >= end_ns:
                task.last = True
                continue
            bucket = buckets.get(next_ns)
            if bucket is None:
                buckets[next_ns] = [task]
                heappush(self._times, next_ns)
            else:
                bucket.append(task)
        return due

    def _put_until_end(self, task: Task, due_ns: int) -> None:
        if task.end_ns is not None and due_ns >= task.end_ns:
            task.ended = True
        else:
            self._put(task, due_ns)

    def _put(self, task: Task, due_ns: int) -> None:
        task.due_ns = due_ns
        bucket = self._buckets.get(due_ns)
        if bucket is None:
            self._buckets[due_ns] = [task]
            heappush(self._times, due_ns)
        elif task not in bucket:  # it may have been moved away from here before
            bucket.append(task)
