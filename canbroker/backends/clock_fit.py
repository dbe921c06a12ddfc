"""Estimates offset and drift of two clocks by events that one stamps and the other sees later."""

from __future__ import annotations

from collections import deque
from itertools import pairwise
from typing import Final, NamedTuple

from canbroker.system import clock

#: Of this much time, the event with the least latency is kept.
_INTERVAL_NS: Final = 2 * clock.SECOND

#: Looks back over this many intervals: drift changes with the temperature, within minutes.
_INTERVALS: Final = 32

#: Over less time the latencies of single events would pass for drift.
_MIN_SPAN_NS: Final = 10 * clock.SECOND

#: No quartz is worse, not even two of them.
_MAX_DRIFT: Final = 500e-6

#: A delay is a step of a clock, not latency, after this many intervals in which all events were
#: later than expected by more than this.
_STEP_NS: Final = 20 * clock.MILLISECOND
_STEP_INTERVALS: Final = 5


class _Point(NamedTuple):
    """The event of an interval that had the least latency: ``difference`` is arrival - stamp."""

    arrival_ns: int
    difference_ns: int


class ClockFit:
    """How far the host's clock is ahead of a stamping one. One thread; nanoseconds.

    An event arrives after it was stamped, never before, so the differences ``arrival - stamp`` lie
    above a line: its height is the offset of the clocks, and its slope their drift. The line is
    the edge of the lower convex hull of the last minute's least differences which lies in the
    middle of them: of all lines below the points, it is the one that is closest to them.

    ``drift``: what the host's clock gains, 1e-6 is a microsecond per second; 0 until it is known,
    after ten seconds. ``error_ns``: nine of ten intervals' least differences are this close to the
    line; ``None`` until then. A constant part of the latency cannot be told from the offset.

    :param jump_ns: a difference that deviates by more is not due to latency: a clock was set.
    """

    def __init__(self, jump_ns: int) -> None:
        self.drift = 0.0
        self.error_ns: int | None = None
        self._jump_ns = jump_ns
        self._points: deque[_Point] = deque(maxlen=_INTERVALS)
        self._least: _Point | None = None  # of this interval
        self._least_excess = 0  # how far it lies above the line
        self._ends_ns = 0  # this interval
        self._late_intervals = 0
        # The line: at this time it has this height, with the slope ``drift``.
        self._at_ns = 0
        self._height_ns = 0
        self._latest_ns: int | None = None

    def update(self, difference_ns: int, now_ns: int) -> int:
        """Notes an event that arrived at ``now_ns``; returns the offset to add to its stamp.

        The offset is never more than the difference: no event is taken to the future.
        """
        expected = self._height_ns + round(self.drift * (now_ns - self._at_ns))
        excess = difference_ns - expected
        latest, self._latest_ns = self._latest_ns, now_ns
        if latest is None or abs(excess) > self._jump_ns or self._was_away(latest, now_ns):
            self._begin(difference_ns, now_ns)
            return difference_ns
        if self._least is None or excess < self._least_excess:
            self._least, self._least_excess = _Point(now_ns, difference_ns), excess
        if excess < 0:  # the line is too high here, at once
            self._at_ns, self._height_ns = now_ns, difference_ns
            self._least_excess = 0
            expected = difference_ns
        if now_ns >= self._ends_ns:
            self._end_interval(now_ns)
        return expected

    def _was_away(self, latest_ns: int, now_ns: int) -> bool:
        """Whether too much time has passed, or time has stepped back."""
        return not -clock.SECOND <= now_ns - latest_ns <= _INTERVALS * _INTERVAL_NS

    def _begin(self, difference_ns: int, now_ns: int) -> None:
        """Starts again from one event. The drift stays: it is the oscillators'."""
        self._points.clear()
        self._least = None
        self._late_intervals = 0
        self._ends_ns = now_ns + _INTERVAL_NS
        self._at_ns, self._height_ns = now_ns, difference_ns

    def _end_interval(self, now_ns: int) -> None:
        least, self._least = self._least, None
        self._ends_ns = now_ns + _INTERVAL_NS
        if least is None:
            return
        is_late = self._least_excess > _STEP_NS
        self._late_intervals = self._late_intervals + 1 if is_late else 0
        self._points.append(least)
        if self._late_intervals == _STEP_INTERVALS:  # a clock was set, by less than a jump
            recent = [*self._points][-_STEP_INTERVALS:]
            self._begin(min(point.difference_ns for point in recent), now_ns)
            self._points.extend(recent)
            return
        if self._points[-1].arrival_ns - self._points[0].arrival_ns >= _MIN_SPAN_NS:
            self._fit(now_ns)

    def _fit(self, now_ns: int) -> None:
        begin, end = _middle_edge(_lower_hull(self._points))
        drift = (end.difference_ns - begin.difference_ns) / (end.arrival_ns - begin.arrival_ns)
        if abs(drift) > _MAX_DRIFT:  # a small step, which leaves the points soon
            return
        self.drift = drift
        self._at_ns = now_ns
        self._height_ns = begin.difference_ns + round(drift * (now_ns - begin.arrival_ns))
        errors = sorted(
            point.difference_ns
            - begin.difference_ns
            - round(drift * (point.arrival_ns - begin.arrival_ns))
            for point in self._points
        )
        self.error_ns = errors[len(errors) * 9 // 10]


def _lower_hull(points: deque[_Point]) -> list[_Point]:
    """The corners of the points' lower convex hull; there are at least two."""
    hull: list[_Point] = []
    for point in points:
        while len(hull) > 1 and not _turns_left(hull[-2], hull[-1], point):
            hull.pop()
        if not hull or point.arrival_ns > hull[-1].arrival_ns:
            hull.append(point)
    return hull


def _turns_left(first: _Point, second: _Point, third: _Point) -> bool:
    ahead_x, ahead_y = (
        second.arrival_ns - first.arrival_ns,
        second.difference_ns - first.difference_ns,
    )
    x, y = third.arrival_ns - first.arrival_ns, third.difference_ns - first.difference_ns
    return ahead_x * y - ahead_y * x > 0


def _middle_edge(hull: list[_Point]) -> tuple[_Point, _Point]:
    """The edge above whose span the middle of the time lies."""
    middle = (hull[0].arrival_ns + hull[-1].arrival_ns) // 2
    return next((begin, end) for begin, end in pairwise(hull) if end.arrival_ns >= middle)
