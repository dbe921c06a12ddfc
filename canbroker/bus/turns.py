"""The right to use a socket, which no exception leaves taken (:mod:`canbroker.system.undisturbed`).

Between taking a lock and the ``try`` that frees it, and at the start of its ``finally``, there must
be no point at which CPython looks for signals: no context manager and no release written in Python.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import TypeVar

from canbroker.errors import CanOperationError, CanTimeoutError
from canbroker.system import clock, locks
from canbroker.system.locks import Rank
from canbroker.system.wake import Wake

_T = TypeVar("_T")


class Turn:
    """A lock with a deadline, that no exception leaves taken."""

    def __init__(self, what: str, rank: Rank = Rank.TURN) -> None:
        """``what``: what threads with a turn are doing, for messages."""
        # It knows its owner even if the call that took it never returned.
        self._lock = locks.make(rank)
        self._holder: int | None = None  # thread
        self._what = what

    def taken(self) -> bool:
        return self._holder is not None

    def mine(self) -> bool:
        """Whether this thread has the turn. If so, it is in a signal handler."""
        return self._holder == threading.get_ident()

    def run(self, deadline: int | None, job: Callable[[], _T]) -> _T:
        """Runs ``job`` while no other job runs; returns its result.

        :raises CanTimeoutError: other threads had the turn until ``deadline``.
        :raises CanOperationError: called from a signal handler that has interrupted a job.
        """
        me = threading.get_ident()
        if self._holder == me:
            raise CanOperationError(f"a signal handler has interrupted {self._what}: not now")
        left = clock.remaining_ns(deadline)
        timeout = -1.0 if left is None else left / clock.SECOND
        try:
            taken = self._lock.acquire(timeout=timeout)
        except BaseException as interruption:
            try:
                self._lock.release()
            except RuntimeError:  # it was still waiting
                raise interruption from None
            raise
        if not taken:
            raise CanTimeoutError(f"another thread is {self._what}")
        try:
            self._holder = me
            return job()
        finally:
            self._holder = None
            self._lock.release()


class Turns:
    """Long turns, which are interrupted for short jobs of other threads.

    A thread with a long turn includes ``wake`` in its waits, and ends the turn when
    :meth:`wanted` is true; it gets the next one when all short jobs are done.
    """

    def __init__(self, wake: Wake) -> None:
        self._wake = wake
        self._turn = Turn("receiving")
        self._short = Turn(
            "changing what is received", Rank.SHORT_TURN
        )  # from the request to its end

    def mine(self) -> bool:
        """Whether this thread has a turn. If so, it is in a signal handler."""
        return self._turn.mine() or self._short.mine()

    def wanted(self) -> bool:
        """Whether a short job waits, so that a long turn must end. Ask before each wait."""
        self._wake.clear()  # first: a later request is either seen here, or sets it again
        return self._short.taken()

    def run(self, deadline: int | None, job: Callable[[], _T]) -> _T:
        """Runs ``job`` in a long turn, after all short ones; returns its result.

        :raises CanTimeoutError: other threads had the turn until ``deadline``.
        """
        self._short.run(deadline, _nothing)
        return self._turn.run(deadline, job)

    def run_soon(self, job: Callable[[], _T]) -> _T:
        """Runs ``job`` in a short turn, for which a long one is interrupted; returns its result."""
        return self._short.run(None, functools.partial(self._interrupt, job))

    def if_free(self, job: Callable[[], object]) -> None:
        """Runs ``job`` if no thread has a turn at this moment."""
        if self._turn.taken():
            return
        try:
            self._turn.run(0, job)
        except CanTimeoutError:  # another thread was faster
            return

    def _interrupt(self, job: Callable[[], _T]) -> _T:
        self._wake.set()
        return self._turn.run(None, job)


def _nothing() -> None:
    """A job that only waits until the short turns are over."""
