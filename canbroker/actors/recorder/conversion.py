"""Turns the Arrow stream of a complete file into its format, in a process of its own.

A format with a footer cannot be read if its writer is killed. So the recorder writes a stream, and
starts this when the stream is complete. Whoever is killed meanwhile, the stream is still there.
"""

from __future__ import annotations

import logging
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from canbroker.actors.recorder.side_file import (
    COMPLETE,
    CONVERTING,
    SideFile,
    part_of,
    read,
    write,
)
from canbroker.errors import CanError
from canbroker.logs.converting import convert
from canbroker.logs.formats import FORMATS, open_reader, open_writer
from canbroker.system import clock
from canbroker.system.entry_points import EntryPoint
from canbroker.system.files import lock_now
from canbroker.system.priority import lower_priority
from canbroker.system.service import set_up_logging

#: What is written instead of formats that cannot be read before they are complete.
STREAM: Final = "arrows"

_RETRY_NS: Final = 30 * clock.SECOND
_LOOK_S: Final = 0.02

_logger = logging.getLogger(__name__)


def written_as(kind: str) -> str:
    """The format in which files of a format are written at first."""
    found = FORMATS.get(kind)
    needs_footer = found is not None and (not found.survives or kind == "arrow")
    return STREAM if needs_footer else kind


def state_of_written(kind: str) -> str:
    """The state of a file of a format when its writer has closed it."""
    return COMPLETE if written_as(kind) == kind else CONVERTING


class Conversions:
    """The conversions of a recording, by one process at a time. One thread."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._waiting: list[str] = []
        self._converting: list[str] = []
        self._process: subprocess.Popen[bytes] | None = None
        self._retry_at = 0

    def begin(self, file: str) -> None:
        """Begins to convert a complete file, or does so when others are converted; returns at once.

        :raises OSError: no process is left.
        """
        self._waiting.append(file)
        self.step(clock.monotonic_ns())

    def step(self, now_ns: int) -> None:
        """Converts those that wait, and tries those again that have failed. Call it about every
        second.

        :raises OSError: no process is left.
        """
        self._look(now_ns)
        if self._waiting and self._process is None and now_ns >= self._retry_at:
            self._start()

    def wait(self, seconds: float) -> None:
        """Waits until the conversions have ended; those that take longer go on by themselves."""
        deadline = clock.deadline_after(seconds)
        while (self._process or self._waiting) and clock.remaining_ns(deadline):
            self.step(clock.monotonic_ns())
            time.sleep(_LOOK_S)
        left = [*self._converting, *self._waiting]
        if self._waiting:
            self._start()
        for file in left:
            _logger.info("%s is still being converted", self._directory / file)

    def _start(self) -> None:
        command = EntryPoint.CONVERSION.command(str(self._directory), *self._waiting)
        self._process = subprocess.Popen(command)
        self._converting, self._waiting = self._waiting, []

    def _look(self, now_ns: int) -> None:
        if self._process is None or (status := self._process.poll()) is None:
            return
        if status:
            self._waiting = [*self._converting, *self._waiting]
            self._retry_at = now_ns + _RETRY_NS
        self._converting, self._process = [], None


def main(directory: Path, files: Sequence[str]) -> int:
    """Converts files, one after the other; returns the exit code, 1 if one of them has failed."""
    lower_priority()
    return max(convert_file(directory, file) for file in files)


def convert_file(directory: Path, file: str) -> int:
    """Converts a file; returns the exit code. It does nothing if another process does it."""
    path = directory / file
    part, fresh = part_of(path), path.with_name(f"{file}.new")
    try:
        with part.open("r+b") as stream:
            if not lock_now(stream.fileno()):
                return 0
            side = read(directory, file)
            if side is None or side.state not in {CONVERTING, COMPLETE}:
                return 0
            if side.state == CONVERTING:
                _convert(part, fresh, side)
                fresh.replace(path)
                side.state, side.bytes = COMPLETE, path.stat().st_size
                write(side, directory)
        part.unlink()  # closed before: Windows removes no open file
    except FileNotFoundError:
        return 0  # it was removed, or is converted
    except (OSError, CanError) as error:
        _logger.error("%s cannot be converted: %s", part, error)  # noqa: TRY400 - it says all
        fresh.unlink(missing_ok=True)
        return 1
    return 0


def _convert(part: Path, fresh: Path, side: SideFile) -> None:
    metadata = {"canbroker.recording": msgspec.json.encode(side).decode()}
    with open_writer(fresh, side.format, metadata) as writer:
        if not part.stat().st_size:
            return  # its recorder was killed before anything was certain: a file without frames
        with open_reader(part, STREAM) as reader:
            convert(reader, writer)


if __name__ == "__main__":
    set_up_logging("info", "conversion")
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
