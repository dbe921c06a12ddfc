"""A flag with a file descriptor: one thread sets it, another one polls it."""

from __future__ import annotations

import os

from canbroker.system import handles, locks
from canbroker.system.handles import Handle
from canbroker.system.locks import Rank


class Wake:
    """A level-triggered flag with a descriptor: readable from :meth:`set` until :meth:`clear`.

    An eventfd where the system has it (Linux), else a pipe. Any thread may call any method; after
    :meth:`close` they do nothing. If a signal handler raises in one of them, the flag may stay
    readable, but never stays unreadable when it is set.
    """

    def __init__(self) -> None:
        """:raises CanOperationError: no descriptors are left."""
        self._lock = locks.make(Rank.WAKE)
        self._set = False
        if hasattr(os, "eventfd"):
            self._read = self._write = Handle(os.eventfd, 0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        else:  # macOS, Windows
            with handles.fork_lock:
                read, write = os.pipe()
                self._read, self._write = handles.adopted(read), handles.adopted(write)
            os.set_blocking(read, False)

    def fileno(self) -> int:
        return self._read.fileno()

    def set(self) -> None:
        with self._lock:
            if not self._set and (number := self._write.fileno()) >= 0:
                os.write(number, b"\x01\0\0\0\0\0\0\0")
                self._set = True  # after the write: if that is interrupted, it can be set again

    def clear(self) -> None:
        with self._lock:
            if self._set and (number := self._read.fileno()) >= 0:
                self._set = False  # before the read, likewise
                os.read(number, 4096)

    def close(self) -> None:
        with self._lock:
            self._read.close()
            self._write.close()
