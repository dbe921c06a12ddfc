"""MF4 by asammdf, many records at a time: python-can's writer makes one call for each.

The groups and their fields are those of ASAM's standard for bus logging, as python-can has them.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from operator import itemgetter
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from asammdf import MDF, Signal, Source
from asammdf.blocks.v4_constants import FLAG_HD_LOCAL_TIME

from canbroker.errors import CanInitializationError
from canbroker.logs.channel_numbers import ChannelNumbers
from canbroker.logs.files import Sink, unreadable
from canbroker.logs.losses import EARLIER, Holds
from canbroker.logs.records import Record, Skipped, check_time, error_flags, gathered, valid_frame
from canbroker.logs.streams import Reader, Writer
from canbroker.model.frame import (
    BITRATE_SWITCH,
    ERROR,
    ERROR_STATE_INDICATOR,
    EXTENDED,
    FD,
    REMOTE,
    length_to_dlc,
)
from canbroker.system import clock

#: Rows of a group that are handed to asammdf together.
_TOGETHER: Final = 1 << 16

#: Rows that are read from a group at once.
_READ: Final = 1 << 14

_FIELDS: Final = (
    ("BusChannel", "<u1"),
    ("ID", "<u4"),
    ("IDE", "<u1"),
    ("DLC", "<u1"),
    ("DataLength", "<u1"),
    ("DataBytes", "(64,)u1"),
    ("Dir", "<u1"),
    ("EDL", "<u1"),
    ("BRS", "<u1"),
    ("ESI", "<u1"),
)
_REMOTE_FIELDS: Final = tuple(
    field for field in _FIELDS if field[0] not in {"DataBytes", "EDL", "BRS", "ESI"}
)

_GROUPS: Final = ("CAN_DataFrame", "CAN_ErrorFrame", "CAN_RemoteFrame")
_DATA, _ERRORS, _REMOTES = range(3)

#: The fields that are bits of a frame's flags.
_BITS: Final[Mapping[str, int]] = {
    "IDE": EXTENDED,
    "EDL": FD,
    "BRS": BITRATE_SWITCH,
    "ESI": ERROR_STATE_INDICATOR,
}


def _row_type(group: str) -> np.dtype[Any]:
    fields = _REMOTE_FIELDS if group == _GROUPS[_REMOTES] else _FIELDS
    return np.dtype([(f"{group}.{name}", kind) for name, kind in fields])


class Mf4Writer(Writer):
    """Rows go into a temporary file of asammdf's, and into the file itself when it is closed."""

    def __init__(
        self, path: Path, *, compressed: bool, holds: Holds, metadata: Mapping[str, str]
    ) -> None:
        """:raises OSError: the file cannot be created."""
        del compressed  # by deflate, always
        super().__init__(holds, metadata)
        self._numbers = ChannelNumbers()
        self._start_ns: int | None = None
        self._rows_size = 0
        self._waiting: tuple[list[Record], ...] = ([], [], [])
        self._file: Any = MDF(version="4.11")
        for group in _GROUPS:
            self._file.append(
                Signal(
                    name=group,
                    samples=np.array([], dtype=_row_type(group)),
                    timestamps=np.array([], dtype="<f8"),
                    source=Source("CAN", "CAN", "", Source.SOURCE_BUS, Source.BUS_TYPE_CAN),
                )
            )
        try:
            self._sink = Sink(path, compressed=False)
        except OSError:
            self._file.close()
            raise

    def _write(self, records: Sequence[Record]) -> None:
        if self._start_ns is None:
            first_ns = records[0].frame.timestamp_ns
            self._start_ns = first_ns - first_ns % clock.MILLISECOND  # as in BLF and ASC
        for record in records:
            flags = record.frame.flags
            group = _ERRORS if flags & ERROR else _REMOTES if flags & REMOTE else _DATA
            self._waiting[group].append(record)
            self._numbers.number(record.channel)  # in the order in which channels appear
        for group, waiting in enumerate(self._waiting):
            if len(waiting) >= _TOGETHER:
                self._hand_over(group)

    def _hand_over(self, group: int) -> None:
        records = self._waiting[group]
        if not records:
            return
        start_ns = self._start_ns or 0
        times = [record.frame.timestamp_ns - start_ns for record in records]
        self.losses.add(EARLIER, sum(since_ns < 0 for since_ns in times))
        rows = self._rows(group, records)
        self._rows_size += rows.nbytes
        stamps = np.maximum(np.array(times, dtype="<i8"), 0) / clock.SECOND
        self._file.extend(group, [(stamps, None), (rows, None)])
        records.clear()

    def _rows(self, group: int, records: Sequence[Record]) -> np.ndarray[Any, Any]:
        name = _GROUPS[group]
        rows = np.zeros(len(records), dtype=_row_type(name))
        contents = [record.frame.data for record in records]
        sizes = [data if isinstance(data, int) else len(data) for data in contents]
        rows[f"{name}.BusChannel"] = [self._numbers.number(record.channel) for record in records]
        rows[f"{name}.ID"] = [record.frame.arbitration_id for record in records]
        rows[f"{name}.DLC"] = [length_to_dlc(size) for size in sizes]
        rows[f"{name}.Dir"] = [record.sent for record in records]
        flags = np.array([record.frame.flags for record in records], dtype="<u2")
        for field, bit in _BITS.items():
            if f"{name}.{field}" in (rows.dtype.names or ()):
                rows[f"{name}.{field}"] = (flags & bit) != 0
        if group != _REMOTES:
            rows[f"{name}.DataLength"] = sizes
            padded = b"".join(bytes(data).ljust(64, b"\0") for data in contents)
            rows[f"{name}.DataBytes"] = np.frombuffer(padded, dtype="u1").reshape(-1, 64)
        return rows

    @property
    def size(self) -> int:
        """Bytes of all rows, before they are compressed."""
        return self._rows_size

    def sync(self) -> None:
        """Writes nothing: the file cannot be read before it is closed."""

    def close(self) -> None:
        if self._file is None:
            return
        file = self._file
        try:
            for group in range(len(_GROUPS)):
                self._hand_over(group)
            start_ns = time.time_ns() if self._start_ns is None else self._start_ns
            file.header.start_time = datetime.fromtimestamp(start_ns / clock.SECOND, UTC)
            file.header.abs_time = start_ns  # not rounded by floating point
            comment = "\n".join(f"{key}: {value}" for key, value in self.metadata.items())
            file.header.comment = comment
            file.save(self._sink.binary, compression=2)
        finally:
            self._file = None
            file.close()
            self._sink.close()


