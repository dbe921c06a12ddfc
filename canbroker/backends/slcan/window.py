"""Tracks transmits through a serial adapter, and their answers; no I/O.

The adapter answers every transmit in order: CR (or ``z``, ``Z`` and CR) "accepted", BEL "refused".
An open channel refuses a valid frame when its transmit queue is full, so a refused frame is sent
again. Several transmits are under way at a time, because a round trip over USB takes longer than a
frame on the bus. The price: the queue can drain between two lines, so that the adapter accepts a
frame after a refused one. Resending the refused one would invert their order, so it fails instead.
The backend avoids this by sending one at a time when the queue may be full (``backlog``).
"""

from __future__ import annotations

import threading
from bisect import insort
from collections import deque
from collections.abc import Callable, Sequence

from canbroker.backends.base import Transmit
from canbroker.model.frame import Frame
from canbroker.system.clock import MILLISECOND, SECOND

WINDOW = 8
ACKNOWLEDGE_NS = 1 * SECOND
RETRY_FOR_NS = 1 * SECOND
RETRY_EVERY_NS = 1 * MILLISECOND
#: Acknowledgements in a row that open the window by one more.
_GROW_AFTER = 64


class _Entry:
    __slots__ = ("line", "number", "refused_ns", "sent_ns", "transmit")

    def __init__(self, number: int, transmit: Transmit, line: bytes) -> None:
        self.number = number  # position in the order of transmission
        self.transmit = transmit
        self.line = line
        self.sent_ns = 0
        self.refused_ns = 0  # the first time; 0 is never

    def gives_up_ns(self) -> int | None:
        """When it fails if it still waits; ``None``: never."""
        times = [self.transmit.expires_ns] if self.transmit.expires_ns else []
        if self.refused_ns:
            times.append(self.refused_ns + RETRY_FOR_NS)
        return min(times, default=None)

    def fail(self, why: str) -> Transmit:
        self.transmit.failure = why
        return self.transmit


def _number(entry: _Entry) -> int:
    return entry.number


