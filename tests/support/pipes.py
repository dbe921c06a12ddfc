"""Lines that a process writes to a pipe, each waited for no longer than a test is patient."""

from __future__ import annotations

import os
import queue
import select
import threading
from typing import IO, Final, Protocol

from canbroker.system.portable import PORTABLE

_CHUNK: Final = 1 << 20
_PATIENCE_S: Final = 10.0


class Lines(Protocol):
    """The lines of a pipe."""

    def next(self, timeout_s: float) -> bytes:
        """The next line, without its end.

        :raises TimeoutError: none has come.
        :raises EOFError: none will come.
        """

    def close(self) -> None:
        """Closes the pipe. Its other end is closed already."""


class PolledLines:
    def __init__(self, pipe: IO[bytes]) -> None:
        self._pipe = pipe
        self._unread = b""

    def next(self, timeout_s: float) -> bytes:
        while b"\n" not in self._unread:
            if not select.select([self._pipe], [], [], timeout_s)[0]:
                raise TimeoutError(f"nothing is said for {timeout_s} s")
            data = os.read(self._pipe.fileno(), _CHUNK)
            if not data:
                raise EOFError
            self._unread += data
        line, _, self._unread = self._unread.partition(b"\n")
        return line

    def close(self) -> None:
        self._pipe.close()


class ReadLines:
    """As :class:`PolledLines`, where nobody can wait for a pipe (Windows): a thread reads it."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._pipe = pipe
        self._lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._read, name="lines of a pipe", daemon=True)
        self._thread.start()

    def next(self, timeout_s: float) -> bytes:
        try:
            line = self._lines.get(timeout=timeout_s)
        except queue.Empty:
            raise TimeoutError(f"nothing is said for {timeout_s} s") from None
        if line is None:
            self._lines.put(None)
            raise EOFError
        return line

    def close(self) -> None:
        self._thread.join(_PATIENCE_S)
        self._pipe.close()

    def _read(self) -> None:
        for line in self._pipe:
            self._lines.put(line.removesuffix(b"\n").removesuffix(b"\r"))
        self._lines.put(None)


def lines_of(pipe: IO[bytes]) -> Lines:
    return ReadLines(pipe) if PORTABLE else PolledLines(pipe)
