"""A file descriptor that one thread sets and another one polls."""

from __future__ import annotations

import os
import threading


class Wake:
    """A level-triggered flag with a descriptor: readable from :meth:`set` until :meth:`clear`.

    An eventfd where the system has it (Linux), else a pipe. Any thread may call any method, also
    after :meth:`close`, when they do nothing.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()  # a signal handler may set what it has interrupted
        self._set = False
        self._closed = False
        if hasattr(os, "eventfd"):
            self._read = self._write = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        else:  # macOS, Windows
            self._read, self._write = os.pipe()

    def fileno(self) -> int:
        return self._read

    def set(self) -> None:
        with self._lock:
            if not self._set and not self._closed:
                self._set = True
                os.write(self._write, b"\x01\0\0\0\0\0\0\0")

    def clear(self) -> None:
        with self._lock:
            if self._set and not self._closed:
                self._set = False
                os.read(self._read, 8)

    def close(self) -> None:
        with self._lock:
            if not self._closed:
                self._closed = True
                for descriptor in {self._read, self._write}:
                    os.close(descriptor)
