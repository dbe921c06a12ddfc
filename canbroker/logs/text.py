"""Text logs that we read and write ourselves: candump's, and python-can's CSV."""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from canbroker.errors import CanInitializationError
from canbroker.logs.candump import format_log_line, quoted
from canbroker.logs.losses import Holds
from canbroker.logs.reader import LogReader
from canbroker.logs.records import Record, Skipped
from canbroker.logs.streams import RecordReader, SinkWriter, SourceReader
from canbroker.logs.table_rows import frame_of
from canbroker.model.frame import ERROR, EXTENDED, Frame
from canbroker.system import clock

_HEADER: Final = "timestamp,arbitration_id,extended,remote,error,dlc,data"

#: The longest row has 64 bytes as base64.
_MAX_ROW: Final = 1024

_SECONDS: Final = re.compile(r"([0-9]{1,10})(?:\.([0-9]{1,9})[0-9]*)?")


class CandumpWriter(SinkWriter):
    """The log of ``candump -L -x``."""

    def __init__(
        self, path: Path, *, compressed: bool, holds: Holds, metadata: Mapping[str, str]
    ) -> None:
        del metadata  # the format has no place for it
        super().__init__(path, compressed=compressed, holds=holds)

    def _write(self, records: Sequence[Record]) -> None:
        lines = [
            format_log_line(frame, channel or "can", "T" if sent else "R")
            for frame, channel, sent, _, _ in records
        ]
        self._sink.binary.write(("\n".join(lines) + "\n").encode())


class CandumpReader(SourceReader):
    """A log of ``candump -L``, by :class:`LogReader`."""

    def __init__(self, path: Path) -> None:
        """:raises CanInitializationError: the file cannot be read."""
        super().__init__(path)
        self._log = LogReader(self._source, self.name, whole=True)

    def batches(self) -> Iterator[list[Record]]:
        self.end = None
        self.skipped = self._log.skipped
        for batch in self._log.batches():
            yield [Record(entry.frame, entry.interface, entry.sent) for entry in batch]
        self.end = self._source.fault or self._log.end


class CsvWriter(SinkWriter):
    """The table that python-can writes, with all nine digits of a time."""

    def __init__(
        self, path: Path, *, compressed: bool, holds: Holds, metadata: Mapping[str, str]
    ) -> None:
        del metadata
        super().__init__(path, compressed=compressed, holds=holds)
        self._sink.binary.write(f"{_HEADER}\n".encode())

    def _write(self, records: Sequence[Record]) -> None:
        rows = [_row(record.frame) for record in records]
        self._sink.binary.write(("\n".join(rows) + "\n").encode())


def _row(frame: Frame) -> str:
    seconds, rest = divmod(frame.timestamp_ns, clock.SECOND)
    flags, data = frame.flags, frame.data
    is_remote = isinstance(data, int)
    text = "" if isinstance(data, int) else b64encode(data).decode()
    length = data if isinstance(data, int) else len(data)
    kinds = f"{flags & EXTENDED},{is_remote:d},{bool(flags & ERROR):d}"
    return f"{seconds}.{rest:09},{frame.arbitration_id:#x},{kinds},{length},{text}"


class CsvReader(RecordReader):
    """The table that python-can writes."""

    def _records(self, skipped: Skipped) -> Iterator[Record]:
        header = self._source.readline(_MAX_ROW).decode("utf-8-sig", errors="replace").strip()
        if header != _HEADER:
            raise CanInitializationError(
                f"{self.name}, line 1: expected the header {_HEADER}, got {quoted(header, 80)}"
            )
        number, line = 1, b""
        while line := self._source.readline(_MAX_ROW):
            number += 1
            text = line.decode(errors="replace").strip()
            try:
                yield Record(_frame(text), "")
            except ValueError as error:
                if not line.endswith(b"\n") and len(line) < _MAX_ROW:
                    self.end = f"cut off in line {number}"
                elif text:
                    skipped.add("damaged lines", f"line {number}: {quoted(text, 60)}: {error}")


def _frame(text: str) -> Frame:
    """The frame of a row.

    :raises ValueError: the row has another form, or no such frame can exist.
    """
    fields = text.split(",")
    if len(fields) != 7:
        raise ValueError(f"{len(fields)} fields instead of 7")
    stamp, identifier, extended, remote, error, dlc, encoded = fields
    match = _SECONDS.fullmatch(stamp)
    if match is None:
        raise ValueError(f"{stamp!r} is not a time in seconds")
    if {extended, remote, error} - {"0", "1"}:
        raise ValueError("extended, remote and error must be 0 or 1")
    seconds, fraction = match[1], (match[2] or "").ljust(9, "0")
    return frame_of(
        int(seconds) * clock.SECOND + int(fraction),
        int(identifier, 16),
        extended == "1",
        remote == "1",
        error == "1",
        int(dlc),
        b64decode(encoded, validate=True),
    )
