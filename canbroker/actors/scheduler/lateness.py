"""How late frames were: a histogram with constant cost and a known error."""

from __future__ import annotations

from typing import Final

#: Number of bins for each power of two: percentiles are accurate to one eighth.
_BINS: Final = 8
_BITS: Final = _BINS.bit_length() - 1


def bin_of(late_ns: int) -> int:
    """The bin of a time, with a resolution of at best a microsecond."""
    us = late_ns // 1_000
    shift = us.bit_length() - _BITS - 1
    return us if shift <= 0 else (shift << _BITS) + (us >> shift)


class Lateness:
    """Counts times in bins that grow with the time."""

    __slots__ = ("_bins", "count", "max_ns")

    def __init__(self) -> None:
        self._bins: dict[int, int] = {}
        self.count = 0
        self.max_ns = 0

    def add(self, at: int, late_ns: int) -> None:
        """Counts a time; ``at`` is its :func:`bin_of`, so that it is calculated once for many."""
        bins = self._bins
        bins[at] = bins.get(at, 0) + 1
        self.count += 1
        self.max_ns = max(self.max_ns, late_ns)

    def percentile(self, share: float) -> int | None:
        """The time in ns that a ``share`` (0 to 1) did not exceed; ``None`` if there are none."""
        if not self.count:
            return None
        rank = share * self.count
        seen = 0
        for at in sorted(self._bins):
            seen += self._bins[at]
            if seen >= rank:
                return min(_upper_us(at) * 1_000, self.max_ns)
        return self.max_ns


def _upper_us(at: int) -> int:
    """The end of a bin, in microseconds."""
    shift = (at >> _BITS) - 1
    if shift <= 0:
        return at + 1
    return ((at & (_BINS - 1)) + _BINS + 1) << shift
