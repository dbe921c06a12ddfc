"""Rotates the log of a background broker."""

from __future__ import annotations

import logging
import os
import shutil
import sys
from pathlib import Path
from typing import Final

#: Size of the log. One old log of the same size is kept beside it.
MAX_BYTES: Final = 8 << 20

_logger = logging.getLogger(__name__)


class LogFile:
    """Standard error of a process and of all its children, if that is the file at ``path``.

    They share one open file and its position. So the owner copies the file, truncates it and resets
    the position, and the children continue from there. Lines that are written between copying and
    truncating are lost.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def old(self) -> Path:
        """The previous log."""
        return self._path.with_name(f"{self._path.name}.1")

    def step(self) -> None:
        """Rotates the log if it is too large. Call it about every second."""
        log = sys.__stderr__
        if log is None or log.closed:
            return
        found = os.fstat(log.fileno())
        if found.st_size <= MAX_BYTES or not self._is(found):
            return
        problem = ""
        try:
            shutil.copyfile(self._path, self.old)
        except OSError as error:  # a full disk, most likely: the log must not fill it further
            problem = f"the log before this line is lost: {error}"
        os.lseek(log.fileno(), 0, os.SEEK_SET)
        os.ftruncate(log.fileno(), 0)
        if problem:
            _logger.warning(problem)

    def _is(self, found: os.stat_result) -> bool:
        try:
            return os.path.samestat(found, self._path.stat())
        except OSError:  # the log was removed, or its directory
            return False
