"""What all children have in common, however the broker talks to them."""

from __future__ import annotations

import logging
import os
import subprocess
from abc import ABC, abstractmethod

from canbroker.actors.specs import MAX_TEXT, Alive, Ready
from canbroker.broker.child_reports import ReportReader

_logger = logging.getLogger(__name__)


class ProcessChild(ABC):
    """A :class:`~canbroker.broker.child.Child`, which documents the methods."""

    #: The error of a lifeline whose other end is gone.
    _GONE: type[OSError] = BrokenPipeError

    def __init__(self, process: subprocess.Popen[bytes], lifeline: int) -> None:
        """``lifeline``: the descriptor of our end, which :meth:`release` closes."""
        self.pid = process.pid
        self._process = process
        self._lifeline = lifeline
        self._reader = ReportReader()
        self._released = False

    @abstractmethod
    def fileno(self) -> int: ...

    @abstractmethod
    def _receive(self) -> bytes:
        """What the child has reported; empty at the end.

        :raises BlockingIOError: there is nothing at the moment.
        """

    @abstractmethod
    def close(self) -> None: ...

    def reports(self) -> list[Ready | Alive] | None:
        try:
            data = self._receive()
        except BlockingIOError:
            return []
        return self._reader.read(data)

    def release(self, last_words: str = "") -> None:
        if not self._released:
            self._released = True
            self._leave(last_words)

    def kill(self) -> None:
        self._process.kill()

    def poll(self) -> int | None:
        return self._process.poll()

    def _leave(self, last_words: str) -> None:
        try:
            os.write(self._lifeline, last_words.encode()[:MAX_TEXT])
        except self._GONE:
            _logger.debug("actor process %d had already left", self.pid)
        finally:
            os.close(self._lifeline)
