"""Keeps a timer of the kernel on its grid; no I/O.

The broadcast manager restarts its timer when it is served, not when it was due, so each frame is
later than the one before, by some microseconds at best. The interval of the timer is corrected by
this lateness, and by how far the frames have drifted.
"""

from __future__ import annotations

from statistics import median
from typing import Final

from canbroker.system.clock import SECOND

#: How often a timer is corrected, and after how many frames for the first time.
CORRECT_NS: Final = 1 * SECOND
CORRECT_FIRST: Final = 8

#: Frames that a correction is spread over at least: it takes effect after the next one only, and
#: more at once would overshoot.
SPREAD: Final = 4

#: If a frame is further from its due time than this share of the period, as after a stall of the
#: host, the timer is corrected without waiting for a second to pass.
FAR: Final = 0.05

#: An interval is never further from its period than this share of it.
MAX_CHANGE: Final = 0.1


class Rhythm:
    """The timer of frames that are due at ``due_ns`` and whole periods from that. Times are ns."""

    def __init__(self, period_ns: int, due_ns: int) -> None:
        self.interval_ns = period_ns  # what the timer is set to, whole microseconds
        self._period_ns = period_ns
        self._due_ns = due_ns
        self._first_gaps: list[int] = []
        self._late_ns = 0.0  # by how much an interval is exceeded, as far as is known
        self._at_ns = 0  # when the last frame was sent
        self._correct_ns = 0  # when it is corrected next
        self._soon_ns = 0  # and when it has strayed far

    def sent(self, at_ns: int) -> bool:
        """A frame has been sent; returns whether the timer is to be set to another interval."""
        if len(self._first_gaps) < CORRECT_FIRST:
            self._first_gaps.append(at_ns - (self._at_ns or at_ns - self._period_ns))
            self._at_ns = at_ns
            self._late_ns = max(0, median(self._first_gaps) - self._period_ns)
            return False
        strayed_ns = self._strayed_ns(at_ns)
        is_far = abs(strayed_ns) > FAR * self._period_ns
        if at_ns < (self._soon_ns if is_far else self._correct_ns):
            return False
        return self._correct(at_ns, strayed_ns, is_far=is_far)

    def _strayed_ns(self, at_ns: int) -> int:
        half_ns = self._period_ns // 2
        return (at_ns - self._due_ns + half_ns) % self._period_ns - half_ns

    def _correct(self, at_ns: int, strayed_ns: int, *, is_far: bool) -> bool:
        period_ns = self._period_ns
        self._soon_ns = at_ns + (2 * SPREAD - 1) * period_ns // 2  # with the frame of that number
        self._correct_ns = self._soon_ns if is_far else at_ns + CORRECT_NS
        change_ns = strayed_ns / (SPREAD if is_far else max(SPREAD, CORRECT_NS // period_ns))
        if not is_far:
            # What it strays every time is how late it is. A stall of the host is something else.
            self._late_ns = max(0.0, self._late_ns + change_ns / 16)
        limit_ns = MAX_CHANGE * period_ns
        wanted_ns = period_ns - max(-limit_ns, min(limit_ns, self._late_ns + change_ns))
        interval_ns = max(1000, round(wanted_ns / 1000) * 1000)
        is_new = interval_ns != self.interval_ns
        self.interval_ns = interval_ns
        return is_new