class _Group(NamedTuple):
    """A group of frames in a file: its number, and which kind it has."""

    number: int
    kind: int
    rows: int


class Mf4Reader(Reader):
    """Files with bus logging, of loggers and of tools. What is not CAN is not read."""

    def __init__(self, path: Path) -> None:
        """:raises CanInitializationError: the file cannot be read."""
        super().__init__(str(path))
        self._done = 0
        try:
            path.open("rb").close()
            self._file: Any = MDF(path)
        except OSError as error:
            raise unreadable(self.name, error) from error
        except Exception as error:  # noqa: BLE001 - asammdf checks little, and fails anyhow
            raise CanInitializationError(
                f"{self.name} is not an MF4 file, or was cut off: {error}"
            ) from None
        header = self._file.header
        self._start_ns = int(header.abs_time)
        if header.time_flags & FLAG_HD_LOCAL_TIME:
            self._start_ns = round(header.start_time.timestamp() * clock.SECOND)
        self._groups = list(_groups(self._file))

    @property
    def progress(self) -> tuple[int, int | None]:
        """In rows."""
        return self._done, sum(group.rows for group in self._groups)

    def close(self) -> None:
        self._file.close()

    def batches(self) -> Iterator[list[Record]]:
        self.skipped, self.end, self._done = Skipped(), None, 0
        skipped = self.skipped
        rows = heapq.merge(
            *(self._rows(group, skipped) for group in self._groups), key=itemgetter(0)
        )
        yield from gathered(record for _, record in rows)

    def _rows(self, group: _Group, skipped: Skipped) -> Iterator[tuple[int, Record]]:
        """The records of a group, each with its time."""
        name = _GROUPS[group.kind]
        for start in range(0, group.rows, _READ):
            try:
                signal = self._file.get(
                    name,
                    group=group.number,
                    record_offset=start,
                    record_count=_READ,
                    raw=False,
                )
                columns = _columns(signal, name, group.kind)
            except Exception as error:  # noqa: BLE001 - see above
                self.end = f"damaged after row {start} of group {group.number}: {error}"
                return
            times_ns = self._start_ns + np.rint(signal.timestamps * clock.SECOND).astype("<i8")
            for number, row in enumerate(zip(times_ns.tolist(), *columns, strict=True)):
                self._done += 1
                try:
                    yield row[0], _record(group.kind, *row)
                except ValueError as error:
                    skipped.add("impossible frames", f"row {start + number} of {name}: {error}")


def _groups(file: Any) -> Iterator[_Group]:
    for number, group in enumerate(file.groups):
        names = {channel.name for channel in group.channels}
        for kind, name in enumerate(_GROUPS):
            if name in names and group.channel_group.cycles_nr:
                yield _Group(number, kind, int(group.channel_group.cycles_nr))


def _columns(signal: Any, name: str, kind: int) -> list[list[Any]]:
    """Channel, identifier, flags, direction, and data or length, of each row."""
    samples, count = signal.samples, len(signal.samples)
    fields = {full.removeprefix(f"{name}."): samples[full] for full in samples.dtype.names or ()}

    def numbers(field: str) -> Any:
        return fields[field].astype("<i8") if field in fields else np.zeros(count, dtype="<i8")

    flags = np.zeros(count, dtype="<i8")
    for field, bit in _BITS.items():
        flags |= np.where(numbers(field) != 0, bit, 0)
    direction = fields.get("Dir", np.zeros(count, dtype="u1"))
    sent = direction == b"Tx" if direction.dtype.kind == "S" else direction.astype("<i8") == 1
    if kind == _REMOTES or "DataBytes" not in fields:
        contents: list[Any] = numbers("DLC").tolist()
    else:
        sizes = numbers("DataLength").tolist()
        whole = fields["DataBytes"].tolist()
        contents = [bytes(data[:size]) for data, size in zip(whole, sizes, strict=True)]
    channels = fields["BusChannel"].tolist() if "BusChannel" in fields else [""] * count
    return [channels, numbers("ID").tolist(), flags.tolist(), sent.tolist(), contents]


def _record(
    kind: int,
    timestamp_ns: int,
    channel: object,
    number: int,
    flags: int,
    sent: bool,
    content: bytes | int,
) -> Record:
    """:raises ValueError: no such frame can exist."""
    number &= 0x1FFFFFFF  # the highest bit may say that it is an extended one
    if kind == _ERRORS:
        flags = error_flags(number)
        content = b"" if isinstance(content, int) else content
    elif kind == _REMOTES:
        flags = flags & EXTENDED | REMOTE
    check_time(timestamp_ns)
    return Record(valid_frame(timestamp_ns, number, flags, content), str(channel), sent)
