"""MF4 by asammdf, many records at a time: python-can's writer makes one call for each."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
from asammdf import MDF, Signal, Source

from canbroker.logs.channel_numbers import ChannelNumbers
from canbroker.logs.files import Sink
from canbroker.logs.losses import EARLIER, Holds
from canbroker.logs.mf4_rows import BITS, DATA, ERRORS, GROUPS, REMOTES
from canbroker.logs.records import Record
from canbroker.logs.streams import Writer
from canbroker.model.frame import ERROR, REMOTE, length_to_dlc
from canbroker.system import clock

#: Rows of a group that are handed to asammdf together.
_TOGETHER: Final = 1 << 16

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


def _row_type(group: str) -> np.dtype[Any]:
    fields = _REMOTE_FIELDS if group == GROUPS[REMOTES] else _FIELDS
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
        for group in GROUPS:
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
            group = ERRORS if flags & ERROR else REMOTES if flags & REMOTE else DATA
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
        name = GROUPS[group]
        rows = np.zeros(len(records), dtype=_row_type(name))
        contents = [record.frame.data for record in records]
        sizes = [data if isinstance(data, int) else len(data) for data in contents]
        rows[f"{name}.BusChannel"] = [self._numbers.number(record.channel) for record in records]
        rows[f"{name}.ID"] = [record.frame.arbitration_id for record in records]
        rows[f"{name}.DLC"] = [length_to_dlc(size) for size in sizes]
        rows[f"{name}.Dir"] = [record.sent for record in records]
        flags = np.array([record.frame.flags for record in records], dtype="<u2")
        for field, bit in BITS.items():
            if f"{name}.{field}" in (rows.dtype.names or ()):
                rows[f"{name}.{field}"] = (flags & bit) != 0
        if group != REMOTES:
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
            for group in range(len(GROUPS)):
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
