"""The reader of MF4 files. Another process runs asammdf, which can crash on a damaged file."""

from __future__ import annotations

import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final, cast

import msgspec

from canbroker.errors import CanInitializationError
from canbroker.logs.files import unreadable
from canbroker.logs.mf4_rows import (
    ERRORS,
    GROUPS,
    REMOTES,
    End,
    Opened,
    Refused,
    Row,
    Rows,
    told_by,
)
from canbroker.logs.records import Record, Skipped, check_time, error_flags, valid_frame
from canbroker.logs.streams import Reader
from canbroker.model.frame import EXTENDED, MAX_EXTENDED_ID, REMOTE
from canbroker.system.descriptors import is_closed_pipe
from canbroker.system.entry_points import EntryPoint
from canbroker.system.processes import apart

#: asammdf needs seconds to be imported, and to open a large file.
_SILENT_S: Final = 60.0


class _CrashedError(Exception):
    """The process that reads the file has ended."""


class _Child:
    """The process that reads a file. It ends with this one."""

    def __init__(self, path: Path) -> None:
        self._is_hung = False
        self._process = subprocess.Popen(
            EntryPoint.MF4_READING.command(str(path)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            **apart(),
        )
        self._input = cast(IO[bytes], self._process.stdin)
        self._output = cast(IO[bytes], self._process.stdout)

    def begin(self) -> None:
        """Has it tell the rows from the first one on."""
        try:
            self._input.write(b"\n")
            self._input.flush()
        except OSError as error:  # what it has said before it ended is still to be read
            if not is_closed_pipe(error):
                raise

    def told(self) -> Opened | Refused | Rows | End:
        """:raises _CrashedError: it has crashed, or hangs; the message is the end of a sentence."""
        watchdog = threading.Timer(_SILENT_S, self._kill)
        watchdog.start()
        try:
            told = told_by(self._output)
        except msgspec.DecodeError as error:
            raise _CrashedError(f"asammdf gives rows that are none: {error}") from error
        finally:
            watchdog.cancel()
        if told is None:
            raise _CrashedError(self._end())
        return told

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._output.close()
        try:
            self._input.close()
        except OSError as error:
            if not is_closed_pipe(error):
                raise

    def _kill(self) -> None:
        """[the watchdog's thread]"""
        self._is_hung = True
        self._process.kill()

    def _end(self) -> str:
        code = self._process.wait()
        if self._is_hung:
            return f"asammdf has made no progress for {_SILENT_S:g} s"
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return f"asammdf has crashed ({how})"


class Mf4Reader(Reader):
    """Files with bus logging, of loggers and of tools. What is not CAN is not read."""

    def __init__(self, path: Path) -> None:
        """:raises CanInitializationError: the file cannot be read."""
        super().__init__(str(path))
        self._path = path
        self._done = 0
        self._rows = 0
        self._is_reading = False
        self._child = self._started()

    @property
    def progress(self) -> tuple[int, int | None]:
        """In rows."""
        return self._done, self._rows

    def close(self) -> None:
        self._child.close()

    def batches(self) -> Iterator[list[Record]]:
        self.skipped, self.end, self._done = Skipped(), None, 0
        if self._is_reading:  # the last reading did not come to its end
            self._child.close()
            self._child = self._started()
        self._is_reading = True
        self._child.begin()
        while True:
            try:
                told = self._child.told()
            except _CrashedError as error:
                self.end = f"damaged after row {self._done}: {error}"
                return
            if isinstance(told, Rows):
                if records := list(self._records(told.rows, self.skipped)):
                    yield records
            else:
                self.end = told.reason if isinstance(told, End) else None
                self._is_reading = False
                return

    def _started(self) -> _Child:
        """:raises CanInitializationError: the file cannot be read."""
        try:
            self._path.open("rb").close()
            child = _Child(self._path)
        except OSError as error:
            raise unreadable(self.name, error) from error
        told: object = None
        try:
            told = child.told()
            if isinstance(told, Opened):
                self._rows = told.rows
                return child
        except _CrashedError as error:
            raise CanInitializationError(f"{self.name} is damaged: {error}") from None
        finally:
            if not isinstance(told, Opened):
                child.close()
        reason = told.reason if isinstance(told, Refused) else "it has no rows"
        raise CanInitializationError(f"{self.name} is not an MF4 file, or was cut off: {reason}")

    def _records(self, rows: list[Row], skipped: Skipped) -> Iterator[Record]:
        for row in rows:
            self._done += 1
            try:
                yield _record(row)
            except ValueError as error:
                _, kind, number, *_ = row
                skipped.add("impossible frames", f"row {number} of {GROUPS[kind]}: {error}")


def _record(row: Row) -> Record:
    """:raises ValueError: no such frame can exist."""
    timestamp_ns, kind, _, channel, number, flags, sent, content = row
    number &= MAX_EXTENDED_ID  # the highest bit may say that it is an extended one
    if kind == ERRORS:
        flags = error_flags(number)
        content = b"" if isinstance(content, int) else content
    elif kind == REMOTES:
        flags = flags & EXTENDED | REMOTE
    check_time(timestamp_ns)
    return Record(valid_frame(timestamp_ns, number, flags, content), channel, sent)
