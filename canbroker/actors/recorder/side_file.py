"""The side file: what a recording's file does not say itself, and how far it is certain.

It is written about every second, after the file itself: whatever is killed, the first ``bytes`` of
the file have ``frames`` frames, up to the places of ``channels``. A recorder that goes on asks the
channels for everything behind these places.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from canbroker.delivery.order import Place
from canbroker.system import clock
from canbroker.system.files import move
from canbroker.wire import DECODE_ERRORS
from canbroker.wire.stream import AdapterClock

VERSION: Final = 1
SUFFIX: Final = ".json"

#: Of a file that is not complete.
_PART: Final = ".part"

#: The states of a file.
OPEN: Final = "open"
CONVERTING: Final = "converting"
COMPLETE: Final = "complete"

#: What happened is noted this often in each file; a channel that flickers must not fill the disk.
_MAX_NOTES: Final = 10_000


class ChannelEnd(msgspec.Struct, omit_defaults=True):
    """The place behind the last frame of a channel. ``over``: the channel has ended there."""

    epoch: int
    number: int
    over: bool = False

    @property
    def place(self) -> Place:
        return Place(self.epoch, self.number)


class Note(msgspec.Struct, omit_defaults=True, kw_only=True):
    """Something that kept frames from the file, or is to be known about their times.

    ``after``: the frames of the file before it. ``frames``: how many were lost or dropped; ``None``
    if that is not known.
    """

    what: str
    at: str
    after: int
    channel: str = ""
    frames: int | None = None
    text: str = ""


class SideFile(msgspec.Struct, kw_only=True):
    """``output``: the channel, if each has files of its own. ``state`` is ``open``, ``converting``
    or ``complete``; ``why`` the file ends. ``stopped``: so did the recording. ``frames`` are in the
    file; ``unfit`` are not, as its format cannot hold them; nor are the ``lost``, as far as their
    number is known. ``left_out``: all that the format cannot hold. ``until_ns``: a triggered
    recording writes up to this time.

    All times are those of the host's clock. ``clocks``: of the channels whose adapters have stamped
    the frames by clocks of their own, the drift, and how close the times are. ``out_of_order``:
    frames behind later ones of other channels, by ``out_of_order_ns`` at most."""

    version: int = VERSION
    recording: str
    output: str = ""
    file: str
    format: str
    number: int
    state: str = OPEN
    began: str
    ended: str = ""
    why: str = ""
    stopped: bool = False
    frames: int = 0
    bytes: int = 0
    lost: int = 0
    unfit: int = 0
    left_out: str = ""
    clocks: dict[str, AdapterClock] = {}
    out_of_order: int = 0
    out_of_order_ns: int = 0
    channels: dict[str, ChannelEnd] = {}
    notes: list[Note] = []
    notes_left_out: int = 0
    until_ns: int = 0

    def note(self, note: Note) -> None:
        """Adds a note, unless there are too many."""
        if len(self.notes) < _MAX_NOTES:
            self.notes.append(note)
        else:
            self.notes_left_out += 1


def stem_of(file: str) -> str:
    """A file's name without the suffixes of its format. A stem has no dots."""
    return file.partition(".")[0]


def part_of(path: Path) -> Path:
    """Where a file is until it is complete."""
    return path.with_name(path.name + _PART)


def side_of(path: Path) -> Path:
    """Where the side file of a file is."""
    return path.with_name(f"{stem_of(path.name)}{SUFFIX}")


def write(side: SideFile, directory: Path) -> None:
    """Replaces a side file in one step.

    :raises OSError: it cannot be written.
    """
    path = side_of(directory / side.file)
    fresh = path.with_name(f"{path.name}.new")
    content = msgspec.json.format(msgspec.json.encode(side), indent=1)
    try:
        with fresh.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        move(fresh, path)
    except OSError:
        with contextlib.suppress(OSError):
            fresh.unlink(missing_ok=True)
        raise


def read(directory: Path, file: str) -> SideFile | None:
    """What the side file of a file says; ``None`` if it cannot be read."""
    try:
        return _decoder.decode(side_of(directory / file).read_bytes())
    except (OSError, *DECODE_ERRORS):
        return None


def read_all(directory: Path, recording: str) -> Iterator[SideFile]:
    """The side files of a recording, in any order. Those that cannot be read are skipped.

    :raises OSError: the directory cannot be read.
    """
    for name in os.listdir(directory):  # noqa: PTH208 - faster for thousands of files
        if not name.endswith(SUFFIX):
            continue
        found = read(directory, name)
        if found is None or (found.recording, found.version) != (recording, VERSION):
            continue
        if stem_of(found.file) == name.removesuffix(SUFFIX):
            yield found


def utc(wall_ns: int) -> str:
    """A time for people and programs, to the millisecond."""
    moment = datetime.fromtimestamp(wall_ns // clock.MILLISECOND / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


_decoder = msgspec.json.Decoder(SideFile)
