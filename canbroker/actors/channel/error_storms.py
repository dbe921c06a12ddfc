"""Error storms: limits the error frames that a channel passes on, and counts the others.

A controller on a broken wire reports 20,000 errors per second and more. If they were passed on,
each would cost every client as much as a data frame, and repeat the one before it.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

from canbroker.model.frame import Frame
from canbroker.system import clock

#: More than any controller has. The state lists them, and has to fit in a message.
MAX_CAUSES: Final = 64
OTHER: Final = "other"

#: candump shows error frames with this flag: CAN_ERR_FLAG of linux/can.h.
_ERROR_FLAG: Final = 0x20000000
#: CAN_ERR_CNT of linux/can/error.h: data[6] and data[7] are the controller's error counters.
_COUNTERS: Final = 0x200

#: A storm may last for days.
_REPORT_NS: Final = 60 * clock.SECOND


class ErrorStorms:
    """Passes on the first ``rate`` error frames of each second, and the first one of each cause.

    ``held`` counts exactly those that were not passed on, by cause. One thread; times are
    monotonic ns.
    """

    def __init__(self, rate: int) -> None:
        self.held: Counter[str] = Counter()
        self._rate = rate
        self._second = 0  # the current one
        self._passed = 0  # in it
        self._told: set[str] = set()  # causes that passed in it
        self._reported = 0
        self._report_ns = 0

    def passes(self, error: Frame, now_ns: int) -> bool:
        """Whether to pass on an error frame; counts it if not."""
        second = now_ns // clock.SECOND
        if second != self._second:
            self._second, self._passed = second, 0
            self._told.clear()
        cause = cause_of(error)
        # A bus-off must not be lost among the errors that led to it.
        is_first = cause not in self._told and len(self._told) < MAX_CAUSES
        if self._passed >= self._rate and not is_first:
            known = cause in self.held or len(self.held) < MAX_CAUSES
            self.held[cause if known else OTHER] += 1
            return False
        self._passed += 1
        if is_first:
            self._told.add(cause)
        return True

    def report(self, now_ns: int) -> int:
        """Number held since the last report; 0 if that was less than a minute ago."""
        if now_ns < self._report_ns:
            return 0
        count = self.held.total() - self._reported
        if count:
            self._reported += count
            self._report_ns = now_ns + _REPORT_NS
        return count


def cause_of(error: Frame) -> str:
    """The cause of an error frame in candump's notation. Omits the details that differ between
    frames of one cause: the bit at which arbitration was lost, and the error counters."""
    data = error.data if isinstance(error.data, bytes) else b""
    same = (b"\0" + data[1:6]).ljust(8, b"\0")
    return f"{error.arbitration_id & ~_COUNTERS | _ERROR_FLAG:08X}#{same.hex().upper()}"
