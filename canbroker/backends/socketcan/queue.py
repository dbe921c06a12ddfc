"""Tracks transmits through the kernel, and their confirmations; no I/O.

The kernel hands every frame that this socket has sent back to it when the controller has sent
it: its confirmation. They come in the order of transmission; a missing one is noticed when a
later frame's comes, and waited for, as a queueing discipline may have changed the order.

When none comes at all, transmission stalls: frames under way are given up, and one frame at a time
is sent until the kernel confirms again. What was given up may still be sent: its confirmation is
recognised then. A driver that never confirms is served without (``confirms``).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from canbroker.backends.base import Transmit
from canbroker.backends.socketcan.codec import can_id_of, encode
from canbroker.model.frame import EchoFrame
from canbroker.system.clock import MILLISECOND, SECOND

#: Transmits under way. Small, as a frame that the kernel has cannot be taken back, and as others
#: wait behind it; large enough to keep the bus busy between two wake-ups.
WINDOW: Final = 128

#: How long a confirmation may be late once there is reason to think that it was lost.
DOUBT_NS: Final = 1 * SECOND

#: How long the kernel may confirm nothing while it has frames. A frame takes 15 ms on a bus of
#: 10 kbit/s; a frame that loses arbitration for this long is not known to be sent, either.
STALL_NS: Final = 2 * SECOND
STALLED: Final = f"transmission stalls: nothing was confirmed for {STALL_NS // SECOND} s"

RETRY_FIRST_NS: Final = 1 * MILLISECOND
RETRY_MAX_NS: Final = 10 * MILLISECOND

#: Frames that were given up and are recognised when they are sent after all: more than the
#: transmit queue of an interface usually holds.
_LATE: Final = 1024


class _Entry:
    __slots__ = ("doubted_ns", "transmit", "wire")

    def __init__(self, transmit: Transmit) -> None:
        self.transmit = transmit
        self.wire = encode(transmit.frame)
        self.doubted_ns = 0  # since when its confirmation seems lost; 0 is not at all


class TransmitQueue:
    """Transmits that wait for the kernel, are in it, or have ended. Times are monotonic ns.

    Not thread-safe: guarded by its owner.
    """

    def __init__(self) -> None:
        self.window = WINDOW  # how many may be under way now
        self.confirms = True  # whether the driver confirms sent frames
        self.stalled = False
        self.progress_ns = 0  # of the last confirmation, or when the wait for one began
        self.taken = 0  # by the kernel, ever
        self._waiting: deque[_Entry] = deque()
        self._outstanding: deque[_Entry] = deque()
        self._late: deque[_Entry] = deque(maxlen=_LATE)
        self._ended: list[Transmit] = []  # without a confirmation
        self._retry_ns = 0
        self._backoff_ns = RETRY_FIRST_NS
        self._doubts = False  # whether any outstanding one is doubted

    def room(self) -> int:
        """How many more fit; none while the kernel is full, so that clients take turns."""
        if self._waiting and not self.stalled:
            return 0
        under_way = len(self._outstanding) + len(self._waiting) + len(self._ended)
        return max(0, self.window - under_way)

    def add(self, transmits: Iterable[Transmit], now_ns: int) -> None:
        if not self.under_way():
            self.progress_ns = now_ns
        self._waiting.extend(map(_Entry, transmits))

    def under_way(self) -> bool:
        """Whether anything waits for the kernel, or for its confirmation."""
        return bool(self._outstanding or self._waiting)

    def head(self) -> bytes | None:
        """The frame to write next; ``None`` if there is none."""
        if not self._waiting or (self.stalled and self._outstanding):
            return None
        return self._waiting[0].wire

    def written(self, now_ns: int, wall_ns: int) -> None:
        """The kernel has accepted the head."""
        entry = self._waiting.popleft()
        self.taken += 1
        self._backoff_ns = RETRY_FIRST_NS
        if self.confirms:
            self._outstanding.append(entry)
        else:
            self.progress(now_ns)
            self._end(entry, wall_ns)

    def refused(self, why: str) -> None:
        """The kernel will never accept the head."""
        self._fail(self._waiting.popleft(), why)

    def full(self, now_ns: int) -> None:
        """The kernel has no room for the head now."""
        self._retry_ns = now_ns + self._backoff_ns
        self._backoff_ns = min(self._backoff_ns * 2, RETRY_MAX_NS)

    def should_retry(self, now_ns: int, *, confirmed: bool) -> bool:
        """Whether to write the head: something left the kernel's queue, or it is time."""
        return self.head() is not None and (confirmed or now_ns >= self._retry_ns)

    def progress(self, now_ns: int) -> None:
        """The interface sends."""
        self.progress_ns = now_ns
        self.stalled = False

    def confirm(self, wire: bytes, timestamp_ns: int, now_ns: int) -> Transmit | EchoFrame | None:
        """The transmit that a frame of our own confirms; ``None`` if there is none.

        If the transmit was given up before, and so has already ended, this is its echo.
        """
        self.progress(now_ns)
        outstanding = self._outstanding
        if outstanding and outstanding[0].wire == wire:  # nearly always
            transmit = outstanding.popleft().transmit
        else:
            at = _find(outstanding, wire)
            if at is None:
                return self._confirm_late(wire, timestamp_ns)
            for overtaken in list(outstanding)[:at]:
                self._doubt(overtaken, now_ns)
            transmit = outstanding[at].transmit
            del outstanding[at]
        if self._late:
            # They were written before this one, so the kernel has dropped them. But if one has the
            # same content, it may be the one sent just now, and this one is still to come.
            kept = (entry for entry in self._late if entry.wire == wire)
            self._late = deque(kept, maxlen=_LATE)
        transmit.timestamp_ns = timestamp_ns
        return transmit

    def doubt_all(self, now_ns: int) -> None:
        """Received frames were dropped; some may have been confirmations."""
        for entry in self._outstanding:
            self._doubt(entry, now_ns)

    def fail_all(self, why: str) -> None:
        """Fails all transmits under way: none will be sent."""
        self.stalled = False
        self._late.clear()
        while self._outstanding:
            self._fail(self._outstanding.popleft(), why)
        while self._waiting:
            self._fail(self._waiting.popleft(), why)

    def stall(self, now_ns: int) -> None:
        """Nothing was confirmed for too long: gives up the frames under way.

        What has a time to expire and is not with the kernel may wait until then.
        """
        self.progress_ns = now_ns
        self.stalled = True
        while self._outstanding:
            self._give_up(self._outstanding.popleft(), STALLED)
        self._fail_waiting(lambda entry: not entry.transmit.expires_ns, STALLED)

    def trust(self, wall_ns: int) -> None:
        """The driver never confirms, but has sent its frames."""
        self.confirms = self.stalled = self._doubts = False
        while self._outstanding:
            self._end(self._outstanding.popleft(), wall_ns)

    def give_up(self, now_ns: int) -> None:
        """Fails the transmits that have waited for too long.

        A frame that the kernel has does not fail when it expires: it cannot be taken back, and may
        still be sent.
        """
        if self._doubts:
            lost = "the kernel did not confirm it but a later one, or that was lost"
            late = [e for e in self._outstanding if 0 < e.doubted_ns <= now_ns - DOUBT_NS]
            for entry in late:
                self._outstanding.remove(entry)
                self._give_up(entry, lost)
            self._doubts = any(entry.doubted_ns for entry in self._outstanding)
        if any(0 < entry.transmit.expires_ns <= now_ns for entry in self._waiting):
            self._fail_waiting(
                lambda entry: 0 < entry.transmit.expires_ns <= now_ns,
                "expired while the kernel's transmit queue was full",
            )

    def take_ended(self) -> Sequence[Transmit]:
        """Removes and returns the transmits that have ended without a confirmation."""
        ended, self._ended = self._ended, []
        return ended

    def needs_reader(self) -> bool:
        """Whether something waits that no received frame announces."""
        return bool(self._waiting or self._ended)

    def due_ns(self) -> int | None:
        """When to call :meth:`give_up` and :meth:`should_retry` next; a stall is not counted."""
        times = [self._retry_ns] if self.head() is not None else []
        times.extend(e.transmit.expires_ns for e in self._waiting if e.transmit.expires_ns)
        if self._doubts:
            times.extend(e.doubted_ns + DOUBT_NS for e in self._outstanding if e.doubted_ns)
        return min(times, default=None)

    def can_ids(self) -> set[int]:
        """Identifiers and formats that confirmations will have."""
        return {
            can_id_of(entry.transmit.frame.arbitration_id, entry.transmit.frame.flags)
            for entry in (*self._outstanding, *self._waiting, *self._late)
        }

    def abandon(self) -> list[Transmit]:
        """Everything that has not been returned; the queue is empty afterwards."""
        left = [*self._ended, *(e.transmit for e in (*self._outstanding, *self._waiting))]
        self._ended = []
        self._outstanding.clear()
        self._waiting.clear()
        return left

    def _confirm_late(self, wire: bytes, timestamp_ns: int) -> EchoFrame | None:
        at = _find(self._late, wire)
        if at is None:
            return None
        transmit = self._late[at].transmit
        del self._late[at]
        frame = transmit.frame
        return EchoFrame(
            timestamp_ns, frame.arbitration_id, frame.flags, frame.data, transmit.origin
        )

    def _doubt(self, entry: _Entry, now_ns: int) -> None:
        entry.doubted_ns = entry.doubted_ns or now_ns
        self._doubts = True

    def _end(self, entry: _Entry, wall_ns: int) -> None:
        entry.transmit.timestamp_ns = wall_ns
        self._ended.append(entry.transmit)

    def _give_up(self, entry: _Entry, why: str) -> None:
        """The kernel has it, and may send it yet."""
        entry.transmit.unknown = True
        self._late.append(entry)
        self._fail(entry, why)

    def _fail_waiting(self, concerned: Callable[[_Entry], bool], why: str) -> None:
        waiting, self._waiting = self._waiting, deque()
        for entry in waiting:
            if concerned(entry):
                self._fail(entry, why)
            else:
                self._waiting.append(entry)

    def _fail(self, entry: _Entry, why: str) -> None:
        entry.transmit.failure = why
        self._ended.append(entry.transmit)


def _find(entries: Iterable[_Entry], wire: bytes) -> int | None:
    return next((at for at, entry in enumerate(entries) if entry.wire == wire), None)