class TransmitWindow:
    """The order and the number of transmits under way. Times are monotonic ns; any thread.

    The caller writes the lines that methods return, in this order.
    """

    def __init__(
        self, encode: Callable[[Frame], bytes], acknowledge_ns: int = ACKNOWLEDGE_NS
    ) -> None:
        self._encode = encode
        self.acknowledge_ns = acknowledge_ns
        self._lock = threading.Lock()
        self._outstanding: deque[_Entry] = deque()  # written, not answered
        self._waiting: list[_Entry] = []  # refused, or behind a refused one; in order
        self._size = WINDOW
        self._streak = 0  # acknowledgements in a row
        self._next_number = 0
        self._retry_ns = 0
        self._retrying = False  # the one outstanding is being sent again
        self._asking = False

    @property
    def is_empty(self) -> bool:
        """Whether nothing is under way: no time limit runs, and there is nothing to retry."""
        return not (self._outstanding or self._waiting)

    def ask(self) -> bool:
        """Holds transmits back until :meth:`answered`, so that the next answer is to a question.

        ``False`` if some are under way.
        """
        with self._lock:
            if self._outstanding or self._waiting:
                return False
            self._asking = True
            return True

    def answered(self) -> None:
        """The question was answered or given up; :meth:`retry` sends the transmits that wait."""
        with self._lock:
            self._asking = False

    def room(self, *, alone: bool = False) -> int:
        """How many transmits :meth:`add` would write at once.

        ``alone``: as if the window had the size 1, where no frame can overtake another.
        """
        with self._lock:
            if alone:
                return min(1, self._room()) if not self._outstanding else 0
            return self._room()

    def add(self, transmits: Sequence[Transmit], now_ns: int) -> bytes:
        """Adds transmits; returns the lines to write now.

        A refusal may close the window between :meth:`room` and this call: the surplus then waits
        for :meth:`retry`.
        """
        with self._lock:
            entries = [
                _Entry(self._next_number + i, item, self._encode(item.frame))
                for i, item in enumerate(transmits)
            ]
            self._next_number += len(entries)
            room = self._room()
            self._waiting.extend(entries[room:])
            return self._under_way(entries[:room], now_ns)

    def taken(self) -> list[Transmit] | None:
        """The adapter accepted the oldest transmit. Returns the transmits that this ends, in order:
        refused ones that it overtook, then itself. ``None`` if none was under way."""
        with self._lock:
            if not self._outstanding:
                return None
            entry = self._pop()
            ended = []
            while self._waiting and self._waiting[0].number < entry.number:
                overtaken = self._waiting.pop(0)
                ended.append(
                    overtaken.fail("refused by the adapter (BEL), which then took a later frame")
                )
            ended.append(entry.transmit)
            self._streak += 1
            if self._streak >= _GROW_AFTER and self._size < WINDOW:
                self._size += 1
                self._streak = 0
            return ended

    def refused(self, now_ns: int) -> bool:
        """The adapter refused the oldest transmit; ``False`` if there was none."""
        with self._lock:
            if not self._outstanding:
                return False
            entry = self._pop()
            entry.refused_ns = entry.refused_ns or now_ns
            insort(self._waiting, entry, key=_number)
            self._size = max(1, self._size // 2)
            self._streak = 0
            self._retry_ns = now_ns + RETRY_EVERY_NS
            return True

    def give_up(self, now_ns: int) -> list[Transmit]:
        """Fails and returns, in order, the transmits that have waited too long."""
        with self._lock:
            ended = []
            kept: list[_Entry] = []
            for entry in self._waiting:
                until = entry.gives_up_ns()
                if until is None or now_ns < until:
                    kept.append(entry)
                elif entry.refused_ns:
                    milliseconds = (now_ns - entry.refused_ns) // MILLISECOND
                    ended.append(entry.fail(f"refused by the adapter for {milliseconds} ms (BEL)"))
                else:
                    ended.append(entry.fail("expired behind a frame that the adapter refused"))
            self._waiting = kept
            return ended

    def retry(self, now_ns: int) -> bytes:
        """The line to write again now, if any.

        One at a time, and only when nothing else is under way, so that no frame can overtake it.
        """
        with self._lock:
            if self._outstanding or self._asking or not self._waiting or now_ns < self._retry_ns:
                return b""
            self._retrying = True
            return self._under_way([self._waiting.pop(0)], now_ns)

    def overdue(self, now_ns: int) -> Transmit | None:
        """The oldest transmit, if its answer is overdue."""
        with self._lock:
            if self._outstanding and now_ns >= self._outstanding[0].sent_ns + self.acknowledge_ns:
                return self._outstanding[0].transmit
            return None

    def due_ns(self) -> int | None:
        """When the next of these deadlines is."""
        if self.is_empty:
            return None
        with self._lock:
            times = [until for entry in self._waiting if (until := entry.gives_up_ns()) is not None]
            if self._outstanding:
                times.append(self._outstanding[0].sent_ns + self.acknowledge_ns)
            elif self._waiting and not self._asking:
                times.append(self._retry_ns)
            return min(times, default=None)

    def abandon(self) -> list[Transmit]:
        """Everything that has not ended, in order; the window is empty afterwards."""
        with self._lock:
            left = sorted([*self._outstanding, *self._waiting], key=_number)
            self._outstanding.clear()
            self._waiting.clear()
            self._retrying = False
            return [entry.transmit for entry in left]

    def _room(self) -> int:
        # A frame that is being sent again also holds the others back. This keeps the order, and
        # prevents two threads from writing at the same time.
        if self._waiting or self._retrying or self._asking:
            return 0
        return max(0, self._size - len(self._outstanding))

    def _under_way(self, entries: list[_Entry], now_ns: int) -> bytes:
        for entry in entries:
            entry.sent_ns = now_ns
        self._outstanding.extend(entries)
        return b"".join(entry.line for entry in entries)

    def _pop(self) -> _Entry:
        self._retrying = False
        return self._outstanding.popleft()
