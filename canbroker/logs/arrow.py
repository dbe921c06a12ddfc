"""Arrow and Parquet, which pandas, polars, duckdb and data lakes read; by pyarrow.

Arrow's stream is what a killed process leaves readable: batches follow each other, each complete.
The file format adds a footer, without which only a reader of streams can read it, such as ours.
Parquet cannot be read without its footer.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

import pyarrow as pa
import pyarrow.parquet as pq

from canbroker.errors import CanInitializationError
from canbroker.logs.arrow_batches import COLUMNS, NAMES, BatchMaker
from canbroker.logs.arrow_rows import record, texts_of
from canbroker.logs.files import unreadable
from canbroker.logs.losses import Holds
from canbroker.logs.records import AT_ONCE, Record, Skipped
from canbroker.logs.streams import Reader, SinkWriter

#: Without these, a table has no frames.
_NEEDED: Final = ("timestamp", "arbitration_id", "data")

# --------------------------------------------------------------------------------------- writing


class _TableWriter(SinkWriter):
    """Gathers records into batches of ``together`` rows."""

    together: ClassVar[int]

    def __init__(self, path: Path, holds: Holds, metadata: Mapping[str, str]) -> None:
        """:raises OSError: the file cannot be created."""
        super().__init__(path, compressed=False, holds=holds, metadata=metadata)
        self._maker = BatchMaker(self.metadata)
        self._schema = self._maker.schema
        self._gathered: list[pa.RecordBatch] = []
        self._rows = 0
        self._closed = False

    @abstractmethod
    def _put(self, batches: Sequence[pa.RecordBatch]) -> None:
        """Writes rows, as one batch or group."""

    @abstractmethod
    def _finish(self) -> None:
        """Completes the file."""

    def _write(self, records: Sequence[Record]) -> None:
        self._gathered.append(self._maker.batch(records))
        self._rows += len(records)
        if self._rows >= self.together:
            self._hand_over()

    def _hand_over(self) -> None:
        if self._gathered:
            batches, self._gathered, self._rows = self._gathered, [], 0
            self._put(batches)

    @property
    def size(self) -> int:
        gathered: int = sum(batch.nbytes for batch in self._gathered)
        return super().size + gathered

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        try:
            self._hand_over()
            self._finish()
        finally:
            super().close()


class ArrowStreamWriter(_TableWriter):
    """Arrow's stream, compressed by zstd. Metadata that comes late is in an empty last batch."""

    together = 4096

    def __init__(
        self, path: Path, *, compressed: bool, holds: Holds, metadata: Mapping[str, str]
    ) -> None:
        """:raises OSError: the file cannot be created."""
        del compressed  # by zstd, always
        super().__init__(path, holds, metadata)
        options = pa.ipc.IpcWriteOptions(compression="zstd", emit_dictionary_deltas=True)
        self._begun = dict(self.metadata)
        self._writer = self._opened(options)

    def _opened(self, options: Any) -> Any:
        return pa.ipc.new_stream(self._sink.binary, self._schema, options=options)

    def _put(self, batches: Sequence[pa.RecordBatch]) -> None:
        table = pa.Table.from_batches(batches).unify_dictionaries().combine_chunks()
        for batch in table.to_batches():
            self._writer.write_batch(batch)

    def sync(self) -> None:
        self._hand_over()
        super().sync()

    def _finish(self) -> None:
        if self.metadata != self._begun:
            empty = self._maker.batch([])
            self._writer.write_batch(empty, custom_metadata=self.metadata)
        self._writer.close()


class ArrowFileWriter(ArrowStreamWriter):
    """Arrow's file, as ``pandas.read_feather`` and ``polars.read_ipc`` take it."""

    def _opened(self, options: Any) -> Any:
        return pa.ipc.new_file(self._sink.binary, self._schema, options=options)


class ParquetWriter(_TableWriter):
    """Parquet, compressed by zstd, in groups of rows of which each can be read alone."""

    together = 1 << 17

    def __init__(
        self, path: Path, *, compressed: bool, holds: Holds, metadata: Mapping[str, str]
    ) -> None:
        """:raises OSError: the file cannot be created."""
        del compressed
        super().__init__(path, holds, metadata)
        self._writer = pq.ParquetWriter(self._sink.binary, self._schema, compression="zstd")

    def _put(self, batches: Sequence[pa.RecordBatch]) -> None:
        table = pa.Table.from_batches(batches).unify_dictionaries()
        self._writer.write_table(table, row_group_size=table.num_rows)

    # sync() writes no rows: without its footer, the file cannot be read in any case.

    def _finish(self) -> None:
        self._writer.add_key_value_metadata(self.metadata)
        self._writer.close()


# --------------------------------------------------------------------------------------- reading


