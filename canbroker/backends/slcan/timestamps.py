"""The adapter's millisecond counter as wall-clock time."""

from __future__ import annotations

from canbroker.backends.base import StampClock
from canbroker.backends.clock_fit import ClockFit
from canbroker.backends.slcan.codec import is_ambiguous
from canbroker.model.frame import HARDWARE_TIMESTAMP, REMOTE, Frame
from canbroker.system.clock import MILLISECOND, SECOND

_WRAP_MS = 60_000
#: A larger difference is not latency: a clock was set, or the adapter restarted.
_RESYNC_NS = 5 * SECOND
#: Times go back by more only when the wall clock was set.
_SLEW_NS = 100 * MILLISECOND
_STRETCH_NS = SECOND // 2
_TOLERANCE_NS = 100 * MILLISECOND
#: Until a counter has proven to keep time, it may not date a frame back by more than this.
_UNPROVEN_NS = 250 * MILLISECOND


class AdapterClock:
    """Maps an adapter's counter, which wraps at 60,000 ms, to the host's clock. One thread.

    Times never go backwards, except after one of the clocks was set. ``late_ns``: how much later
    than its stamp the last frame arrived, by clocks that differ by a constant.
    """

    def __init__(self) -> None:
        self.late_ns = 0
        self._fit = ClockFit(_RESYNC_NS)
        self._adapter_ms = 0  # unwrapped
        self._arrived_ns = 0
        self._latest_ns = 0

    @property
    def quality(self) -> StampClock | None:
        """How well the counter is known; ``None``: not yet. It counts milliseconds."""
        error_ns = self._fit.error_ns
        drift_ppb = round(self._fit.drift * 1e9)
        return None if error_ns is None else StampClock(drift_ppb, error_ns + MILLISECOND)

    def host_ns(self, adapter_ms: int, now_ns: int) -> int:
        """The host's time in ns at which a frame got its ``adapter_ms``; ``now_ns`` is now."""
        # The whole minutes come from the host: the value nearest to where the adapter must be.
        expected = self._adapter_ms + (now_ns - self._arrived_ns) // MILLISECOND
        half = _WRAP_MS // 2
        self._adapter_ms = expected + (adapter_ms - expected + half) % _WRAP_MS - half
        self._arrived_ns = now_ns
        adapter_ns = self._adapter_ms * MILLISECOND
        self.late_ns = now_ns - adapter_ns
        self._latest_ns = _onward(
            adapter_ns + self._fit.update(self.late_ns, now_ns), self._latest_ns, _RESYNC_NS
        )
        return self._latest_ns


def _onward(time_ns: int, latest_ns: int, by_ns: int) -> int:
    """``time_ns``, or ``latest_ns`` if that is later by no more than ``by_ns``."""
    return latest_ns if time_ns < latest_ns <= time_ns + by_ns else time_ns


class Timekeeping:
    """Whether an adapter's counter keeps time with the host's clock. One thread.

    Some firmware counts frames instead of milliseconds, or counts wrongly. In each stretch of
    :data:`_STRETCH_NS`, the smallest ``arrival - counter`` is free of latency, because some frame
    is on time. If the counter keeps time, that value stays the same, within :data:`_TOLERANCE_NS`
    plus 1 % of the time since the first stretch. A counter that fails this in two consecutive
    stretches does not keep time. Both limits are wide: a crystal is accurate to 0.01 %, the least
    latency of a busy adapter to some 10 ms.
    """

    def __init__(self) -> None:
        self._first: tuple[int, int] | None = None  # when the first stretch ended, its smallest
        self._smallest: int | None = None  # of this stretch
        self._until_ns = 0
        self._astray = False  # in the last stretch it was outside the limits
        self.is_proven = False  # it has kept time for some stretches

    def keeps_time(self, late_ns: int, now_ns: int) -> bool:
        """Notes a frame's :attr:`AdapterClock.late_ns`; ``False`` if the counter is not a clock.

        :param now_ns: monotonic, as the wall clock may be set.
        """
        if self._smallest is None:
            self._smallest, self._until_ns = late_ns, now_ns + _STRETCH_NS
        if now_ns < self._until_ns:
            self._smallest = min(late_ns, self._smallest)
            return True
        agrees = self._agrees(now_ns, self._smallest)
        self._smallest, self._until_ns = late_ns, now_ns + _STRETCH_NS
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
    ``problem`` is set once, when ``auto`` stops using the adapter's clock.
    """

    def __init__(self, mode: str) -> None:
        self.expected = False
        self.problem = ""
        self._used = mode != "off"
        self._clock = AdapterClock()
        self._ahead_ns = 0  # the wall clock, of the monotonic one
        self._latest_ns = 0
        self._timekeeping = Timekeeping() if mode == "auto" else None

    @property
    def quality(self) -> StampClock | None:
        """How well the adapter's clock is known; ``None``: it is not, or is not used."""
        return self._clock.quality if self._used else None

    def stamp(self, frame: Frame, adapter_ms: int | None, wall_ns: int, now_ns: int) -> None:
        """Stamps a frame that arrived just now: at ``wall_ns`` (wall), ``now_ns`` (monotonic)."""
        if adapter_ms is not None and is_ambiguous(frame) and not self.expected:
            return  # its data
        if not frame.flags & REMOTE:
            self.expected = adapter_ms is not None
        if adapter_ms is None or not self._used:
            return
        earliest_ns = 0
        host_ns = self._clock.host_ns(adapter_ms, now_ns)
        if (timekeeping := self._timekeeping) is not None:
            if not timekeeping.keeps_time(self._clock.late_ns, now_ns):
                self._used = False
                self.problem = "its time stamps do not keep time"
                return
            earliest_ns = 0 if timekeeping.is_proven else wall_ns - _UNPROVEN_NS
        frame.timestamp_ns = max(earliest_ns, self._on_wall(host_ns, wall_ns - now_ns))
        frame.flags |= HARDWARE_TIMESTAMP

    def _on_wall(self, monotonic_ns: int, ahead_ns: int) -> int:
        """A monotonic time on the wall clock, which is ``ahead_ns`` now, and may be set."""
        if abs(ahead_ns - self._ahead_ns) > MILLISECOND:  # less may pass between reading two clocks
            self._ahead_ns = ahead_ns
        self._latest_ns = _onward(monotonic_ns + self._ahead_ns, self._latest_ns, _SLEW_NS)
        return self._latest_ns
