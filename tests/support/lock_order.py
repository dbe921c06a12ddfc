"""Records each lock that a thread of this process takes, and finds those taken out of order.

The order is that of :mod:`canbroker.system.locks`. Waiting for a lock is out of order when the
thread already holds another one of the same or a later rank. Two threads that did so could wait for
each other; that they happened not to in a test proves nothing, so it is the order that is checked.
"""

from __future__ import annotations

import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

import pytest

from canbroker.bus.listening import notifier
from canbroker.bus.periodic import timer
from canbroker.system import handles, locks
from canbroker.system.locks import Lock, Rank


class Order:
    """What is held by each thread, and what was taken out of order. Any thread."""

    def __init__(self) -> None:
        self.faults: list[str] = []
        self._of_thread = threading.local()

    def make(self, rank: Rank) -> CheckedLock:
        return CheckedLock(rank, self, threading.RLock())

    def note(self, taken: CheckedLock) -> None:
        """This thread has ``taken`` now."""
        held = self.held()
        if taken not in held:
            held.append(taken)

    def held(self) -> list[CheckedLock]:
        """The locks of this thread, in the order in which it took them."""
        held: list[CheckedLock] = self._of_thread.__dict__.setdefault("held", [])
        # One whose release an exception of a signal handler has struck is not held any more.
        held[:] = [lock for lock in held if locks.is_held(lock)]
        return held

    def check(self, wanted: CheckedLock) -> None:
        """Before ``wanted`` is waited for."""
        held = self.held()
        if wanted in held:
            return  # it is reentrant
        for lock in held:
            if lock.rank >= wanted.rank:
                stack = "".join(traceback.format_stack(limit=12)[:-2])
                self.faults.append(f"{wanted.rank.name} while holding {lock.rank.name}:\n{stack}")


class CheckedLock:
    """A lock that tells the order when it is taken."""

    def __init__(self, rank: Rank, order: Order, lock: Lock) -> None:
        self.rank = rank
        self._order = order
        self._lock = lock

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        if blocking and timeout != 0:  # what does not wait cannot wait for ever
            self._order.check(self)
        taken = self._lock.acquire(blocking, timeout)
        if taken:
            self._order.note(self)
        return taken

    def release(self) -> None:
        self._lock.release()

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()

    def _is_owned(self) -> bool:
        return locks.is_held(self._lock)


@contextmanager
def checked_locks(patch: pytest.MonkeyPatch) -> Iterator[Order]:
    """Checks the locks that are made in the block, and those that exist since the import."""
    order = Order()
    patch.setattr(locks, "maker", order.make)
    for module, name, rank in (
        (handles, "fork_lock", Rank.PROCESS),
        (notifier, "_active_lock", Rank.NOTIFIERS),
        (timer.shared(), "_lock", Rank.TIMER),
    ):
        patch.setattr(module, name, CheckedLock(rank, order, getattr(module, name)))
    yield order
    assert not order.faults, f"{len(order.faults)} locks out of order; the first: {order.faults[0]}"
