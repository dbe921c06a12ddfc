"""The adapter's millisecond counter as wall-clock time."""

from __future__ import annotations

from canbroker.clock import MILLISECOND, SECOND

_WRAP_MS = 60_000
#: A crystal is good to some 100 ppm; the estimate follows a slower adapter at twice that.
_DRIFT_PPM = 200
#: A disagreement above this is a clock that was set or an adapter that restarted, not latency.
_RESYNC_NS = 5 * SECOND


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
