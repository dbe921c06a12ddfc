"""SQLite with the table that python-can writes, by Python's own module.

python-can's writer hands messages to a thread without limit, and when the disk is full that thread
is gone and nobody is told.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from canbroker.errors import CanInitializationError
from canbroker.logs.files import unreadable
from canbroker.logs.losses import Holds
from canbroker.logs.records import AT_ONCE, Record, Skipped
from canbroker.logs.streams import Reader, Writer
from canbroker.logs.table_rows import frame_of
from canbroker.model.frame import ERROR, EXTENDED, REMOTE, Frame
from canbroker.system import clock

_CREATE: Final = (
    "CREATE TABLE messages (ts REAL, arbitration_id INTEGER, extended INTEGER, remote INTEGER, "
    "error INTEGER, dlc INTEGER, data BLOB)"
)

_SELECT: Final = (
    "SELECT rowid, ts, arbitration_id, extended, remote, error, dlc, data FROM messages"
)

#: What Python's module raises for damaged files; the second for texts, also those of its errors.
_DAMAGE: Final = (sqlite3.Error, UnicodeDecodeError)

#: The column with times is in seconds, in floating point: near today, multiples of 238 ns.
_MAX_SECONDS: Final = 1 << 33


class SqliteWriter(Writer):
    """A database with one table, ``messages``."""

    def __init__(
        self, path: Path, *, compressed: bool, holds: Holds, metadata: Mapping[str, str]
    ) -> None:
        """:raises OSError: the file cannot be created."""
        del compressed, metadata
        super().__init__(holds)
        path.open("wb").close()  # names what is wrong with the path better than SQLite does
        self._path = path
        try:
            self._connection = sqlite3.connect(path)
            self._connection.execute(_CREATE)
        except sqlite3.Error as error:
            raise OSError(f"{path}: {error}") from error

    def _write(self, records: Sequence[Record]) -> None:
        rows = [
            (
                frame.timestamp_ns / clock.SECOND,
                frame.arbitration_id,
                bool(frame.flags & EXTENDED),
                bool(frame.flags & REMOTE),
                bool(frame.flags & ERROR),
                frame.data if isinstance(frame.data, int) else len(frame.data),
                b"" if isinstance(frame.data, int) else frame.data,
            )
            for frame, *_ in records
        ]
        try:
            self._connection.executemany("INSERT INTO messages VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
        except sqlite3.Error as error:
            raise OSError(f"{self._path}: {error}") from error

    @property
    def size(self) -> int:
        return self._path.stat().st_size

    def sync(self) -> None:
        try:
            self._connection.commit()  # SQLite waits for the disk
        except sqlite3.Error as error:
            raise OSError(f"{self._path}: {error}") from error

    def close(self) -> None:
        try:
            self._connection.commit()
        except sqlite3.ProgrammingError:
            return  # it is closed already
        except sqlite3.Error as error:
            raise OSError(f"{self._path}: {error}") from error
        finally:
            self._connection.close()


class SqliteReader(Reader):
    """A database that python-can or we have written. One thread, the one that made it."""

    def __init__(self, path: Path) -> None:
        """:raises CanInitializationError: the file cannot be read."""
        super().__init__(str(path))
        self._row = 0
        self._rows: int | None = None
        _check_size(path)
        # A journal beside it is that of a killed writer, and must be rolled back.
        mode = "rw" if path.with_name(f"{path.name}-journal").exists() else "ro"
        try:
            self._connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode={mode}", uri=True)
        except sqlite3.Error as error:
            raise CanInitializationError(f"cannot read {path}: {error}") from error

    @property
    def progress(self) -> tuple[int, int | None]:
        return self._row, self._rows

    def close(self) -> None:
        self._connection.close()

    def batches(self) -> Iterator[list[Record]]:
        self.skipped, self.end, self._row = Skipped(), None, 0
        skipped = self.skipped
        try:
            (self._rows,) = self._connection.execute("SELECT MAX(rowid) FROM messages").fetchone()
            cursor = self._connection.execute(_SELECT)
        except _DAMAGE as error:
            raise CanInitializationError(
                f"{self.name} is not a database with frames: {error}"
            ) from None
        while True:
            try:
                rows = cursor.fetchmany(AT_ONCE)
            except _DAMAGE as error:
                self.end = f"damaged after row {self._row}: {error}"
                return
            if not rows:
                return
            batch: list[Record] = []
            for row in rows:
                self._row = row[0]
                try:
                    batch.append(Record(_frame(*row[1:]), ""))
                except ValueError as error:
                    skipped.add("impossible rows", f"row {self._row}: {error}")
            if batch:
                yield batch


def _check_size(path: Path) -> None:
    """SQLite does not notice at once that the end of a file is missing.

    Source: sqlite.org/fileformat2.html.

    :raises CanInitializationError: it is missing, or the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            header = file.read(32)
            size = path.stat().st_size
    except OSError as error:
        raise unreadable(str(path), error) from error
    if len(header) < 32 or not header.startswith(b"SQLite format 3\0"):
        raise CanInitializationError(f"{path} is not a SQLite database")
    page = int.from_bytes(header[16:18], "big")
    expected = (65_536 if page == 1 else page) * int.from_bytes(header[28:32], "big")
    if size < expected:
        raise CanInitializationError(f"{path} was cut off: {size} bytes of {expected}")


def _frame(*row: Any) -> Frame:
    """The frame of a row, whose values may have any type.

    :raises ValueError: a value has another type, or no such frame can exist.
    """
    stamp, arbitration_id, extended, remote, error, dlc, data = row
    if not isinstance(stamp, (int, float)) or not 0 <= stamp < _MAX_SECONDS:
        raise ValueError(f"ts is {stamp!r}")
    if not isinstance(arbitration_id, int) or not isinstance(dlc, int):
        raise ValueError(f"arbitration_id is {arbitration_id!r}, dlc {dlc!r}")
    if not isinstance(data, bytes | None):
        raise ValueError(f"data is {data!r}")
    seconds = int(stamp)
    microseconds = round((stamp - seconds) * 1_000_000)
    timestamp_ns = seconds * clock.SECOND + microseconds * clock.MICROSECOND
    return frame_of(timestamp_ns, arbitration_id, extended, remote, error, dlc, data or b"")
