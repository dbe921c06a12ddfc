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
        """Whether this thread has the turn: it is in a signal handler, then."""
        return self._holder == threading.get_ident()

    def take(self, deadline: int | None, job: Callable[[], _T]) -> _T:
        """What ``job`` returns, which runs while no other one does.

        :raises CanTimeoutError: others had the turn until ``deadline``.
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
    """Turns whose long-time holder steps aside, when asked to, for someone with a short job.

    The holder waits on ``wake`` beside what it is waiting for, and gives its turn back when
    :meth:`wanted` says so; it gets the next one when all short jobs are done.
    """

    def __init__(self, wake: Wake) -> None:
        self._wake = wake
        self._turn = Turn("receiving")
        self._short = Turn(
            "changing what is received", Rank.SHORT_TURN
        )  # held from the wish to its fulfilment

    def mine(self) -> bool:
        """Whether this thread has a turn: it is in a signal handler, then."""
        return self._turn.mine() or self._short.mine()

    def wanted(self) -> bool:
        """Whether a short job waits: let go. Ask before each wait."""
        self._wake.clear()  # first: who comes from now on is either seen here, or sets it again
        return self._short.taken()

    def take(self, deadline: int | None, job: Callable[[], _T]) -> _T:
        """What ``job`` returns in a long turn, which comes after all short ones.

        :raises CanTimeoutError: it did not come by ``deadline``.
        """
        self._short.take(deadline, _nothing)
        return self._turn.take(deadline, job)

    def take_soon(self, job: Callable[[], _T]) -> _T:
        """What ``job`` returns in a short turn, before whoever holds a long one goes on."""
        return self._short.take(None, functools.partial(self._interrupt, job))

    def if_free(self, job: Callable[[], object]) -> None:
        """Runs ``job`` if nobody has a turn at this moment."""
        if self._turn.taken():
            return
        try:
            self._turn.take(0, job)
        except CanTimeoutError:  # somebody was faster
            return

    def _interrupt(self, job: Callable[[], _T]) -> _T:
        self._wake.set()
        return self._turn.take(None, job)


def _nothing() -> None:
    """What waits for its turn, and has nothing to do then."""
