"""Completes files that a recorder has left open: because it was killed, or could not write."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from canbroker.actors.recorder.open_file import part_of
from canbroker.actors.recorder.side_file import COMPLETE, SideFile, read_all, utc
from canbroker.errors import CanError
from canbroker.logs.converting import recover
from canbroker.logs.formats import FORMATS
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
    if part.exists():
        why = _completed(part, side, why, cut=cut)
        side.bytes = part.stat().st_size
    elif not path.exists():
        gone, side.frames, side.bytes = side.frames, 0, 0
        why = f"{why}; the file was removed"
    side.state, side.why, side.ended = COMPLETE, why, side.ended or utc(clock.wall_ns())
    side.write(directory)
    if part.exists():
        part.rename(path)
    _logger.warning("%s has %d frames: %s", path, side.frames, why)
    return gone


def _completed(part: Path, side: SideFile, why: str, *, cut: bool) -> str:
    """Makes a ``.part`` a complete file; returns why it ends, with what was found."""
    size = part.stat().st_size
    if cut and _is_whole_when_cut(side.format):
        if size < side.bytes:
            why = f"{why}; {side.bytes - size} bytes that were written are not there"
        os.truncate(part, min(size, side.bytes))
        return why
    try:
        found = recover(part, side.format, side.bytes if cut else None)
    except CanError as error:
        return f"{why}; it cannot be read: {error}"
    side.frames = found.frames
    return f"{why}; {found.end}" if found.end else why


def _is_whole_when_cut(kind: str) -> bool:
    """Whether the beginning of a file, up to where it was synced, is a file of its format."""
    return kind in FORMATS and kind != "sqlite"
