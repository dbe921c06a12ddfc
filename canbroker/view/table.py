"""A bus as a table: one row for each identifier, with its count, rate, period, jitter and data.

For displays, which look a few times a second. Frames come in batches, thousands a second; what can
be computed less often than for each frame is computed in :meth:`Table.tick`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

from canbroker.model.frame import ERROR, EXTENDED, REMOTE, EchoFrame
from canbroker.system import clock

#: Rates are over this time, at least.
_WINDOW_NS: Final = clock.SECOND

#: Periods are means of as many gaps, or of those of the last 20 s.
_GAPS: Final = 8
_PERIOD_NS: Final = 20 * clock.SECOND

#: A full table gives up the rows that were silent for this time.
_FORGET_NS: Final = 60 * clock.SECOND

#: Frames that differ in these flags, or in this bit of a key, have different rows.
_FORMAT: Final = EXTENDED | REMOTE | ERROR
_SENT: Final = 8


class Row:
    """The frames of one identifier and direction. Times are in nanoseconds.

    ``key`` is below 2**53. ``is_sent``: clients of the broker have sent the frames, not the bus.
    ``last`` is the last frame, and ``seen_ns`` when it came (monotonic). ``rate``: frames per
    second. ``period_ns`` is the mean of the latest gaps, ``jitter_ns`` their standard deviation;
    ``None`` before they are known. ``tick``: the last one in which the row changed; bit i of
    ``changed`` is set if byte i of the data did.
    """

    __slots__ = (
        "_bits",
        "_rated_count",
        "_rated_ns",
        "_squares",
        "_window_count",
        "_window_from_ns",
        "_window_ns",
        "changed",
        "count",
        "jitter_ns",
        "key",
        "last",
        "period_ns",
        "rate",
        "seen_ns",
        "tick",
    )

    def __init__(self, key: int, frame: EchoFrame, now_ns: int, tick: int) -> None:
        """The row of a first frame."""
        self.key = key
        self.last = frame
        self.count = 1
        self.seen_ns = now_ns
        self.rate = 0.0
        self.period_ns: int | None = None
        self.jitter_ns: int | None = None
        self.tick = tick
        self.changed = 0
        self._bits = 0  # that changed in this tick
        self._rated_ns = now_ns  # the rate is from here on
        self._rated_count = 0
        self._begin_window(now_ns)

    @property
    def is_sent(self) -> bool:
        return bool(self.key & _SENT)

    def age_ns(self, now_ns: int) -> int:
        """How long ago the last frame came (``now_ns``: monotonic)."""
        return max(0, now_ns - self.seen_ns)

    def _take(self, frame: EchoFrame, now_ns: int, tick: int) -> None:
        last = self.last
        gap_ns = frame.timestamp_ns - last.timestamp_ns
        self._squares += gap_ns * gap_ns
        self.count += 1
        self.seen_ns = now_ns
        self.tick = tick
        self.last = frame
        if frame.data != last.data:
            self._bits |= _differing(frame.data, last.data)

    def _end_tick(self) -> None:
        self.changed = _bytes_of(self._bits)
        self._bits = 0

    def _touch(self, tick: int) -> None:
        """Makes a row without frames in this tick one that has changed."""
        if self.tick != tick:
            self.tick, self.changed = tick, 0

    def _measure(self, now_ns: int, tick: int) -> None:
        gone_ns = now_ns - self._rated_ns
        if gone_ns < _WINDOW_NS:
            return
        gaps = self.count - self._window_count
        if gaps >= _GAPS or (gaps and now_ns - self._window_ns >= _PERIOD_NS):
            self._measure_period(gaps)
            self._begin_window(now_ns)
        elif gaps and self.period_ns is None:
            self._measure_period(gaps)
        number = self.count - self._rated_count
        self._rated_ns, self._rated_count = now_ns, self.count
        rate = number * clock.SECOND / gone_ns
        # A count of one or two jumps from second to second.
        if number < _GAPS and self.period_ns and self.age_ns(now_ns) < 2 * self.period_ns:
            rate = clock.SECOND / self.period_ns
        if rate != self.rate:
            self.rate = rate
            self._touch(tick)

    def _begin_window(self, now_ns: int) -> None:
        """The next period is that of the gaps from here on."""
        self._window_ns = now_ns
        self._window_from_ns = self.last.timestamp_ns
        self._window_count = self.count
        self._squares = 0

    def _measure_period(self, gaps: int) -> None:
        """Sets the period and its jitter from the gaps since the window began."""
        sum_ns = self.last.timestamp_ns - self._window_from_ns
        self.period_ns = max(0, sum_ns // gaps)
        self.jitter_ns = math.isqrt(max(0, self._squares * gaps - sum_ns * sum_ns)) // gaps


class Table:
    """The rows of one channel, at most ``limit``. One thread.

    ``unlisted`` counts the frames of identifiers for which there was no room, ``forgotten`` the
    rows that made room for them. ``generation`` grows when rows are removed.
    """

    def __init__(self, limit: int = 4096) -> None:
        self.rows: dict[int, Row] = {}
        self.unlisted = 0
        self.forgotten = 0
        self.generation = 0
        self._limit = limit
        self._tick = 1  # the current one
        self._measured_ns = 0

    def add(self, frames: Iterable[EchoFrame], now_ns: int) -> None:
        """Takes frames that have come at ``now_ns`` (monotonic), in their order."""
        rows, tick = self.rows, self._tick
        for frame in frames:
            key = frame.arbitration_id << 4 | (frame.flags & _FORMAT)
            if frame.origin is not None:
                key |= _SENT
            row = rows.get(key)
            if row is None:
                if len(rows) >= self._limit:
                    self.unlisted += 1
                    continue
                rows[key] = Row(key, frame, now_ns, tick)
            else:
                row._take(frame, now_ns, tick)

    def tick(self, now_ns: int) -> int:
        """Ends a tick: what changed in it is in :attr:`Row.changed`. Returns its number.

        A display calls it each time before it looks; rates and periods are measured once a second.
        """
        ended = self._tick
        self._tick += 1
        is_due = now_ns - self._measured_ns >= _WINDOW_NS
        for row in self.rows.values():
            if row.tick == ended:
                row._end_tick()
        if is_due:
            self._measured_ns = now_ns
            if len(self.rows) >= self._limit:
                self._forget(now_ns)
            for row in self.rows.values():
                row._measure(now_ns, ended)
        return ended

    def changed_since(self, tick: int) -> list[Row]:
        """The rows that changed after ``tick``, which :meth:`tick` has returned; 0: all rows."""
        return [row for row in self.rows.values() if row.tick > tick]

    def clear(self) -> None:
        """Removes all rows, and what was counted."""
        self.rows.clear()
        self.unlisted = self.forgotten = 0
        self.generation += 1

    def _forget(self, now_ns: int) -> None:
        silent = [key for key, row in self.rows.items() if row.age_ns(now_ns) > _FORGET_NS]
        for key in silent:
            del self.rows[key]
        if silent:
            self.forgotten += len(silent)
            self.generation += 1


def _differing(new: bytes | int, old: bytes | int) -> int:
    """The bits that differ; of data of different lengths, all beyond the shorter one do."""
    if isinstance(new, int) or isinstance(old, int):
        return 0
    bits = int.from_bytes(new, "little") ^ int.from_bytes(old, "little")
    if len(new) != len(old):
        short, long = sorted((len(new), len(old)))
        bits |= (1 << 8 * long) - (1 << 8 * short)
    return bits


def _bytes_of(bits: int) -> int:
    """Bit i is set if one of the eight bits of byte i is."""
    changed = at = 0
    while bits:
        changed |= bool(bits & 0xFF) << at
        bits >>= 8
        at += 1
    return changed
