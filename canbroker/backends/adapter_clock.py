"""Converts the time stamps of an adapter's clock to the wall clock."""

from __future__ import annotations

from typing import Final

from canbroker.backends.base import StampClock
from canbroker.backends.clock_fit import ClockFit
from canbroker.system import clock

#: If a message is older than the others by this much, it was not delayed: a clock was set.
_JUMP_NS: Final = 2 * clock.SECOND

#: Stamps of a clock that follows the wall clock this closely are exact as they are: the rest is
#: the latency.
_FOLLOWS_DRIFT: Final = 5e-6
_FOLLOWS_NS: Final = 5 * clock.MILLISECOND


class AdapterClock:
    """Computes when messages were on the bus, from stamps of any clock. One thread.

    Some drivers count from the start of the adapter or of the system, others have taken the wall
    clock when they were opened, and drift from it since. Offset and drift are estimated from the
    messages with the least delay. Stamps of the wall clock itself stay as they are. No result is in
    the future, and none is before the previous one, unless the wall clock was set.
    """

    def __init__(self) -> None:
        self._fit = ClockFit(_JUMP_NS)
        self._stamp_ns = 0  # of the last message
        self._told_ns = 0

    @property
    def quality(self) -> StampClock | None:
        """How well the clock is known; ``None``: not yet."""
        error_ns = self._fit.error_ns
        return None if error_ns is None else StampClock(round(self._fit.drift * 1e9), error_ns)

    def wall_ns(self, stamp_ns: int, arrival_ns: int) -> int:
        """When a message with this stamp was on the bus; it arrived at ``arrival_ns``, by the wall
        clock. If the stamps stand still, that is its arrival."""
        told_ns = min(arrival_ns, self._convert(stamp_ns, arrival_ns))
        if told_ns < self._told_ns <= arrival_ns:
            told_ns = self._told_ns
        self._told_ns = told_ns
        return told_ns

    def _convert(self, stamp_ns: int, arrival_ns: int) -> int:
        stands_still = stamp_ns == self._stamp_ns and self._told_ns < arrival_ns
        self._stamp_ns = stamp_ns
        if stands_still:
            return arrival_ns
        delay_ns = arrival_ns - stamp_ns
        offset_ns = self._fit.update(delay_ns, arrival_ns)
        if 0 <= offset_ns < _FOLLOWS_NS and abs(self._fit.drift) < _FOLLOWS_DRIFT:
            return stamp_ns
        return stamp_ns + offset_ns
