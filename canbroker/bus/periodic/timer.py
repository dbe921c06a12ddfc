"""One thread for the functions of the user that periodic tasks call."""

from __future__ import annotations

import functools
import heapq
import itertools
import logging
import threading
from collections.abc import Callable
from typing import Final

from canbroker.system import clock, handles, locks
from canbroker.system.locks import Rank
from canbroker.system.undisturbed import undisturbed
from canbroker.system.wake import Wake
from canbroker.transport.waiter import Waiter

#: The heap may contain this many cancelled entries before it is cleaned up.
_CANCELLED: Final = 64

_logger = logging.getLogger("canbroker.bus")


class TimerEntry:
    """A job that waits for its time. :class:`Timer` makes them."""

    __slots__ = ("job",)

    def __init__(self, job: Callable[[TimerEntry], None]) -> None:
        self.job: Callable[[TimerEntry], None] | None = job


class Timer:
    """Runs jobs at their times, or when a descriptor is readable, one after the other.

    Any thread may call any method, and so may a job. The thread starts with the first job and ends
    when none is left.
    """

    def __init__(self, name: str) -> None:
        """``name``: of the thread."""
        self._name = name
        # A signal handler or a finalizer may call another method in the middle of one, so nothing
        # here is read and then written: each change is one call that is done or not.
        self._lock = locks.make(Rank.TIMER)
        self._numbers = itertools.count()
        self._heap: list[tuple[int, int, TimerEntry]] = []
        self._live: set[TimerEntry] = set()  # those in the heap that are not cancelled
        self._armed: dict[int, Callable[[], None]] = {}
        self._thread: threading.Thread | None = None
        self._wake: Wake | None = None  # while the thread runs

    def at(self, due_ns: int, job: Callable[[TimerEntry], None]) -> TimerEntry:
        """Calls ``job`` with the returned entry when the monotonic clock shows ``due_ns``."""
        entry = TimerEntry(job)
        with self._lock:
            wake = self._begin()
            heapq.heappush(self._heap, (due_ns, next(self._numbers), entry))
            self._live.add(entry)
        wake.set()
        return entry

    def cancel(self, entry: TimerEntry) -> None:
        """Prevents the job of ``entry``, unless it has begun."""
        with self._lock:
            entry.job = None
            self._live.discard(entry)
            self._notify()

    def arm(self, descriptor: int, job: Callable[[], None]) -> None:
        """Calls ``job`` once, when ``descriptor`` is readable."""
        with self._lock:
            if self._armed.get(descriptor) == job:
                return
            wake = self._begin()
            self._armed[descriptor] = job
        wake.set()

    def disarm(self, descriptor: int, job: Callable[[], None] | None = None) -> None:
        """Forgets ``descriptor``, so that it may be closed.

        :param job: forgets it only if it was armed with that, as the descriptor may have been
            closed, and may be somebody else's by now.
        """
        with self._lock:
            if job is not None and self._armed.get(descriptor) != job:
                return
            if self._armed.pop(descriptor, None) is not None:
                self._notify()

    def join(self, timeout: float) -> None:
        """Waits until the thread has ended, if it has nothing left to do."""
        with self._lock:
            thread = self._thread if self._idle() else None
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)

    def is_mine(self) -> bool:
        """Whether this is the timer's thread, which jobs run on."""
        return self._thread is threading.current_thread()

    def forget(self) -> None:
        """[forked child] The thread and its jobs are the parent's."""
        self._lock = locks.make(Rank.TIMER)
        self._heap, self._live, self._armed = [], set(), {}
        self._thread = self._wake = None

    def _begin(self) -> Wake:
        """Starts the thread unless it runs. Needs the lock."""
        if self._wake is not None:
            return self._wake
        wake = Wake()
        try:
            # A daemon: Python waits for other threads before it ends the buses, and so their tasks.
            # Ending them waits for this thread, with :meth:`join`.
            thread = threading.Thread(target=self._run, args=(wake,), name=self._name, daemon=True)
            self._thread, self._wake = thread, wake
            undisturbed(thread.start)
        except BaseException:  # if the thread runs, it ends
            self._wake = None
            wake.close()
            raise
        return wake

    def _notify(self) -> None:
        if self._wake is not None:
            self._wake.set()

    def _idle(self) -> bool:
        return not self._live and not self._armed

    # ------------------------------------------------------------------------------ the thread

    def _run(self, wake: Wake) -> None:
        waiter, watched = Waiter(), {wake.fileno()}
        waiter.add(wake)
        while not self._ends(wake):
            wake.clear()  # first: a later request is either seen below, or sets it again
            self._run_due(clock.monotonic_ns())
            with self._lock:
                if self._idle():
                    continue
                self._clean_up()
                armed = {wake.fileno(), *self._armed}
                due = self._heap[0][0] if self._heap else None
            if armed != watched:
                waiter, watched = Waiter(), armed
                for descriptor in armed:
                    waiter.add(descriptor)
            try:
                ready = waiter.wait(clock.remaining_ns(due))
            except OSError:  # Windows: one of them was closed; whoever needs the others arms again
                ready, watched = set(armed), set()
            for descriptor in armed & ready:
                self._run_armed(descriptor)

    def _ends(self, wake: Wake) -> bool:
        """Whether this thread ends: nothing is left to do, or another thread does it."""
        with self._lock:
            if self._wake is wake and not self._idle():
                return False
            if self._wake is wake:
                self._heap.clear()
                self._wake = None
        wake.close()
        return True

    def _run_due(self, now_ns: int) -> None:
        while (job := self._pop_due(now_ns)) is not None:
            _guarded(job)

    def _pop_due(self, now_ns: int) -> Callable[[], None] | None:
        with self._lock:
            while self._heap and self._heap[0][0] <= now_ns:
                entry = heapq.heappop(self._heap)[2]
                self._live.discard(entry)
                if entry.job is not None:
                    return functools.partial(entry.job, entry)
        return None

    def _clean_up(self) -> None:
        """Drops cancelled entries if there are too many. Needs the lock."""
        if len(self._heap) <= max(_CANCELLED, 2 * len(self._live)):
            return
        items = [heapq.heappop(self._heap) for _ in range(len(self._heap))]
        for item in items:
            if item[2].job is not None:
                heapq.heappush(self._heap, item)

    def _run_armed(self, descriptor: int) -> None:
        with self._lock:
            job = self._armed.pop(descriptor, None)
        if job is not None:
            _guarded(job)


def shared() -> Timer:
    """The timer of this process."""
    if not _registered:
        _registered.append(True)
        handles.register(in_child=_shared.forget)
    return _shared


def _guarded(job: Callable[[], None]) -> None:
    try:
        job()
    except Exception:  # one job must not end the thread that runs all others
        _logger.exception("a job of the timer failed")


_shared: Final = Timer("canbroker-timer")
_registered: list[bool] = []
