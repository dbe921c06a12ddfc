"""A consumer of NATS in a process of its own, which is killed and started again by tests.

It lands what it reads in a file of SQLite, with nothing but Python's library: frames, gaps and its
position are one transaction.
"""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final

_PROGRAM: Final = """
import sqlite3, sys, time
from canbroker import CanInitializationError
from canbroker.integrations.nats import batches

urls, path, *once = sys.argv[1:]

def land(database):
    stored = database.execute("SELECT position FROM position").fetchone()
    with batches(urls.split(), after=stored[0] if stored else 0, follow=not once) as stream:
        while not stream.is_over:
            if together := stream.take_many(frames=2000, seconds=0.2):
                transaction(database, together, str(stream.position))

def transaction(database, together, position):
    database.execute("BEGIN")
    for batch in together:
        frames = zip(batch.seqs, batch.frames)
        database.executemany(
            "INSERT INTO frames VALUES (?, ?, ?, ?)",
            [(batch.channel, str(batch.epoch), seq, bytes(each.data)) for seq, each in frames],
        )
        database.executemany(
            "INSERT INTO gaps VALUES (?, ?, ?)",
            [(batch.channel, gap.kind, gap.lost) for gap in batch.gaps],
        )
    database.execute("DELETE FROM position")
    database.execute("INSERT INTO position VALUES (?)", [position])
    database.execute("COMMIT")

database = sqlite3.connect(path, isolation_level=None)
database.execute("PRAGMA synchronous=NORMAL")
database.execute("CREATE TABLE IF NOT EXISTS frames (channel, epoch, seq, data)")
database.execute("CREATE TABLE IF NOT EXISTS gaps (channel, kind, lost)")
database.execute("CREATE TABLE IF NOT EXISTS position (position)")
patience = time.monotonic() + 30
while True:
    try:
        land(database)
        break
    except CanInitializationError:  # the server is away just when we begin
        if time.monotonic() > patience:
            raise
        time.sleep(0.1)
database.close()
"""


class SqliteConsumer:
    """Reads all frames of a server, from the beginning of the stream."""

    def __init__(self, directory: Path) -> None:
        self.program = [sys.executable, "-W", "error", "-c", _PROGRAM]
        self.target = str(directory / "frames.sqlite")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *urls: str) -> None:
        """Starts it, behind what it has landed."""
        self._process = subprocess.Popen([*self.program, " ".join(urls), self.target])

    def kill(self) -> None:
        """Kills it, wherever it is. It must not have ended by itself."""
        process, self._process = self._process, None
        if process is not None:
            assert process.poll() is None, f"it has ended with {process.returncode}"
            process.kill()
            process.wait()

    def finish(self, *urls: str, timeout: float) -> None:
        """Lands what the stream still has."""
        command = [*self.program, " ".join(urls), self.target, "--once"]
        subprocess.run(command, check=True, timeout=timeout)

    def landed(self) -> dict[str, list[bytes]]:
        """The data of frames by channel, in the order in which they were landed."""
        found: dict[str, list[bytes]] = {}
        for channel, data in self._rows("SELECT channel, data FROM frames ORDER BY rowid"):
            found.setdefault(str(channel), []).append(bytes(data))
        return found

    def gaps(self) -> list[tuple[Any, ...]]:
        """Channel, kind and number of each gap."""
        return [*self._rows("SELECT channel, kind, lost FROM gaps ORDER BY rowid")]

    def _rows(self, query: str) -> Iterator[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.target)) as database:
            yield from database.execute(query)
