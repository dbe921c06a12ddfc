"""What a file format has room for, and an account of what did not fit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from canbroker.logs.records import Record
from canbroker.model.frame import ERROR, FD, REMOTE
from canbroker.system import clock

_UNITS: Final = ((clock.MILLISECOND, "ms"), (clock.MICROSECOND, "µs"), (1, "ns"))


@dataclass(frozen=True)
class Holds:
    """What a format has room for.

    ``errors``, ``remotes`` and ``fd`` are ``all``, ``none``, or: error frames ``bare``, without
    class and data; FD frames as ``data``, without their flags. ``origin`` includes the number of
    each frame. Times are rounded to ``resolution_ns``.
    """

    channels: Literal["names", "numbers", "none"] = "names"
    direction: bool = True
    origin: bool = False
    errors: Literal["all", "bare", "none"] = "all"
    remotes: Literal["all", "none"] = "all"
    fd: Literal["all", "data", "none"] = "all"
    resolution_ns: int = 1

    @property
    def excluded(self) -> dict[int, str]:
        """Flags of frames that the format cannot hold at all, and how they are called."""
        kinds = {
            ERROR: (self.errors, "error frames"),
            REMOTE: (self.remotes, "remote frames"),
            FD: (self.fd, "FD frames"),
        }
        return {flag: name for flag, (held, name) in kinds.items() if held == "none"}

    @property
    def lacking(self) -> list[str]:
        """In words, all that the format cannot hold."""
        return [*self.excluded.values(), *self._parts()]

    def _parts(self) -> Iterator[str]:
        if self.errors == "bare":
            yield CLASSES
        if self.fd == "data":
            yield FD_FLAGS
        if self.channels != "names":
            yield NAMES if self.channels == "numbers" else CHANNELS
        if not self.direction:
            yield DIRECTIONS
        if not self.origin:
            yield from (ORIGINS, NUMBERS)
        if self.resolution_ns > 1:
            yield finer_times(self.resolution_ns)


NAMES: Final = "names of channels"
CHANNELS: Final = "channels"
DIRECTIONS: Final = "directions of sent frames"
ORIGINS: Final = "origins of frames"
NUMBERS: Final = "sequence numbers"
CLASSES: Final = "classes and data of error frames"
FD_FLAGS: Final = "flags of FD frames"
EARLIER: Final = "times before the file's first frame"


def finer_times(resolution_ns: int) -> str:
    """How the loss is called of times that a resolution cannot express."""
    scale, unit = next(each for each in _UNITS if resolution_ns >= each[0])
    return f"times finer than {resolution_ns // scale} {unit}"


class Losses:
    """Counts what a file could not hold, by kind; false if that is nothing.

    ``str()`` is a list for people.
    """

    def __init__(self, holds: Holds) -> None:
        self.counts: Counter[str] = Counter()
        self._holds = holds
        self._excluded = holds.excluded
        self._mask = sum(self._excluded)
        self._finer = finer_times(holds.resolution_ns) if holds.resolution_ns > 1 else ""
        self._channels: set[str] = set()

    def __bool__(self) -> bool:
        return bool(self.counts)

    def __str__(self) -> str:
        return ", ".join(f"{kind} ({count:,})" for kind, count in self.counts.items())

    def add(self, kind: str, count: int) -> None:
        if count:
            self.counts[kind] += count

    def sift(self, records: Sequence[Record]) -> Sequence[Record]:
        """Returns the records that the format can hold, and counts all that it cannot."""
        mask = self._mask
        if mask and any(record.frame.flags & mask for record in records):
            for record in records:
                for flag, kind in self._excluded.items():
                    if record.frame.flags & flag:
                        self.counts[kind] += 1
                        break
            records = [record for record in records if not record.frame.flags & mask]
        self._count_parts(records)
        return records

    def _count_parts(self, records: Sequence[Record]) -> None:
        holds = self._holds
        if holds.errors == "bare":
            self.add(CLASSES, sum(bool(record.frame.flags & ERROR) for record in records))
        if holds.fd == "data":
            self.add(FD_FLAGS, sum(bool(record.frame.flags & FD) for record in records))
        if holds.channels != "names":
            self._count_channels({record.channel for record in records})
        if not holds.direction:
            self.add(DIRECTIONS, sum(record.sent for record in records))
        if not holds.origin:
            self.add(ORIGINS, sum(record.origin is not None for record in records))
            self.add(NUMBERS, sum(record.seq is not None for record in records))
        if self._finer:
            unit = holds.resolution_ns
            self.add(self._finer, sum(bool(r.frame.timestamp_ns % unit) for r in records))

    def _count_channels(self, channels: set[str]) -> None:
        new = channels - self._channels - {""}
        self._channels |= new
        if self._holds.channels == "numbers":
            self.add(NAMES, sum(not name.isdecimal() for name in new))
        else:
            self.add(CHANNELS, len(new))
