"""Copies files of one format into another, record by record."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from canbroker.logs.files import replaced
from canbroker.logs.formats import open_reader, open_writer
from canbroker.logs.streams import Reader, Writer


def convert(reader: Reader, writer: Writer, advance: Callable[[int], bool] = lambda _: True) -> int:
    """Copies all records; returns how many the writer was given.

    :param advance: is told how many more there are after each batch; ends the copy if it says
        false. Both files are whole at these times.
    :raises CanInitializationError: the reader's file cannot be read.
    :raises OSError: the writer's file system is at fault.
    """
    writer.metadata.update(reader.metadata)
    count = 0
    for batch in reader.batches():
        writer.write(batch)
        count += len(batch)
        if not advance(len(batch)):
            break
    writer.metadata.update(reader.metadata)  # some formats have it at their end
    return count


class Recovered(NamedTuple):
    """What was in a file that its writer did not close.

    ``end``: where and why the file ended early, or ``None``.
    """

    frames: int
    end: str | None


def recover(path: Path, kind: str) -> Recovered:
    """Makes a whole file of one that its writer did not close, in its place.

    :param kind: as of :func:`~canbroker.logs.formats.format_of`.
    :raises CanInitializationError: it has no frame that can be read; it stays as it is.
    :raises OSError: the new file cannot be written; likewise.
    """
    with replaced(path, ".whole") as whole:
        with open_reader(path, kind) as reader, open_writer(whole, kind) as writer:
            frames = convert(reader, writer)
            writer.sync()
        # SQLite has rolled it back; left over, it would be taken for one of the new file.
        path.with_name(f"{path.name}-journal").unlink(missing_ok=True)
    return Recovered(frames, reader.end)
