"""Frames of the past, from the ring that a channel's process keeps: a trace, or a file."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Final, NamedTuple

from canbroker.bus.history import recent_frames
from canbroker.delivery.tap import Frames
from canbroker.logs.formats import FORMATS, open_writer
from canbroker.logs.recent import write_frames
from canbroker.model.filters import FilterSet
from canbroker.model.frame import EchoFrame
from canbroker.system import clock

#: The most frames in one answer, and the longest time that a ring may keep (:data:`MAX_RING_S`).
MAX_FRAMES: Final = 1000
_LONGEST_S: Final = 90_000.0

#: The time that is looked through first, and how much more each time that it was too short.
_FIRST_S: Final = 0.25
_MORE: Final = 4


class Place(NamedTuple):
    """A place in a channel's past: after the frames up to a time (wall clock), without the last
    ``skip`` of those that have exactly this time."""

    time_ns: int
    skip: int

    def cut(self, frames: list[EchoFrame]) -> list[EchoFrame]:
        """The frames before this place. They are in the channel's order, which may differ from that
        of their times a little."""
        same = [at for at, frame in enumerate(frames) if frame.timestamp_ns == self.time_ns]
        if not same:
            return [frame for frame in frames if frame.timestamp_ns < self.time_ns]
        return frames[: same[-self.skip] if 0 < self.skip <= len(same) else same[-1] + 1]


def frames_before(
    broker: str | None, channel: str, filters: FilterSet, place: Place, count: int
) -> list[EchoFrame]:
    """The last ``count`` frames before a place that pass ``filters``, oldest first.

    :param broker: its address.
    :param channel: the broker's name for it.
    :raises CanOperationError: the channel does not answer.
    """
    before_ns = place.time_ns + 1
    span = _FIRST_S
    while True:
        age = max(0.0, (clock.wall_ns() - before_ns) / clock.SECOND)
        found = recent_frames(
            broker, channel, min(age + span, _LONGEST_S), filters=filters, before_ns=before_ns
        )
        frames = place.cut(found.frames)
        if len(frames) >= count or age + span >= _LONGEST_S:
            return frames[-count:]
        span *= _MORE


def installed_formats() -> list[tuple[str, str]]:
    """Name and title of each format that can be written here."""
    return [(each.name, each.title) for each in FORMATS.values() if each.is_installed]


class RecordFile:
    """A file with the recent frames of a channel, in a private place until it is removed."""

    def __init__(self, recent: Frames, kind: str) -> None:
        """
        :param kind: the name of a format.
        :raises CanInitializationError: the format needs a package that is missing.
        :raises OSError: the file cannot be written.
        """
        form = FORMATS[kind]
        self._directory = tempfile.TemporaryDirectory(prefix="canbroker-web-")
        self.path = Path(self._directory.name) / f"record{form.suffixes[0]}"
        try:
            with open_writer(self.path, kind) as writer:
                write_frames(writer, recent.channel, recent.frames)
            self.losses = str(writer.losses) if writer.losses else ""
        except BaseException:
            self.remove()
            raise

    def remove(self) -> None:
        """Removes file and directory; also what a writer has left beside it."""
        self._directory.cleanup()
