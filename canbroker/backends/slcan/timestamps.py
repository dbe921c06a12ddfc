"""The adapter's millisecond counter as wall-clock time."""

from __future__ import annotations

from canbroker.clock import MILLISECOND, SECOND
from canbroker.frame import HARDWARE_TIMESTAMP, REMOTE, Frame
from canbroker.slcan_codec import is_ambiguous

_WRAP_MS = 60_000
#: A crystal is good to some 100 ppm; the estimate follows a slower adapter at twice that.
_DRIFT_PPM = 200
#: A disagreement above this is a clock that was set or an adapter that restarted, not latency.
_RESYNC_NS = 5 * SECOND
_STRETCH_NS = SECOND // 2
_TOLERANCE_NS = 100 * MILLISECOND
#: Before a counter has shown that it keeps time, it makes no frame older than this.
_UNPROVEN_NS = 250 * MILLISECOND


class AdapterClock:
    """Maps an adapter's counter, which wraps at 60,000 ms, to the wall clock. One thread.

    A frame cannot arrive before it was received, so the smallest ``arrival - counter`` seen is the
    best estimate of the offset between both clocks: it contains the least latency. It may rise
    slowly, to follow drift. Times never go backwards, except after the wall clock was set.
    """

    def __init__(self) -> None:
        self._offset: int | None = None  # wall clock - adapter, ns
        self._adapter_ms = 0  # unwrapped
        self._arrived_ns = 0
        self._latest_ns = 0

    def wall_ns(self, adapter_ms: int, now_ns: int) -> int:
        """Wall-clock time in ns at which a frame got its ``adapter_ms``; ``now_ns`` is now."""
        elapsed_ns = now_ns - self._arrived_ns
        # The whole minutes come from the host: the value nearest to where the adapter must be.
        expected = self._adapter_ms + elapsed_ns // MILLISECOND
        half = _WRAP_MS // 2
        self._adapter_ms = expected + (adapter_ms - expected + half) % _WRAP_MS - half
        self._arrived_ns = now_ns
        sample = now_ns - self._adapter_ms * MILLISECOND
        if self._offset is None or abs(sample - self._offset) > _RESYNC_NS:
            self._offset = sample
            self._latest_ns = 0
        else:
            leak = max(0, elapsed_ns) * _DRIFT_PPM // 1_000_000
            self._offset = min(sample, self._offset + leak)
        self._latest_ns = max(self._latest_ns, self._adapter_ms * MILLISECOND + self._offset)
        return self._latest_ns


class Timekeeping:
    """Whether an adapter's counter keeps time with the host's clock. One thread.

    Some firmwares count frames where others count milliseconds, or count wrongly. In each stretch
    of :data:`_STRETCH_NS`, the smallest ``arrival - counter`` is free of latency, as some frame
    is on time. A counter that keeps time has it within :data:`_TOLERANCE_NS` and 1 % of the time
    since the first stretch; one that has not, in two stretches one after the other, does not.
    Both are wide: a crystal is good to 0.01 %, a busy adapter's least latency to some 10 ms.
    """

    def __init__(self) -> None:
        self._adapter_ms = 0  # unwrapped
        self._arrived_ns = 0
        self._first: tuple[int, int] | None = None  # when the first stretch ended, its smallest
        self._smallest: int | None = None  # of this stretch
        self._until_ns = 0
        self._astray = False  # the last stretch was
        self.is_proven = False  # it has kept time for some stretches

    def keeps_time(self, adapter_ms: int, now_ns: int) -> bool:
        """Notes a frame's stamp and when it arrived; ``False`` when the counter is no clock.

        :param now_ns: monotonic, as the wall clock may be set.
        """
        if self._smallest is None:
            self._until_ns = now_ns + _STRETCH_NS
        half = _WRAP_MS // 2
        expected = self._adapter_ms + (now_ns - self._arrived_ns) // MILLISECOND
        self._adapter_ms = expected + (adapter_ms - expected + half) % _WRAP_MS - half
        self._arrived_ns = now_ns
        sample = now_ns - self._adapter_ms * MILLISECOND
        if now_ns < self._until_ns or self._smallest is None:
            self._smallest = sample if self._smallest is None else min(sample, self._smallest)
            return True
        agrees = self._agrees(now_ns, self._smallest)
        self._smallest, self._until_ns = sample, now_ns + _STRETCH_NS
        return agrees

    def _agrees(self, now_ns: int, smallest: int) -> bool:
        """Ends a stretch."""
        if self._first is None:
            self._first = (now_ns, smallest)
            return True
        since_ns, was = self._first
        tolerance = _TOLERANCE_NS + (now_ns - since_ns) // 100
        was_astray, self._astray = self._astray, abs(smallest - was) > tolerance
        self.is_proven = self.is_proven or not (was_astray or self._astray)
        return not (was_astray and self._astray)


class Stamps:
    """Puts an adapter's stamps, mapped to the wall clock, into frames. One thread.

    ``mode`` is the parameter ``timestamps``. ``expected``: the last data frame had a stamp.
    ``problem`` is set once, when ``auto`` gives the adapter's clock up.
    """

    def __init__(self, mode: str) -> None:
        self.expected = False
        self.problem = ""
        self._used = mode != "off"
        self._clock = AdapterClock()
        self._timekeeping = Timekeeping() if mode == "auto" else None

    def stamp(self, frame: Frame, adapter_ms: int | None, wall_ns: int, now_ns: int) -> None:
        """Takes the stamp of a frame that has just arrived; now is ``wall_ns``, ``now_ns``."""
        if adapter_ms is not None and is_ambiguous(frame) and not self.expected:
            return  # its data
        if not frame.flags & REMOTE:
            self.expected = adapter_ms is not None
        if adapter_ms is None or not self._used:
            return
        earliest_ns = 0
        if (timekeeping := self._timekeeping) is not None:
            if not timekeeping.keeps_time(adapter_ms, now_ns):
                self._used = False
                self.problem = "its time stamps are not those of a clock"
                return
            earliest_ns = 0 if timekeeping.is_proven else wall_ns - _UNPROVEN_NS
        frame.timestamp_ns = max(earliest_ns, self._clock.wall_ns(adapter_ms, wall_ns))
        frame.flags |= HARDWARE_TIMESTAMP
