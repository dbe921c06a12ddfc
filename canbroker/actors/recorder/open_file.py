"""One file of a recording while it is written, as ``.part``, and its side file."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping, Sequence
from copy import copy
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

from msgspec.structs import replace

from canbroker.actors.recorder.conversion import state_of_written, written_as
from canbroker.actors.recorder.side_file import (
    COMPLETE,
    ChannelEnd,
    Note,
    SideFile,
    part_of,
    utc,
    write,
)
from canbroker.logs.formats import format_of, open_writer
from canbroker.logs.records import Record
from canbroker.system import clock
from canbroker.system.files import sync_directory

_UNFIT: Final = re.compile(r"[^A-Za-z0-9_-]+")


class Lost(NamedTuple):
    """Frames that are lost; ``frames`` is ``None`` if their number is unknown."""

    channel: str
    frames: int | None
    text: str


class OpenFile:
    """Every method may raise :class:`OSError`.

    ``side`` is what the side file will say next, ``certain`` what it says.
    """

    def __init__(self, directory: Path, side: SideFile) -> None:
        """Creates the file and its side file.

        :raises OSError: it cannot be created.
        :raises CanInitializationError: a package that the format needs is missing.
        """
        self.side = side
        self.path = directory / side.file
        self._directory = directory
        self._part = part_of(self.path)
        kind = written_as(side.format)
        self._writer = open_writer(self._part, kind)
        self._excluded = tuple(format_of(self._part, kind)[0].holds.excluded.values())
        self._given = 0
        self.began_ns = clock.monotonic_ns()
        self.certain = side
        try:
            self._write_side()
        except BaseException:
            self.give_up()
            self._part.unlink(missing_ok=True)
            raise

    @property
    def size(self) -> int:
        """Bytes so far, about."""
        return self._writer.size

    def write(self, records: Sequence[Record]) -> None:
        self._writer.write(records)
        counts = self._writer.losses.counts
        self._given += len(records)
        self.side.unfit = sum(counts[kind] for kind in self._excluded)
        self.side.frames = self._given - self.side.unfit

    def note(self, what: str, channel: str = "", *, frames: int | None = None, text: str) -> None:
        """Notes that something happened here."""
        at, after = utc(clock.wall_ns()), self.side.frames
        note = Note(what=what, at=at, after=after, channel=channel, frames=frames, text=text)
        self.side.note(note)

    def note_lost(self, lost: Lost) -> None:
        """Notes that frames which belong here will be in no file."""
        self.note("lost", lost.channel, frames=lost.frames, text=lost.text)
        self.side.lost += lost.frames or 0

    def sync(self, ends: Mapping[str, ChannelEnd]) -> None:
        """Makes certain what was written so far, up to these places."""
        self._writer.sync()
        self._tell(ends)
        self._write_side()

    def close(self, ends: Mapping[str, ChannelEnd], why: str, *, stopped: bool = False) -> None:
        """Completes the file, which gets its name, unless it has to be converted yet."""
        side = self.side
        self._writer.close()
        self._tell(ends)
        side.state, side.why, side.stopped = state_of_written(side.format), why, stopped
        side.ended = utc(clock.wall_ns())
        write(side, self._directory)
        if side.state == COMPLETE:
            self._part.rename(self.path)
        sync_directory(self._directory)

    def give_up(self) -> None:
        """Closes what is open. What the side file says stays true."""
        with contextlib.suppress(OSError):
            self._writer.close()

    def _write_side(self) -> None:
        write(self.side, self._directory)
        ends = {channel: copy(end) for channel, end in self.side.channels.items()}
        self.certain = replace(self.side, channels=ends, notes=list(self.side.notes))

    def _tell(self, ends: Mapping[str, ChannelEnd]) -> None:
        self.side.channels = dict(ends)
        self.side.bytes = self._part.stat().st_size
        self.side.left_out = str(self._writer.losses) if self._writer.losses else ""


def file_name(recording: str, output: str, number: int, suffix: str) -> str:
    """A name for a new file: recording, time and number; it has dots before the suffix only.

    Whatever the recording is called, the file stays in its directory.
    """
    at = datetime.fromtimestamp(clock.wall_ns() // clock.SECOND, UTC).strftime("%Y%m%dT%H%M%SZ")
    return f"{stem(recording, output)}-{at}-{number}{suffix}"


def stem(recording: str, output: str) -> str:
    """How the names of an output's files begin."""
    return "-".join(_UNFIT.sub("_", part)[:64] for part in (recording, output) if part)
