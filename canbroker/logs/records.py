"""What files of CAN traffic consist of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final, NamedTuple, Protocol

from canbroker.model.frame import ERROR, EXTENDED, MAX_STANDARD_ID, Frame, frame_fault

#: About as many records come together when a file is read.
AT_ONCE: Final = 1024

#: The year 2262: later times do not fit 64 bits.
_MAX_NS: Final = 1 << 63


class Record(NamedTuple):
    """A frame, and what is known about it.

    The time is ``frame.timestamp_ns``, wall-clock time in nanoseconds. ``sent``: transmitted by
    the recording host, rather than received. ``origin`` is the broker's client that sent it, and
    ``seq`` the number that the channel gave it.
    """

    frame: Frame
    channel: str
    sent: bool = False
    origin: str | None = None
    seq: int | None = None


def gathered(records: Iterable[Record]) -> Iterator[list[Record]]:
    """The records in lists of :data:`AT_ONCE`; the last one may be shorter."""
    waiting = iter(records)
    while batch := list(islice(waiting, AT_ONCE)):
        yield batch


def error_flags(arbitration_id: int) -> int:
    """The flags of an error frame. It has no identifier, and so no format of one.

    The number is the kernel's class of the error; above 7FF it needs 29 bits.
    """
    return ERROR | EXTENDED if arbitration_id > MAX_STANDARD_ID else ERROR


def valid_frame(timestamp_ns: int, arbitration_id: int, flags: int, data: bytes | int) -> Frame:
    """:raises ValueError: no such frame can exist."""
    fault = frame_fault(arbitration_id, flags, data)
    if fault is not None:
        raise ValueError(fault)
    return Frame(timestamp_ns, arbitration_id, flags, data)


def check_time(timestamp_ns: int) -> None:
    """:raises ValueError: it is before 1970, or does not fit 64 bits."""
    if not 0 <= timestamp_ns < _MAX_NS:
        raise ValueError(f"a time of {timestamp_ns} ns since 1970")


class SkippedParts(Protocol):
    """What a reader skipped: false if that is nothing; ``str()`` is a sentence."""

    counts: Counter[str]

    def __bool__(self) -> bool: ...

    def __str__(self) -> str: ...


class Skipped:
    """Counts parts of a file that are not frames; false if there are none."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._first: dict[str, str] = {}

    def __bool__(self) -> bool:
        return bool(self.counts)

    def __str__(self) -> str:
        kinds = (f"{count:,} {kind} ({self._first[kind]})" for kind, count in self.counts.items())
        return f"skipped {', '.join(kinds)}"

    def add(self, kind: str, where: str) -> None:
        """
        :param kind: in the plural, such as ``damaged lines``.
        :param where: the place in the file, and what is wrong there.
        """
        self.counts[kind] += 1
        self._first.setdefault(kind, where)
