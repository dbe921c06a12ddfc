"""The locks of a user's process: their kinds, and the order in which a thread may take them.

There are four kinds. A thread that holds a lock waits only for locks further down in this list,
so no two threads ever wait for each other:

1. **Operations** last as long as the user's functions or the adapter take: calling the listeners
   of a Notifier (``LISTENERS``), sending the frame of a callback task (``TASK``), closing
   everything that a bus has open (``END``).
2. **Turns** (:mod:`canbroker.bus.turns`) are the right to use a socket, for as long as a wait for
   it takes. A thread with a short job first announces itself (``SHORT_TURN``), then gets the
   turn (``TURN``). Nobody waits for a second turn while having one, except for a remote broker
   (``BROKER``).
3. **States** guard what several threads read and write, for moments: the channel's state
   (``WATCH``), the tasks of a bus (``TASKS``), its link to the scheduler (``ARMING``), whether it
   is open (``LIFE``), its received messages (``QUEUE``), which buses have a Notifier
   (``NOTIFIERS``), the timer (``TIMER``), a wake (``WAKE``).
4. **The process** has one lock, :data:`canbroker.system.handles.fork_lock` (``PROCESS``), which
   keeps other threads from forking and guards what all buses of a process share.

All are reentrant: a signal handler or a finalizer may interrupt a thread anywhere and call what it
has interrupted. Turns alone refuse that, as the socket would be used twice at a time.

Every lock is made by :func:`make`. Tests of the contract replace :data:`maker`, and fail when a
thread takes a lock out of this order (``tests/support/lock_order.py``).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from enum import IntEnum
from types import TracebackType
from typing import Protocol


class Rank(IntEnum):
    """The place of a lock in the order; the tens are its kind."""

    LISTENERS = 10
    TASK = 11
    END = 12
    SHORT_TURN = 20
    TURN = 21
    BROKER = 22
    WATCH = 30
    TASKS = 31
    ARMING = 32
    LIFE = 33
    QUEUE = 34
    NOTIFIERS = 35
    TIMER = 36
    WAKE = 37
    PROCESS = 40


class Lock(Protocol):
    """A reentrant lock, as of :func:`threading.RLock`."""

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool: ...

    def release(self) -> None: ...

    def __enter__(self) -> bool: ...

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...


def make(rank: Rank) -> Lock:
    """A lock of that rank. ``with`` runs no Python function of ours when it takes or frees it."""
    return maker(rank)


def is_held(lock: Lock) -> bool:
    """Whether this thread holds ``lock``."""
    return bool(lock._is_owned())  # type: ignore[attr-defined] # as threading.Condition


def _plain(_: Rank) -> Lock:
    return threading.RLock()


#: What makes locks. Only tests assign to it.
maker: Callable[[Rank], Lock] = _plain
