"""Waiting for a line on a thread, where the system cannot wait for lines and sockets at once."""

from __future__ import annotations

import select
import threading
from contextlib import suppress
from typing import Final

from canbroker.errors import CanOperationError
from canbroker.system.wake import Wake

#: What ``select()`` raises: of a line that is gone, or whose number is too high for it.
_ERRORS: Final = (OSError, ValueError)


class Lookout:
    """A thread that sets a flag when a line has something to read, and rests until it was read.

    So it costs nothing while the adapter is left unread, and the line itself is the buffer.
    """

    def __init__(self, line: int, name: str) -> None:
        """
        :param line: its descriptor, which stays open until :meth:`stop`.
        :raises CanOperationError: no descriptors are left.
        """
        self.wake = Wake()
        try:
            self._end = Wake()
        except CanOperationError:
            self.wake.close()
            raise
        self._line = line
        self._error: Exception | None = None
        self._was_read = threading.Lock()  # taken while the thread rests
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def go_on(self, *, has_read: bool) -> None:
        """[reader] The line was read since the flag was cleared. ``has_read``: it had something.

        :raises OSError, ValueError: it had nothing more, and the thread could not wait for it.
        """
        with suppress(RuntimeError):  # it does not rest
            self._was_read.release()
        if self._error is not None:
            if not has_read:
                raise self._error
            self.wake.set()

    def stop(self) -> None:
        self._end.set()
        with suppress(RuntimeError):
            self._was_read.release()
        self._thread.join()
        self._end.close()
        self.wake.close()

    def _run(self) -> None:
        line, end = self._line, self._end
        while not end.is_set:
            try:
                found, _, _ = select.select([line, end.fileno()], [], [])
            except _ERRORS as error:
                self._error = error
                self.wake.set()
                return
            if line in found:
                self._was_read.acquire(blocking=False)
                if end.is_set:  # before: nobody releases it again
                    return
                self.wake.set()
                self._was_read.acquire()
