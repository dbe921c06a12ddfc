"""How late something was, over and over: a histogram with a constant cost and a known error."""

from __future__ import annotations

from typing import Final

#: Each power of two is cut into so many bins: percentiles are right to one eighth.
_BINS: Final = 8
_BITS: Final = _BINS.bit_length() - 1


def bin_of(late_ns: int) -> int:
    """The bin of a time; microseconds are told apart, not less."""
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
        """Counts one; ``at`` is :func:`bin_of` it, known already when many are as late."""
        bins = self._bins
        bins[at] = bins.get(at, 0) + 1
        self.count += 1
        self.max_ns = max(self.max_ns, late_ns)

    def percentile(self, share: float) -> int | None:
        """Nanoseconds that ``share`` (0 to 1) of all were not later than; ``None`` of none."""
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
