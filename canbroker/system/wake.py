"""A file descriptor that one thread sets and another one polls."""

from __future__ import annotations

import os
import threading

from canbroker.system import handles
from canbroker.system.handles import Handle


class Wake:
    """A level-triggered flag with a descriptor: readable from :meth:`set` until :meth:`clear`.

    An eventfd where the system has it (Linux), else a pipe. Any thread may call any method, also
    after :meth:`close`, when they do nothing. A signal handler that raises in one of them may
    leave it readable, but never deaf.
    """

    def __init__(self) -> None:
        """:raises CanOperationError: there is no descriptor left."""
        self._lock = threading.RLock()  # a signal handler may set what it has interrupted
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
                self._set = True  # after it: what is not readable can be set again

    def clear(self) -> None:
        with self._lock:
            if self._set and (number := self._read.fileno()) >= 0:
                self._set = False  # before it, as above
                os.read(number, 4096)

    def close(self) -> None:
        with self._lock:
            self._read.close()
            self._write.close()
