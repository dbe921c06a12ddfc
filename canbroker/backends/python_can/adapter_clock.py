"""Time stamps of an adapter's clock, on the wall clock."""

from __future__ import annotations

import math
from typing import Final

from canbroker.backends.clock_offset import ClockOffset
from canbroker.system import clock

#: The least delay of so long tells how far the clocks are apart now: they drift.
_WINDOW_NS: Final = 10 * clock.SECOND

#: A message that is so much older than the others was not delayed: one of the clocks was set.
#: Stamps within this time of the wall clock are of it, as exactly as the driver could tell.
_JUMP_NS: Final = 2 * clock.SECOND


class AdapterClock:
    """Tells when messages were on the bus, from what drivers stamp them with.

    Some count from when the adapter or the system was started. All are assumed to run as fast as
    the wall clock, nearly; the message that arrived fastest tells the difference, anew every 10
    s. No message is from the future, and none from before the one that came before it.
    """

    def __init__(self) -> None:
        self._offset = ClockOffset(_WINDOW_NS, _JUMP_NS)
        self._stamp_ns = 0  # of the last message
        self._told_ns = 0

    def wall_ns(self, seconds: object, arrival_ns: int) -> int:
        """When a message was on the bus that is stamped with ``seconds``.

        That is ``arrival_ns``, its arrival on the wall clock, if the stamp is none or stands
        still.
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
