"""Transmits on their way through the kernel, and what confirms them; no I/O.

The kernel hands every frame that this socket has sent back to it when the controller has sent
it: its confirmation. They come in the order of transmission; a missing one is noticed when a
later frame's comes, and waited for, as a queueing discipline may have changed the order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final

from canbroker.backends.base import Transmit
from canbroker.backends.socketcan.codec import can_id_of, encode
from canbroker.clock import MILLISECOND, SECOND

#: Transmits under way. Small, as a frame that the kernel has cannot be taken back, and as others
#: wait behind it; large enough to keep the bus busy between two wake-ups.
WINDOW: Final = 128

#: How long a confirmation may be late once there is reason to think that it was lost.
DOUBT_NS: Final = 1 * SECOND

RETRY_FIRST_NS: Final = 1 * MILLISECOND
RETRY_MAX_NS: Final = 10 * MILLISECOND


class _Entry:
    __slots__ = ("doubted_ns", "transmit", "wire")

    def __init__(self, transmit: Transmit) -> None:
        self.transmit = transmit
        self.wire = encode(transmit.frame)
        self.doubted_ns = 0  # since when its confirmation seems lost; 0 is not at all


class TransmitQueue:
    """What waits for the kernel, what it has, and what has failed. Times are monotonic ns.

    Not thread-safe: guarded by its owner.
    """

    def __init__(self) -> None:
        self.window = WINDOW  # how many may be under way now
        self._waiting: deque[_Entry] = deque()
        self._outstanding: deque[_Entry] = deque()
        self._failed: list[Transmit] = []
        self._retry_ns = 0
        self._backoff_ns = RETRY_FIRST_NS
        self._doubts = False  # whether any outstanding one is doubted

    def room(self) -> int:
        """How many more are taken; none while the kernel is full, so that clients take turns."""
        if self._waiting:
            return 0
        return max(0, self.window - len(self._outstanding) - len(self._failed))

    def add(self, transmits: Iterable[Transmit]) -> None:
        self._waiting.extend(map(_Entry, transmits))

    def head(self) -> bytes | None:
        """What to write next."""
        return self._waiting[0].wire if self._waiting else None

    def written(self) -> None:
        """The kernel has taken the head."""
        self._outstanding.append(self._waiting.popleft())
        self._backoff_ns = RETRY_FIRST_NS

    def refused(self, why: str) -> None:
        """The kernel will never take the head."""
        self._fail(self._waiting.popleft(), why)

    def full(self, now_ns: int) -> None:
        """The kernel has no room for the head now."""
        self._retry_ns = now_ns + self._backoff_ns
        self._backoff_ns = min(self._backoff_ns * 2, RETRY_MAX_NS)

    def should_retry(self, now_ns: int, *, confirmed: bool) -> bool:
        """Whether to write the head: something left the kernel's queue, or it is time."""
        return bool(self._waiting) and (confirmed or now_ns >= self._retry_ns)

    def confirm(self, wire: bytes, timestamp_ns: int, now_ns: int) -> Transmit | None:
        """The transmit that a frame of our own confirms; ``None`` if there is none."""
        outstanding = self._outstanding
        if outstanding and outstanding[0].wire == wire:  # nearly always
            transmit = outstanding.popleft().transmit
        else:
            at = next((i for i, entry in enumerate(outstanding) if entry.wire == wire), None)
            if at is None:
                return None
            for overtaken in list(outstanding)[:at]:
                self._doubt(overtaken, now_ns)
            transmit = outstanding[at].transmit
            del outstanding[at]
        transmit.timestamp_ns = timestamp_ns
        return transmit

    def doubt_all(self, now_ns: int) -> None:
        """Received frames were dropped; some may have been confirmations."""
        for entry in self._outstanding:
            self._doubt(entry, now_ns)

    def fail_all(self, why: str) -> None:
        """Nothing that is under way will be sent."""
        while self._outstanding:
            self._fail(self._outstanding.popleft(), why)
        while self._waiting:
            self._fail(self._waiting.popleft(), why)

    def give_up(self, now_ns: int) -> None:
        """Fails what has waited for long enough.

        What the kernel has is not failed when it expires: it cannot be taken back, and may yet
        be sent.
        """
        if self._doubts:
            lost = "sent to the kernel, which did not confirm it but a later one, or lost that"
            late = [e for e in self._outstanding if 0 < e.doubted_ns <= now_ns - DOUBT_NS]
            for entry in late:
                self._outstanding.remove(entry)
                self._fail(entry, lost)
            self._doubts = any(entry.doubted_ns for entry in self._outstanding)
        if any(0 < entry.transmit.expires_ns <= now_ns for entry in self._waiting):
            kept: deque[_Entry] = deque()
            for entry in self._waiting:
                if 0 < entry.transmit.expires_ns <= now_ns:
                    self._fail(entry, "expired while the kernel's transmit queue was full")
                else:
                    kept.append(entry)
            self._waiting = kept

    def take_failed(self) -> Sequence[Transmit]:
        """Those that have failed since the last call."""
        failed, self._failed = self._failed, []
        return failed

    def needs_reader(self) -> bool:
        """Whether something waits that no received frame announces."""
        return bool(self._waiting or self._failed)

    def due_ns(self) -> int | None:
        """When to call :meth:`give_up` and :meth:`should_retry` next."""
        times = []
        if self._waiting:
            times.append(self._retry_ns)
            times.extend(e.transmit.expires_ns for e in self._waiting if e.transmit.expires_ns)
        if self._doubts:
            times.extend(e.doubted_ns + DOUBT_NS for e in self._outstanding if e.doubted_ns)
        return min(times, default=None)

    def can_ids(self) -> set[int]:
        """Identifiers and formats that confirmations will have."""
        return {
            can_id_of(entry.transmit.frame.arbitration_id, entry.transmit.frame.flags)
            for entry in (*self._outstanding, *self._waiting)
        }

    def abandon(self) -> list[Transmit]:
        """Everything that has not been returned; the queue is empty afterwards."""
        left = [*self._failed, *(e.transmit for e in (*self._outstanding, *self._waiting))]
        self._failed = []
        self._outstanding.clear()
        self._waiting.clear()
        return left

    def _doubt(self, entry: _Entry, now_ns: int) -> None:
        entry.doubted_ns = entry.doubted_ns or now_ns
        self._doubts = True

    def _fail(self, entry: _Entry, why: str) -> None:
        entry.transmit.failure = why
        self._failed.append(entry.transmit)
