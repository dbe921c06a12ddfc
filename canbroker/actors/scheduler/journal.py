"""What tasks there are, and where their owners were seen, kept for a scheduler that takes over.

SQLite, because it knows how to stay whole when its process is killed in the middle of a write.
Nothing is flushed to the disk: what ends the host ends the tasks, too.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import msgspec

from canbroker.wire import DECODE_ERRORS
from canbroker.wire.tasks import AddTask

_logger = logging.getLogger(__name__)


class Entry(msgspec.Struct):
    """A task as it is now, its rhythm (monotonic time), and when its owner's process started: a
    scheduler of another broker, maybe after the host was, finds another process of its number."""

    task: AddTask
    anchor_ns: int
    end_ns: int | None
    started: int | None = None


class Journal:
    """The tasks that run. One thread."""

    def __init__(self, path: Path) -> None:
        """:raises sqlite3.Error: the file cannot be opened or is not a journal."""
        self._path = path
        self._database = sqlite3.connect(path, isolation_level=None)
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("PRAGMA synchronous = OFF")
        self._database.execute(
            "CREATE TABLE IF NOT EXISTS tasks "
            "(client_id TEXT, task INTEGER, entry BLOB, PRIMARY KEY (client_id, task))"
        )
        self._database.execute(
            "CREATE TABLE IF NOT EXISTS owners "
            "(client_id TEXT, channel TEXT, epoch INTEGER, PRIMARY KEY (client_id, channel))"
        )

    def is_in_place(self) -> bool:
        """Whether a successor would find it: somebody may have removed the file."""
        return self._path.exists()

    def load(self) -> Iterator[Entry]:
        """The tasks that ran when the last writer ended; what cannot be read is left out."""
        for (entry,) in self._database.execute("SELECT entry FROM tasks ORDER BY rowid"):
            try:
                yield msgspec.msgpack.decode(entry, type=Entry)
            except DECODE_ERRORS as error:
                _logger.error("a task in the journal is not readable: %s", error)  # noqa: TRY400

    def write(self, entry: Entry) -> None:
        """Adds a task, or replaces it."""
        key = entry.task.client_id, entry.task.task
        body = msgspec.msgpack.encode(entry)
        self._run("INSERT OR REPLACE INTO tasks VALUES (?, ?, ?)", (*key, body))

    def remove(self, client_id: str, task: int) -> None:
        """Forgets a task; one that is not there is no error."""
        self._run("DELETE FROM tasks WHERE client_id = ? AND task = ?", (client_id, task))

    def seen(self, client_id: str) -> dict[str, int]:
        """The epochs of the channels where a client was seen."""
        found = "SELECT channel, epoch FROM owners WHERE client_id = ?"
        return dict(self._database.execute(found, (client_id,)))

    def saw(self, client_id: str, channel: str, epoch: int) -> None:
        """A client is on a channel, in this epoch of it."""
        self._run("INSERT OR REPLACE INTO owners VALUES (?, ?, ?)", (client_id, channel, epoch))

    def forget(self, client_id: str) -> None:
        """A client has no tasks any more."""
        self._run("DELETE FROM owners WHERE client_id = ?", (client_id,))

    def close(self) -> None:
        self._database.close()

    def _run(self, statement: str, values: tuple[object, ...]) -> None:
        try:
            self._database.execute(statement, values)
        except sqlite3.Error:  # a full disk; only the successor of a killed scheduler misses it
            _logger.exception("cannot write down what tasks there are")
