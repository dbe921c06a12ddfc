"""Tasks whose messages are changed by a function of the user, in the user's process."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from canbroker.bus.failure import Failure
from canbroker.bus.periodic.cyclic import period_ns_of
from canbroker.bus.periodic.task import Modifier, PeriodicTask, TaskKeeper, TaskPlan
from canbroker.bus.periodic.timer import TimerEntry, shared
from canbroker.bus.unanswered import Unanswered
from canbroker.errors import CanOperationError
from canbroker.model.frame import Frame
from canbroker.model.message import Message, to_frame
from canbroker.system import clock, locks
from canbroker.system.locks import Rank
from canbroker.wire.tasks import stale_after_ns

_logger = logging.getLogger("canbroker.bus")


class CallbackTask(PeriodicTask):
    """A task that calls a function of the user before each message is sent.

    All such tasks share the timer's thread. The function gets the task's own ``messages``, so its
    changes are still there the next time. ``skipped`` counts periods that passed without a frame
    because the process or the bus was too busy.
    """

    def __init__(self, tasks: TaskKeeper, plan: TaskPlan, modifier: Modifier) -> None:
        super().__init__(tasks, plan)
        self.started = False
        self._missed = 0  # slots; changed by the timer's thread
        self._expired = 0  # frames; changed by the thread that has the sending turn
        self._sent: Unanswered | None = None  # last
        self._modifier = modifier
        self._lock = locks.make(Rank.TASK)
        self._entry: TimerEntry | None = None  # None if the task does not run
        self._ticking = False  # the entry's time has come
        self._position = 0  # in the sequence of messages
        self._due_ns = 0
        self._end_ns: int | None = None
        self._failures: list[Failure] = []  # of frames that were on their way

    @property
    def skipped(self) -> int:
        return self._missed + self._expired

    def start(self) -> None:
        """Starts it, from the first message and for the full duration, unless it runs."""
        self._tasks.check_open()
        self._tasks.raise_trouble(self)
        with self._lock:
            if self._entry is not None:
                return
            self._tasks.begin(self)
            self._position = 0
            self._due_ns = clock.monotonic_ns()
            if self.duration_ns is not None:
                self._end_ns = self._due_ns + self.duration_ns
            self._entry = shared().at(self._due_ns, self._tick)
            self.started = True

    def modify_data(self, messages: Message | Sequence[Message]) -> None:
        """Goes on with other messages at the next due time, or at the next start.

        :raises ValueError: not as many, or another identifier.
        """
        self._tasks.check_open()
        self._tasks.raise_trouble(self)
        new = self._successors(messages)
        with self._lock:
            self.messages = new

    def update(self, *, period: float) -> None:
        self._tasks.check_open()
        self._tasks.raise_trouble(self)
        period_ns = period_ns_of(period)
        with self._lock:
            last = self._due_ns - self.period_ns
            self.period, self.period_ns = period, period_ns
            if self._entry is not None and not self._ticking:
                shared().cancel(self._entry)
                self._due_ns = max(last + period_ns, clock.monotonic_ns())
                self._entry = shared().at(self._due_ns, self._tick)

    def halt(self) -> None:
        """Ends it; frames that it has sent may still be on their way."""
        with self._lock:
            if self._entry is None:
                return
            shared().cancel(self._entry)
            self._entry = None
            self.started = False
            self._tasks.ended(self)
        self._note_failures()

    def wait_until_answered(self) -> None:
        """Waits until the driver has sent or dropped its last frame; not on the timer's thread.

        :raises CanOperationError: it has not, after some seconds.
        """
        if self._sent is not None and not shared().is_mine():
            self._tasks.wait_until_answered(self._sent)

    # ----------------------------------------------------------------------- the timer's thread

    def _tick(self, entry: TimerEntry) -> None:
        with self._lock:
            if self._entry is not entry:
                return
            self._ticking = True
            message = self.messages[self._position]
        try:
            self._modifier(message)  # without the lock: it may stop this task, or close the bus
            self._send(to_frame(message), entry)
        except (Exception, SystemExit) as error:  # whatever the user's function does
            if self._entry is entry and not self._goes_on(error):
                _logger.exception("%r ends", self)
                self._end(entry)
        with self._lock:
            self._ticking = False
            if self._entry is entry:
                self._schedule_next()

    def _send(self, frame: Frame, entry: TimerEntry) -> None:
        if self._failures:
            failures, self._failures = self._failures, []
            raise failures[0].error("; ".join(failure.text for failure in failures))
        expires_ns = clock.monotonic_ns() + stale_after_ns(self.period_ns)
        with self._lock:  # so that nothing is sent after it was stopped
            if self._entry is not entry:
                return
            request = self._tasks.offer(frame, expires_ns, self._failed)
            if request is None:
                self._missed += 1
            else:
                self._sent = request

    def _schedule_next(self) -> None:
        now = clock.monotonic_ns()
        self._position = (self._position + 1) % len(self.messages)
        due = self._due_ns + self.period_ns
        if due <= now:  # no burst: missed periods are skipped
            missed = (now - due) // self.period_ns + 1
            self._missed += missed
            due += missed * self.period_ns
        self._due_ns = due
        if self._end_ns is not None and due >= self._end_ns:
            self.halt()
        else:
            self._entry = shared().at(due, self._tick)

    def _end(self, entry: TimerEntry) -> None:
        with self._lock:
            if self._entry is entry:  # and was not stopped and started again
                self.halt()

    # ----------------------------------------------------------------------------- any thread

    def _failed(self, failure: Failure, expired: bool) -> None:
        """A frame was not sent. The calling thread has the sending turn: takes no lock here."""
        if expired:
            self._expired += 1
            return
        self._failures.append(failure)
        if self._entry is None:  # there is no next time
            self._note_failures()

    def report(self, error: CanOperationError, _: TimerEntry) -> None:
        self._goes_on(error)  # the task has ended; otherwise its next tick would report this

    def _note_failures(self) -> None:
        failures, self._failures = self._failures, []
        if failures:
            self._tasks.note(self, failures[0].error(f"{self!r}: {failures[0].text}"))
