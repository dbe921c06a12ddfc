"""Decoded signals of recordings, a table for each channel, message and day; by cantools."""

from __future__ import annotations

import logging
import re
from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

from cantools.database import Message

from canbroker.logs.formats import FORMATS
from canbroker.logs.records import Record
from canbroker.logs.signal_tables import Column, CsvTable, ParquetTable, Table
from canbroker.model.frame import ERROR, REMOTE, Frame
from canbroker.signals.decoder import UNDECODABLE, Decoder
from canbroker.system import clock
from canbroker.system.closing import Closing

#: Each has a file open, of which a process may have 1,024.
_OPEN_TABLES: Final = 128

_DAY_NS: Final = 24 * 3600 * clock.SECOND

#: At most this many kinds of messages are named in a report.
_NAMED: Final = 5

_log = logging.getLogger(__name__)


def columns_of(message: Message) -> list[Column]:
    """The columns of a message's table, but for the time."""
    columns = [
        Column(
            signal.name,
            _type_of(signal),
            signal.unit or "",
            {int(number): str(name) for number, name in (signal.choices or {}).items()},
        )
        for signal in message.signals
    ]
    if message.protocol == "j1939":
        columns.insert(0, Column(SOURCE_ADDRESS, "int", "", {}))
    return columns


SOURCE_ADDRESS: Final = "source_address"


def _type_of(signal: Any) -> Literal["int", "unsigned", "float"]:
    """What holds all values: whole numbers where the conversion gives no others."""
    scale, offset = signal.scale, signal.offset
    if signal.conversion.is_float or not (float(scale).is_integer() and float(offset).is_integer()):
        return "float"
    raw = (1 << signal.length - signal.is_signed) - 1
    ends = [int(scale) * each + int(offset) for each in (raw, -raw - 1 if signal.is_signed else 0)]
    if min(ends) >= -(1 << 63) and max(ends) < 1 << 63:
        return "int"
    return "unsigned" if min(ends) >= 0 and max(ends) < 1 << 64 else "float"


class _Key(NamedTuple):
    channel: str
    message: str
    day: int  # since 1970


class Lake(Closing):
    """A directory with a file for each channel, message and day. One thread."""

    def __init__(
        self, directory: Path, stem: str, kind: Literal["parquet", "csv"], decoder: Decoder
    ) -> None:
        """
        :param stem: the beginning of the files' names.
        :raises CanInitializationError: a package is missing.
        """
        FORMATS[kind].check_installed()
        #: Frames that did not become a row, by reason.
        self.left: Counter[str] = Counter()
        self.rows = 0
        self._undecoded: Counter[str] = Counter()
        self._unknown: set[int] = set()
        self._directory = directory
        self._stem = stem
        self._table: type[Table] = CsvTable if kind == "csv" else ParquetTable
        self._suffix = kind
        self._decoder = decoder
        self._tables: OrderedDict[_Key, Table] = OrderedDict()
        self._parts: Counter[_Key] = Counter()
        self.files = 0

    def write(self, records: Sequence[Record]) -> None:
        """Decodes records and adds their rows.

        :raises OSError: a file cannot be written.
        """
        for record in records:
            frame = record.frame
            if frame.flags & (ERROR | REMOTE):
                self.left["error and remote frames"] += 1
                continue
            message = self._decoder.message(frame)
            if message is None:
                self.left["frames that the database does not have"] += 1
                self._unknown.add(frame.arbitration_id)
                continue
            values = self._decoded(message, frame)
            if values is not None:
                key = _Key(record.channel, message.name, frame.timestamp_ns // _DAY_NS)
                self._open(key, message).add(frame.timestamp_ns, values)
                self.rows += 1

    def report(self) -> list[str]:
        """What there is to say about the whole, in lines."""
        lines = [f"{self.rows:,} rows in {self.files:,} files in {self._directory}"]
        if self.left:
            reasons = ", ".join(f"{kind} ({count:,})" for kind, count in self.left.items())
            lines.append(f"not decoded: {reasons}")
        if self._undecoded:
            named = self._undecoded.most_common(_NAMED)
            kinds = ", ".join(f"{name} ({count:,})" for name, count in named)
            lines.append(f"did not decode by {self._decoder.name}: {kinds}")
        return lines

    def close(self) -> None:
        """Completes all files; can be called again.

        :raises OSError: one of them could not be completed; all are closed.
        """
        fault: OSError | None = None
        while self._tables:
            try:
                self._tables.popitem()[1].close()
            except OSError as error:
                fault = error
        if fault is not None:
            raise fault

    def _decoded(self, message: Message, frame: Frame) -> Mapping[str, Any] | None:
        """The signals' values, or ``None``, counted, if the data is not that of the message."""
        try:
            values: Any = message.decode(bytes(frame.data), decode_choices=False)
        except UNDECODABLE as error:
            if not self._undecoded[message.name]:
                _log.info("%s does not decode: %s", message.name, error)
            self._undecoded[message.name] += 1
            self.left["frames whose data is not that of their message"] += 1
            return None
        if not isinstance(values, dict):  # of a container: a list of messages
            self.left["frames with several messages"] += 1
            return None
        if message.protocol == "j1939":
            values[SOURCE_ADDRESS] = frame.arbitration_id & 0xFF
        return values

    def _open(self, key: _Key, message: Message) -> Table:
        table = self._tables.get(key)
        if table is not None:
            self._tables.move_to_end(key)
            return table
        if len(self._tables) == _OPEN_TABLES:
            self._tables.popitem(last=False)[1].close()
        day = date.fromordinal(datetime.fromtimestamp(0, UTC).toordinal() + key.day)
        name = "_".join(filter(None, (_safe(key.channel), _safe(message.name))))
        folder = self._directory / name / f"{day:%Y}" / f"{day:%m}" / f"{day:%d}"
        folder.mkdir(parents=True, exist_ok=True)
        part = self._parts[key]
        self._parts[key] += 1
        stem = f"{self._stem}_{part}" if part else self._stem
        about = {
            "channel": key.channel,
            "message": message.name,
            "frame_id": f"{message.frame_id:#x}",
            "database": self._decoder.name,
        }
        table = self._table(folder / f"{stem}.{self._suffix}", columns_of(message), about)
        self._tables[key] = table
        self.files += 1
        return table


def _safe(name: str) -> str:
    """A name without what a file's name cannot have."""
    return re.sub(r"[^\w.-]", "_", name)
