"""The log of a broker in the background, kept from growing without end."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Final

#: Of the log; there is one old one beside it, as large.
MAX_BYTES: Final = 8 << 20


class LogFile:
    """Standard error of a process and of all its children, if it is the file at ``path``.

    They share one open file, and with it its position: the process that owns it copies what is
    there to a second file and begins anew, and the children write on behind it. A line that is
    written just then may be lost.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def old(self) -> Path:
        """Where what was logged before is kept."""
        return self._path.with_name(f"{self._path.name}.1")

    def step(self) -> None:
        """Begins anew if the log has become too large. Called now and then."""
        log = sys.__stderr__
        if log is None or log.closed:
            return
        found = os.fstat(log.fileno())
        if found.st_size <= MAX_BYTES or not self._is(found):
            return
        shutil.copyfile(self._path, self.old)
        os.lseek(log.fileno(), 0, os.SEEK_SET)
        os.ftruncate(log.fileno(), 0)

    def _is(self, found: os.stat_result) -> bool:
        try:
            return os.path.samestat(found, self._path.stat())
        except FileNotFoundError:
            return False
