"""The part of a log that is replayed."""

from __future__ import annotations

import enum
import math
from datetime import datetime
from typing import TypeAlias

from canbroker.logs.timing import MAX_DISORDER_NS
from canbroker.system import clock

#: Seconds from the beginning of the log, or a time; one without a zone is local time.
Moment: TypeAlias = float | datetime


class Place(enum.Enum):
    """Where a frame is."""

    BEFORE = enum.auto()
    INSIDE = enum.auto()
    #: A little: a frame that is slightly out of order may still follow.
    AFTER = enum.auto()
    OVER = enum.auto()


class Window:
    """From one moment to another, both included; ``None`` is no limit."""

    def __init__(self, begin: Moment | None = None, end: Moment | None = None) -> None:
        """:raises ValueError: a number is negative or not finite, or the end is before it."""
        self._begin = _nanoseconds("start", begin)
        self._end = _nanoseconds("end", end)
        self._begin_is_time = isinstance(begin, datetime)
        self._end_is_time = isinstance(end, datetime)
        if (
            self._begin is not None
            and self._end is not None
            and self._begin_is_time == self._end_is_time
            and self._end < self._begin
        ):
            raise ValueError(f"the end {end} is before the start {begin}")

    def place(self, timestamp_ns: int, elapsed_ns: int) -> Place:
        """Where a frame is, ``elapsed_ns`` after the log's first one."""
        if self._begin is not None:
            at_ns = timestamp_ns if self._begin_is_time else elapsed_ns
            if at_ns < self._begin:
                return Place.BEFORE
        if self._end is not None:
            at_ns = timestamp_ns if self._end_is_time else elapsed_ns
            if at_ns > self._end:
                return Place.OVER if at_ns > self._end + MAX_DISORDER_NS else Place.AFTER
        return Place.INSIDE


def _nanoseconds(name: str, moment: Moment | None) -> int | None:
    if moment is None:
        return None
    if isinstance(moment, datetime):
        return round(moment.timestamp() * 1_000_000) * clock.MICROSECOND
    if not (math.isfinite(moment) and moment >= 0):
        raise ValueError(f"{name} must be a time, or seconds of 0 or above, got {moment!r}")
    return round(moment * clock.SECOND)