class _TableReader(Reader):
    """Reads tables batch by batch; other tools may have written them, with fewer columns."""

    def __init__(self, path: Path) -> None:
        """:raises CanInitializationError: the file cannot be read."""
        super().__init__(str(path))
        self._path = path
        self._row = 0
        try:
            self._file = pa.OSFile(str(path), "rb")
            self._size = path.stat().st_size
        except OSError as error:
            raise unreadable(self.name, error) from error

    @property
    def progress(self) -> tuple[int, int | None]:
        return self._file.tell(), self._size

    def close(self) -> None:
        self._file.close()

    @abstractmethod
    def _tables(self) -> Iterator[pa.RecordBatch]:
        """Yields batches from the file's start.

        :raises ArrowException: the file is damaged from here on.
        """

    def batches(self) -> Iterator[list[Record]]:
        self.skipped, self.end, self._row = Skipped(), None, 0
        skipped = self.skipped
        tables = self._tables()
        is_first = True
        while True:
            try:
                table = next(tables, None)
                if table is not None:
                    table.validate(full=True)  # else damaged offsets crash what uses them
                    if is_first:
                        self._check(table.schema.names)
            except (pa.ArrowException, OSError, ValueError) as error:
                if is_first:
                    raise CanInitializationError(f"cannot read {self.name}: {error}") from None
                self.end = f"cut off or damaged after row {self._row}: {error}"
                return
            if table is None:
                return
            is_first = False
            for start in range(0, table.num_rows, AT_ONCE):
                part = table.slice(start, AT_ONCE)
                if batch := self._records(part, skipped):
                    yield batch
                self._row += part.num_rows

    def _check(self, columns: Sequence[str]) -> None:
        """:raises CanInitializationError: the table has no frames."""
        missing = [name for name in _NEEDED if name not in columns]
        if missing:
            raise CanInitializationError(
                f"{self.name} has no column {missing[0]!r}; it has: {', '.join(columns)}"
            )

    def _records(self, table: pa.RecordBatch, skipped: Skipped) -> list[Record]:
        """:raises CanInitializationError: a column has another type."""
        columns = [self._values(table, name) for name in COLUMNS]
        records: list[Record] = []
        for number, row in enumerate(zip(*columns, strict=True)):
            try:
                records.append(record(*row))
            except ValueError as error:
                skipped.add("impossible rows", f"row {self._row + number}: {error}")
        return records

    def _values(self, table: pa.RecordBatch, name: str) -> list[Any]:
        if name not in table.schema.names:
            return [None] * table.num_rows
        column, kind = table.column(name), COLUMNS[name][0]
        try:
            if kind == NAMES:
                return texts_of(column)
            if name == "timestamp":
                column = column.cast(pa.timestamp("ns", tz=column.type.tz)).cast(pa.int64())
            elif column.type != kind:
                column = column.cast(kind)
        except (pa.ArrowException, AttributeError, TypeError, ValueError) as error:
            raise CanInitializationError(f"{self.name}, column {name!r}: {error}") from None
        values: list[Any] = column.to_pylist()
        return values


def _texts(metadata: Mapping[bytes, bytes] | None) -> dict[str, str]:
    """Metadata but for what belongs to Arrow or pandas."""
    return {
        key.decode(errors="replace"): value.decode(errors="replace")
        for key, value in (metadata or {}).items()
        if not key.startswith((b"ARROW:", b"pandas", b"canbroker.schema"))
    }


class ArrowReader(_TableReader):
    """Arrow's stream or file, which may lack its footer."""

    def _tables(self) -> Iterator[pa.RecordBatch]:
        self._file.seek(0)
        magic = self._file.read(8)
        is_file = magic == b"ARROW1\0\0"
        if is_file and self._has_footer():
            yield from self._of_file()
            return
        self._file.seek(8 if is_file else 0)
        reader = pa.ipc.open_stream(self._file)
        self.metadata = _texts(reader.schema.metadata)
        while True:
            try:
                batch, late = reader.read_next_batch_with_custom_metadata()
            except StopIteration:
                return
            self._note(late)
            yield batch

    def _has_footer(self) -> bool:
        if self._size < 24:
            return False
        self._file.seek(self._size - 6)
        return bool(self._file.read(6) == b"ARROW1")

    def _of_file(self) -> Iterator[pa.RecordBatch]:
        reader = pa.ipc.open_file(self._file)
        self.metadata = _texts(reader.schema.metadata)
        for number in range(reader.num_record_batches):
            batch, late = reader.get_batch_with_custom_metadata(number)
            self._note(late)
            yield batch

    def _note(self, late: Mapping[bytes, bytes] | None) -> None:
        if late:
            self.metadata = {**self.metadata, **_texts(dict(late.items()))}


class ParquetReader(_TableReader):
    """Parquet, with our columns or some of them."""

    _rows: int | None = None

    def _tables(self) -> Iterator[pa.RecordBatch]:
        file = pq.ParquetFile(self._path)
        self.metadata = _texts(file.schema_arrow.metadata) | _texts(file.metadata.metadata)
        self._rows = file.metadata.num_rows
        with file:
            self._check(file.schema_arrow.names)
            yield from file.iter_batches(batch_size=AT_ONCE * 16)

    @property
    def progress(self) -> tuple[int, int | None]:
        """In rows: a file of this kind is not read from its start to its end."""
        return self._row, self._rows
