"""Completes files that a recorder has left open: because it was killed, or could not write."""

from __future__ import annotations

import logging
import os
import sqlite3
from contextlib import closing
from pathlib import Path

from canbroker.actors.recorder.conversion import state_of_written, written_as
from canbroker.actors.recorder.side_file import COMPLETE, SideFile, part_of, read_all, utc, write
from canbroker.errors import CanError
from canbroker.logs.converting import recover
from canbroker.system import clock

_logger = logging.getLogger(__name__)


def files_of(directory: Path, recording: str, output: str) -> list[SideFile]:
    """What the side files of an output say, oldest first; nothing if there is no directory.

    :raises OSError: the directory cannot be read.
    """
    try:
        found = [side for side in read_all(directory, recording) if side.output == output]
    except FileNotFoundError:
        return []
    return sorted(found, key=lambda side: side.number)


def complete(directory: Path, side: SideFile, why: str, *, cut: bool) -> int:
    """Gives a file that was left open its end and its name; returns how many frames are gone.

    :param cut: only keep what the side file is certain of: the rest will be written again.
    :raises OSError: a file cannot be written.
    """
    path = directory / side.file
    part = part_of(path)
    gone = 0
    side.state = COMPLETE
    if part.exists():
        why = _completed(part, side, why, cut=cut)
        side.bytes = part.stat().st_size
        side.state = state_of_written(side.format)
    elif not path.exists():
        gone, side.frames, side.bytes = side.frames, 0, 0
        why = f"{why}; the file was removed"
    side.why, side.ended = why, side.ended or utc(clock.wall_ns())
    write(side, directory)
    if side.state == COMPLETE and part.exists():
        part.rename(path)
    _logger.warning("%s has %d frames: %s", path, side.frames, why)
    return gone


def _completed(part: Path, side: SideFile, why: str, *, cut: bool) -> str:
    """Makes a ``.part`` a complete file; returns why it ends, with what was found."""
    kind = written_as(side.format)
    if not cut:
        try:
            found = recover(part, kind)
        except CanError as error:
            return f"{why}; it cannot be read: {error}"
        side.frames = found.frames
        return f"{why}; {found.end}" if found.end else why
    if kind == "sqlite":
        _cut_rows(part, side.frames)
        return why
    size = part.stat().st_size
    os.truncate(part, min(size, side.bytes))
    if size < side.bytes:
        why = f"{why}; {side.bytes - size} bytes that were written are not there"
    if kind.endswith(".gz"):
        recover(part, kind)  # it ends in order then
    return why


def _cut_rows(part: Path, rows: int) -> None:
    """Cuts a database behind its first rows, in the order in which they were written."""
    try:
        with closing(sqlite3.connect(part)) as connection, connection:
            connection.execute("DELETE FROM messages WHERE rowid > ?", (rows,))
    except sqlite3.Error as error:
        raise OSError(f"{part}: {error}") from error
