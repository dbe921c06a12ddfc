"""Who may use a socket that one thread may be waiting on for a long time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from canbroker import clock
from canbroker.wake import Wake


class Turns:
    """A lock whose long-time holder steps aside, when asked to, for someone with a short job.

    The holder waits on ``wake`` beside what it is waiting for, and gives its turn back when
    :meth:`wanted` says so; it gets the next one when all short jobs are done.
    """

    def __init__(self, wake: Wake) -> None:
        self._wake = wake
        self._condition = threading.Condition(threading.Lock())
        self._count_lock = threading.Lock()
        self._short_jobs = 0
        self._holder: int | None = None  # thread with the long turn

    def mine(self) -> bool:
        """Whether this thread has the long turn: it is in a signal handler, then."""
        return self._holder == threading.get_ident()

    def wanted(self) -> bool:
        """Whether a short job waits, or the bus closes: let go."""
        return self._short_jobs > 0

    @contextmanager
    def take(self, deadline: int | None) -> Iterator[bool]:
        """A long turn, when no short job waits; yields ``False`` if none came by ``deadline``."""
        timeout = _seconds_left(deadline)
        if not self._condition.acquire(timeout=-1.0 if timeout is None else timeout):
            yield False
            return
        try:
            free = self._condition.wait_for(lambda: not self._short_jobs, _seconds_left(deadline))
            self._holder = threading.get_ident()
            yield free
        finally:
            self._holder = None
            self._condition.release()

    @contextmanager
    def take_soon(self) -> Iterator[None]:
        """A short turn, before whoever holds a long one goes on."""
        with self._count_lock:
            self._short_jobs += 1
            self._wake.set()
        with self._condition:
            try:
                yield
            finally:
                self._done()

    @contextmanager
    def peek(self) -> Iterator[bool]:
        """A turn if it is free this moment; yields whether it was."""
        free = self._condition.acquire(blocking=False)
        try:
            yield free
        finally:
            if free:
                self._condition.release()

    def _done(self) -> None:
        with self._count_lock:
            self._short_jobs -= 1
            if not self._short_jobs:
                self._wake.clear()
        self._condition.notify_all()


def _seconds_left(deadline: int | None) -> float | None:
    left = clock.remaining_ns(deadline)
    return None if left is None else left / clock.SECOND
