"""Reads an MF4 file by asammdf, in a process of its own: its C code trusts what it reads, and can
crash on a damaged file, or go round for ever.

``python -m canbroker.logs.mf4_reading FILE`` tells the file's rows on standard output, once for
each line that it gets.
"""

from __future__ import annotations

import heapq
import os
import sys
from collections.abc import Iterator
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from asammdf import MDF
from asammdf.blocks.v4_constants import FLAG_HD_LOCAL_TIME

from canbroker.logs.mf4_rows import BITS, GROUPS, REMOTES, End, Opened, Refused, Row, Rows, tell
from canbroker.logs.records import AT_ONCE
from canbroker.system import clock
from canbroker.system.descriptors import is_closed_pipe
from canbroker.system.memory import limit_memory

#: Rows that are read from a group at once.
_READ: Final = 1 << 14

#: A damaged length must not take all memory.
_MEMORY: Final = 8 << 30


class _Group(NamedTuple):
    """A group of frames in a file: its number, and which kind it has."""

    number: int
    kind: int
    rows: int


class _File:
    """:raises Exception: asammdf checks little, and fails anyhow."""

    def __init__(self, path: Path) -> None:
        self._file: Any = MDF(path)
        header = self._file.header
        self._start_ns = int(header.abs_time)
        if header.time_flags & FLAG_HD_LOCAL_TIME:
            self._start_ns = round(header.start_time.timestamp() * clock.SECOND)
        self._groups = list(_groups(self._file))
        self.count = sum(group.rows for group in self._groups)
        self.fault: str | None = None  # of the last reading

    def rows(self) -> Iterator[Row]:
        """All rows, in order of time."""
        self.fault = None
        return heapq.merge(*map(self._rows, self._groups), key=itemgetter(0))

    def _rows(self, group: _Group) -> Iterator[Row]:
        name = GROUPS[group.kind]
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
                self.fault = f"damaged after row {start} of group {group.number}: {error}"
                return
            times_ns = self._start_ns + np.rint(signal.timestamps * clock.SECOND).astype("<i8")
            for number, row in enumerate(zip(times_ns.tolist(), *columns, strict=True), start):
                yield row[0], group.kind, number, *row[1:]


def _groups(file: Any) -> Iterator[_Group]:
    for number, group in enumerate(file.groups):
        names = {channel.name for channel in group.channels}
        for kind, name in enumerate(GROUPS):
            if name in names and group.channel_group.cycles_nr:
                yield _Group(number, kind, int(group.channel_group.cycles_nr))


def _columns(signal: Any, name: str, kind: int) -> list[list[Any]]:
    """Channel, identifier, flags, direction, and data or length, of each row."""
    samples, count = signal.samples, len(signal.samples)
    fields = {full.removeprefix(f"{name}."): samples[full] for full in samples.dtype.names or ()}

    def numbers(field: str) -> Any:
        if field not in fields:
            return np.zeros(count, dtype="<i8")
        return fields[field].astype("<i8").reshape(count)  # of a damaged file it may have more

    flags = np.zeros(count, dtype="<i8")
    for field, bit in BITS.items():
        flags |= np.where(numbers(field) != 0, bit, 0)
    direction = fields.get("Dir", np.zeros(count, dtype="u1"))
    sent = direction == b"Tx" if direction.dtype.kind == "S" else direction.astype("<i8") == 1
    if kind == REMOTES or "DataBytes" not in fields:
        contents: list[Any] = numbers("DLC").tolist()
    else:
        sizes = numbers("DataLength").tolist()
        whole = fields["DataBytes"].tolist()
        contents = [bytes(data[:size]) for data, size in zip(whole, sizes, strict=True)]
    channels = (
        [str(channel) for channel in fields["BusChannel"].tolist()]
        if "BusChannel" in fields
        else [""] * count
    )
    return [channels, numbers("ID").tolist(), flags.tolist(), sent.tolist(), contents]


def main(path: Path) -> None:
    """Tells, until nobody listens.

    :raises OSError: in the middle of it; see :func:`is_closed_pipe`.
    """
    with os.fdopen(os.dup(sys.stdout.fileno()), "wb") as output:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # for what asammdf may print
        try:
            limit_memory(_MEMORY + 2 * path.stat().st_size)
            file = _File(path)
        except Exception as error:  # noqa: BLE001 - see above
            tell(output, Refused(str(error)))
            return
        tell(output, Opened(file.count))
        for _ in sys.stdin:
            rows = file.rows()
            while batch := list(islice(rows, AT_ONCE)):
                tell(output, Rows(batch))
            tell(output, End(file.fault))


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]))
    except OSError as error:
        if not is_closed_pipe(error):
            raise
