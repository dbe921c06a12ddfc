"""Estimates the offset of two clocks from events that one stamps and the other sees later."""

from __future__ import annotations


class ClockOffset:
    """The smallest ``arrival - stamp`` of the last one to two windows. One thread; nanoseconds.

    An event cannot arrive before it was stamped, so the smallest difference, which contains the
    least latency, is the best estimate. It is renewed with each window, to follow clocks that
    drift. A difference that deviates by more than ``jump_ns`` is not due to latency: one of the
    clocks was set.
    """

    def __init__(self, window_ns: int, jump_ns: int) -> None:
        self._window_ns = window_ns
        self._jump_ns = jump_ns
        self._offset: int | None = None
        self._least = 0  # of this window
        self._before = 0  # of the window before
        self._ends_ns = 0

    def update(self, sample: int, now_ns: int, first: int | None = None) -> int:
        """Notes a difference; returns the offset to add to the stamp.

        :param first: the initial offset, also after a jump; ``None``: the sample itself.
        """
        if self._offset is None or abs(sample - self._offset) > self._jump_ns:
            self._before = sample if first is None else first
            self._begin(sample, now_ns)
        elif now_ns >= self._ends_ns:
            is_old = now_ns >= self._ends_ns + self._window_ns
            self._before = sample if is_old else self._least
            self._begin(sample, now_ns)
        self._least = min(self._least, sample)
        self._offset = min(self._least, self._before)
        return self._offset

    def _begin(self, sample: int, now_ns: int) -> None:
        self._least = sample
        self._ends_ns = now_ns + self._window_ns
