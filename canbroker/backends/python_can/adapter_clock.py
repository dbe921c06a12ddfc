"""Time stamps of python-can's drivers: seconds of any clock, or nothing of use."""

from __future__ import annotations

import math

from canbroker.backends import adapter_clock
from canbroker.system import clock


class AdapterClock(adapter_clock.AdapterClock):
    """Computes when messages were on the bus, from what drivers say."""

    def read(self, seconds: object, arrival_ns: int) -> int:
        """When a message with the stamp ``seconds`` was on the bus.

        Without a usable stamp, or if the stamps stand still, that is ``arrival_ns``, when it
        arrived by the wall clock.
        """
        if not isinstance(seconds, (int, float)) or not math.isfinite(seconds) or not seconds:
            return arrival_ns
        return self.wall_ns(round(seconds * clock.SECOND), arrival_ns)
