"""The adapter's millisecond counter as wall-clock time."""

from __future__ import annotations

from canbroker.clock import MILLISECOND, SECOND
from canbroker.frame import HARDWARE_TIMESTAMP, REMOTE, Frame
from canbroker.slcan_codec import is_ambiguous

_WRAP_MS = 60_000
_WINDOW_NS = 5 * SECOND
#: A disagreement above this is a clock that was set or an adapter that restarted, not latency.
_RESYNC_NS = 5 * SECOND
#: Times go back by more only when the wall clock was set.
_SLEW_NS = 100 * MILLISECOND
_STRETCH_NS = SECOND // 2
_TOLERANCE_NS = 100 * MILLISECOND
#: Before a counter has shown that it keeps time, it makes no frame older than this.
_UNPROVEN_NS = 250 * MILLISECOND


class AdapterClock:
    """Maps an adapter's counter, which wraps at 60,000 ms, to a clock of the host's. One thread.

    A frame cannot arrive before it was received, so the smallest ``arrival - counter`` is the best
    estimate of the offset between both clocks: it contains the least latency. It is that of the
    last 5 to 10 s, to follow clocks that drift apart. Times never go backwards, except after one
    of the clocks was set.
    """

    def __init__(self) -> None:
        self._offset: int | None = None  # host's clock - adapter, ns
        self._least = 0  # of this window
        self._before = 0  # of the window before
        self._ends_ns = 0
        self._adapter_ms = 0  # unwrapped
        self._arrived_ns = 0
        self._latest_ns = 0

    def host_ns(self, adapter_ms: int, now_ns: int) -> int:
        """The host's time in ns at which a frame got its ``adapter_ms``; ``now_ns`` is now."""
        # The whole minutes come from the host: the value nearest to where the adapter must be.
        expected = self._adapter_ms + (now_ns - self._arrived_ns) // MILLISECOND
        half = _WRAP_MS // 2
        self._adapter_ms = expected + (adapter_ms - expected + half) % _WRAP_MS - half
        self._arrived_ns = now_ns
        sample = now_ns - self._adapter_ms * MILLISECOND
        if self._offset is None or abs(sample - self._offset) > _RESYNC_NS:
            self._least = self._before = sample
            self._ends_ns = now_ns + _WINDOW_NS
            self._latest_ns = 0
        elif now_ns >= self._ends_ns:
            is_old = now_ns >= self._ends_ns + _WINDOW_NS
            self._before = sample if is_old else self._least
            self._least = sample
            self._ends_ns = now_ns + _WINDOW_NS
        self._least = min(self._least, sample)
        self._offset = min(self._least, self._before)
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
        self._ahead_ns = 0  # the wall clock, of the monotonic one
        self._latest_ns = 0
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
        stamp_ns = self._on_wall(self._clock.host_ns(adapter_ms, now_ns), wall_ns - now_ns)
        frame.timestamp_ns = max(earliest_ns, stamp_ns)
        frame.flags |= HARDWARE_TIMESTAMP

    def _on_wall(self, monotonic_ns: int, ahead_ns: int) -> int:
        """A monotonic time on the wall clock, which is ``ahead_ns`` now, and may be set."""
        if abs(ahead_ns - self._ahead_ns) > MILLISECOND:  # less is between two looks at clocks
            self._ahead_ns = ahead_ns
        stamp_ns = monotonic_ns + self._ahead_ns
        if stamp_ns < self._latest_ns <= stamp_ns + _SLEW_NS:
            return self._latest_ns
        self._latest_ns = stamp_ns
        return stamp_ns
