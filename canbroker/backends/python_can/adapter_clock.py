"""Converts the time stamps of an adapter's clock to the wall clock."""

from __future__ import annotations

import math
from typing import Final

from canbroker.backends.clock_offset import ClockOffset
from canbroker.system import clock

#: The least delay within this time gives the current offset of the clocks, which drift.
_WINDOW_NS: Final = 10 * clock.SECOND

#: If a message is older than the others by this much, it was not delayed: a clock was set.
#: Stamps within this time of the wall clock are taken as wall-clock times, exact as they are.
_JUMP_NS: Final = 2 * clock.SECOND


class AdapterClock:
    """Computes when messages were on the bus, from the stamps of the driver.

    Some drivers count from the start of the adapter or of the system. All are assumed to run nearly
    as fast as the wall clock; the message with the least delay gives the offset, renewed every
    10 s. No result is in the future, and none is before the previous one.
    """

    def __init__(self) -> None:
        self._offset = ClockOffset(_WINDOW_NS, _JUMP_NS)
        self._stamp_ns = 0  # of the last message
        self._told_ns = 0

    def wall_ns(self, seconds: object, arrival_ns: int) -> int:
        """When a message with the stamp ``seconds`` was on the bus.

        Without a usable stamp, or if the stamps stand still, that is ``arrival_ns``, when it
        arrived by the wall clock.
        """
        if not isinstance(seconds, (int, float)) or not math.isfinite(seconds) or not seconds:
            return arrival_ns
        stamp_ns = round(seconds * clock.SECOND)
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
        first_ns = 0 if abs(delay_ns) < _JUMP_NS else delay_ns
        return stamp_ns + self._offset.update(delay_ns, arrival_ns, first_ns)
