"""Tables of decoded signals as files: Parquet, or CSV."""

from __future__ import annotations

import csv
import io
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

from canbroker.logs.files import Sink
from canbroker.system import clock

#: Rows that are gathered before they are written, so that many tables fit the memory.
_TOGETHER: Final = 4096

TIME: Final = "t"


class Column(NamedTuple):
    """A signal. ``names`` are those of its values, if it is an enumeration."""

    name: str
    kind: Literal["int", "unsigned", "float"]
    unit: str
    names: Mapping[int, str]


class Table(ABC):
    """Writes rows of one message. The file has its name when it is complete."""

    def __init__(self, path: Path, columns: Sequence[Column], about: Mapping[str, str]) -> None:
        """
        :param about: what the file says about itself, if it can.
        :raises OSError: the file cannot be created.
        """
        self._path = path
        self._part = path.with_name(f"{path.name}.part")
        self._sink = Sink(self._part, compressed=False)
        self._columns = columns
        self._times: list[int] = []
        self._rows: list[Mapping[str, Any]] = []
        self._failed = False
        self._begin(about)

    def add(self, timestamp_ns: int, values: Mapping[str, Any]) -> None:
        """Adds a row; columns without a value stay empty.

        :raises OSError: the file system is at fault.
        """
        self._times.append(timestamp_ns)
        self._rows.append(values)
        if len(self._rows) == _TOGETHER:
            self._hand_over()

    def close(self) -> None:
        """Completes the file.

        :raises OSError: it could not be completed; it is closed all the same, and removed.
        """
        try:
            try:
                self._hand_over()
                if not self._failed:
                    self._finish()
            finally:
                self._sink.close()
            if not self._failed:
                self._part.replace(self._path)
        finally:
            self._part.unlink(missing_ok=True)

    def _hand_over(self) -> None:
        if not self._rows or self._failed:
            return
        self._failed = True  # until it has succeeded: nothing can follow a failure
        self._put(self._times, self._rows)
        self._failed = False
        self._times, self._rows = [], []

    @abstractmethod
    def _begin(self, about: Mapping[str, str]) -> None:
        """Begins the file."""

    @abstractmethod
    def _put(self, times_ns: Sequence[int], rows: Sequence[Mapping[str, Any]]) -> None:
        """Writes rows."""

    @abstractmethod
    def _finish(self) -> None:
        """Writes what completes the file."""


class ParquetTable(Table):
    """Numbers; units and the names of values are in the metadata of their columns."""

    def _begin(self, about: Mapping[str, str]) -> None:
        import pyarrow as pa  # noqa: PLC0415 - CSV does not need it
        import pyarrow.parquet as pq  # noqa: PLC0415

        kinds = {"int": pa.int64(), "unsigned": pa.uint64(), "float": pa.float64()}
        fields = [pa.field(TIME, pa.timestamp("ns", tz="UTC"))]
        for column in self._columns:
            metadata = {"unit": column.unit} if column.unit else {}
            if column.names:
                metadata["values"] = json.dumps(column.names)
            fields.append(pa.field(column.name, kinds[column.kind], metadata=metadata or None))
        self._pa: Any = pa
        self._schema: Any = pa.schema(fields, metadata=dict(about))
        self._writer: Any = pq.ParquetWriter(self._sink.binary, self._schema, compression="zstd")

    def _put(self, times_ns: Sequence[int], rows: Sequence[Mapping[str, Any]]) -> None:
        pa = self._pa
        time, *signals = self._schema
        columns = [
            pa.array(times_ns, pa.int64()).cast(time.type),
            *(pa.array([row.get(field.name) for row in rows], field.type) for field in signals),
        ]
        self._writer.write_table(pa.Table.from_arrays(columns, schema=self._schema))

    def _finish(self) -> None:
        self._writer.close()


class CsvTable(Table):
    """Texts; units are in the headers of their columns, and values that have a name are it."""

    def _begin(self, about: Mapping[str, str]) -> None:
        del about
        headers = [
            f"{each.name} [{each.unit}]" if each.unit else each.name for each in self._columns
        ]
        self._write([[TIME, *headers]])

    def _put(self, times_ns: Sequence[int], rows: Sequence[Mapping[str, Any]]) -> None:
        self._write(
            [_iso(time_ns), *(_text(column, row.get(column.name)) for column in self._columns)]
            for time_ns, row in zip(times_ns, rows, strict=True)
        )

    def _write(self, lines: Any) -> None:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(lines)
        self._sink.binary.write(text.getvalue().encode())

    def _finish(self) -> None:
        """Nothing is missing."""


def _text(column: Column, value: Any) -> Any:
    return column.names.get(value, value) if column.names else value


def _iso(time_ns: int) -> str:
    seconds, rest = divmod(time_ns, clock.SECOND)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09}Z"
