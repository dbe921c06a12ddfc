"""Reads real-world logs of ``candump -L`` as a stream.

candump writes more than frames into its own logs (lost frames, CAN XL), shells add messages of
programs, editors add marks and line ends, and a power cut leaves half a line. Lines that are not
frames are skipped and counted. Source: can-utils' ``candump.c``, ``canplayer.c`` and ``lib.c``.
"""

from __future__ import annotations

import codecs
import io
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Final

from canbroker.errors import CanInitializationError
from canbroker.logs.candump import LogEntry, parse_log_line, quoted
from canbroker.logs.files import unreadable

#: Bytes to read at once: about 370 lines, which take a millisecond.
_CHUNK: Final = 1 << 14

#: The longest line that candump writes is a CAN XL frame, with about 4,200 bytes.
_MAX_LINE: Final = 8192

#: An error names at most this many interfaces.
_MAX_NAMES: Final = 32

_DROPS = re.compile(r"DROPCOUNT: dropped ([0-9]{1,10}) CAN frames? on ")
_XL_FRAME = re.compile(r"\(\S+\s+\S+\s+[0-9A-F]{3,5}#[0-9A-F]{2}:[0-9A-F]{2}:[0-9A-F]{8}#", re.I)
_LONG_CODE = re.compile(r"\(\S+\s+\S+\s+[0-9A-F]{3,8}#[0-9A-FR.]*_[9A-F](?:\s|$)", re.I)
_SCREEN = re.compile(
    r"(?:\([^)]*\)\s+)?"  # time
    r"\S+\s+(?:[RT]X [-BS] [-ER]\s+)?"  # interface, direction and flags
    r"[0-9A-F]{3,8}\s+[\[{][0-9A-F]+[]}]"  # identifier, length
)


class Skipped:
    """Counts the lines of a log that are not frames; false if there are none.

    ``str()`` returns a sentence for people: the number of lines of each kind, and the first of
    each.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        #: Frames that candump reports as lost during the recording.
        self.lost = 0
        self._first: dict[str, str] = {}

    def __bool__(self) -> bool:
        return bool(self.counts)

    def __str__(self) -> str:
        kinds = (f"{count:,} {kind} ({self._first[kind]})" for kind, count in self.counts.items())
        total = self.counts.total()
        lines = "line" if total == 1 else "lines"
        lost = f"; candump had lost {self.lost:,} frames when it recorded" if self.lost else ""
        return f"skipped {total:,} {lines} without a frame to send: {', '.join(kinds)}{lost}"

    def add(self, number: int, text: str) -> None:
        """Adds a line that does not parse as a frame."""
        drops = _DROPS.match(text)
        if drops:
            self.lost += int(drops[1])
        kind = "of DROPCOUNT" if drops else _kind(text)
        self.counts[kind] += 1
        self._first.setdefault(kind, f"line {number}" + (f": {quoted(text, 60)}" if text else ""))


class LogReader:
    """Reads the entries of a log as they are needed. Iterate again to read the log again.

    For one thread. Memory is bounded, however long the log and its lines are. A file that is not
    seekable, such as a pipe, can only be read once.

    :param name: the file's name, for messages.
    :param strict: refuses lines that are not frames, instead of skipping them.
    :param whole: skips a last line without a line end, which may lack a part of its data, unless it
        ends with a direction.
    """

    def __init__(
        self, file: io.BufferedIOBase, name: str, *, strict: bool = False, whole: bool = False
    ) -> None:
        self.name = name
        #: The lines that are not frames, from the first reading.
        self.skipped = Skipped()
        #: Whether a frame has been found so far.
        self.found = False
        #: Why the last reading did not end with the end of a line, or ``None``.
        self.end: str | None = None
        self._file = file
        self._strict = strict
        self._whole = whole
        self._is_counted = self._is_begun = self._in_line = False

    @classmethod
    def open(cls, path: Path | str, *, strict: bool = False) -> LogReader:
        """:raises CanInitializationError: the file cannot be read."""
        try:
            return cls(Path(path).open("rb"), str(path), strict=strict)
        except OSError as error:
            raise unreadable(str(path), error) from error

    def __enter__(self) -> LogReader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()

    @property
    def seekable(self) -> bool:
        """Whether the log can be read more than once."""
        return self._file.seekable()

    def __iter__(self) -> Iterator[LogEntry]:
        """:raises CanInitializationError: see :meth:`batches`."""
        for batch in self.batches():
            yield from batch

    def batches(self) -> Iterator[list[LogEntry]]:
        """Yields entries that are available together: everything in a pipe, or a part of a file.

        :raises CanInitializationError: the file cannot be read, or contains no frames; or the
            reader is strict and a line, which the message names, is not a frame.
        """
        skipped = Skipped() if self._is_counted else self.skipped
        self._is_counted = True
        self.end = None
        number, found = 0, False
        for lines in self._lines():
            batch = []
            for line in lines:
                number += 1
                try:
                    if self._whole and self._in_line and not line.endswith((" R", " T")):
                        raise ValueError(f"{quoted(line)} has no line end")  # noqa: TRY301
                    batch.append(parse_log_line(line))
                except ValueError as error:
                    if self._strict:
                        where = f"{self.name}, line {number}"
                        raise CanInitializationError(f"{where}: {error}") from None
                    skipped.add(number, line)
                    if self._in_line:
                        self.end = f"cut off in line {number}"
            if batch:
                self.found = found = True
                yield batch
        if not found:
            why = f": {skipped}" if skipped else ""
            raise CanInitializationError(f"{self.name} contains no frames{why}")

    def missing(self, interfaces: set[str]) -> tuple[set[str], list[str]]:
        """Returns the ``interfaces`` that the log does not contain, and all that were found in it.

        Stops reading as soon as all are found. The reader must be seekable.
        """
        seen: dict[str, None] = {}
        for lines in self._lines():
            for line in lines:
                fields = line.split(maxsplit=2)
                if len(fields) < 3 or not fields[0].startswith("(") or "#" not in fields[2]:
                    continue
                if len(seen) < _MAX_NAMES or fields[1] in interfaces:
                    seen[fields[1]] = None
            if interfaces <= seen.keys():
                break
        return interfaces - seen.keys(), list(seen)

    def _lines(self) -> Iterator[list[str]]:
        """Lines without line ends. A line that is too long is cut, but stays too long."""
        try:
            if self._is_begun:
                self._file.seek(0)
            self._is_begun, self._in_line = True, False
            rest, is_start = b"", True
            while data := self._file.read1(_CHUNK):
                *lines, rest = (rest + data).split(b"\n")
                rest = rest[: _MAX_LINE + 1]
                yield [_text(line, is_start and not index) for index, line in enumerate(lines)]
                is_start = is_start and not lines
            if rest:
                self._in_line = True
                yield [_text(rest, is_start)]
        except OSError as error:
            raise unreadable(self.name, error) from error


def _text(line: bytes, is_first: bool) -> str:
    if is_first:
        line = line.removeprefix(codecs.BOM_UTF8)
    if len(line) > _MAX_LINE:
        line = line[:_MAX_LINE] + b"..."  # so that it does not parse as a frame
    return line.decode(errors="replace").strip()


def _kind(text: str) -> str:
    """The kind of a line that is not a frame that canbroker can send."""
    if not text:
        return "empty"
    if text[0] in "#;":
        return "comments"
    if _XL_FRAME.match(text):
        return "of CAN XL frames"
    if _LONG_CODE.match(text):
        return "of frames with a length code above 8"
    if _SCREEN.match(text):
        return "in candump's form for screens, not that of candump -L"
    return "damaged" if text[0] == "(" else "of other text"
