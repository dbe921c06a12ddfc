"""The tasks, and where their owners were seen, kept for a scheduler that takes over.

SQLite, because it is designed to survive a kill in the middle of a write. Nothing is flushed to
the disk: if the host crashes, the tasks end anyway.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from canbroker.errors import CanInitializationError
from canbroker.wire import DECODE_ERRORS
from canbroker.wire.tasks import AddTask

_SET_UP: Final = (
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = OFF",
    "CREATE TABLE IF NOT EXISTS tasks "
    "(client_id TEXT, task INTEGER, entry BLOB, PRIMARY KEY (client_id, task))",
    "CREATE TABLE IF NOT EXISTS owners "
    "(client_id TEXT, channel TEXT, epoch INTEGER, PRIMARY KEY (client_id, channel))",
)

_logger = logging.getLogger(__name__)


class Entry(msgspec.Struct):
    """A task, its rhythm (monotonic time), and when its owner's process started.

    A scheduler that takes over later, perhaps after the host was restarted, might otherwise take
    another process with the same number for the owner."""

    task: AddTask
    anchor_ns: int
    end_ns: int | None
    started: int | None = None


class Journal:
    """The tasks that run. One thread."""

    def __init__(self, path: Path) -> None:
        """:raises CanInitializationError: the file cannot be opened, or is not a journal."""
        self._path = path
        try:
            self._database = sqlite3.connect(path, isolation_level=None)
            for statement in _SET_UP:
                self._database.execute(statement)
        except sqlite3.Error as error:
            raise CanInitializationError(f"cannot keep tasks in {path}: {error}") from error

    def is_in_place(self) -> bool:
        """Whether a successor would find it: the file may have been removed."""
        return self._path.exists()

    def load(self) -> Iterator[Entry]:
        """The tasks that ran when the last writer ended; unreadable entries are left out."""
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
        """Forgets a task, if it is there."""
        self._run("DELETE FROM tasks WHERE client_id = ? AND task = ?", (client_id, task))

    def seen(self, client_id: str) -> dict[str, int]:
        """The epochs of the channels where a client was seen."""
        found = "SELECT channel, epoch FROM owners WHERE client_id = ?"
        return dict(self._database.execute(found, (client_id,)))

    def saw(self, client_id: str, channel: str, epoch: int) -> None:
        """Notes that a client is on a channel, in this epoch of the channel."""
        self._run("INSERT OR REPLACE INTO owners VALUES (?, ?, ?)", (client_id, channel, epoch))

    def forget(self, client_id: str) -> None:
        """Forgets a client, which has no tasks any more."""
        self._run("DELETE FROM owners WHERE client_id = ?", (client_id,))

    def close(self) -> None:
        self._database.close()

    def _run(self, statement: str, values: tuple[object, ...]) -> None:
        try:
            self._database.execute(statement, values)
        except sqlite3.Error:  # a full disk; it is only missed if the scheduler is killed
            _logger.exception("cannot write the journal of tasks")
