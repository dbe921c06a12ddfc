"""A CAN bus without hardware: the channel actor that owns the backend owns the whole bus.

Clients of the channel are its nodes. ``read`` returns a frame that one of them transmits once it
has been on the bus, and the actor echoes it to the others. With a ``bitrate``, frames take as long
as on a real bus, and waiting clients compete for it by arbitration.
"""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections import deque
from collections.abc import Sequence
from typing import ClassVar, Final

from canbroker.backends.base import AdapterGoneError, Backend, Options, Transmit
from canbroker.model.bus_time import arbitration_key, bus_time_ns
from canbroker.model.frame import HARDWARE_TIMESTAMP
from canbroker.system import clock
from canbroker.system.wake import Wake

#: Transmits that a bus without a bitrate holds until they are read.
CAPACITY = 8192
#: Transmits of one client that wait for a bus with a bitrate: the mailboxes of a controller.
QUEUE_DEPTH = 32

#: How long a frame may wait that its client may have sent for an answer, at most.
_AWAITED_NS: Final = 500 * clock.MICROSECOND

MIN_BITRATE = 1_000
MAX_BITRATE = 1_000_000
MAX_DATA_BITRATE = 8_000_000


class VirtualOptions(Options, kw_only=True, frozen=True):
    """Parameters of a virtual bus; ``channel`` can be any name.

    ``bitrate`` and ``data_bitrate`` are in bit/s. Without ``bitrate``, frames take no time. Without
    ``data_bitrate``, a frame with bitrate switch is sent at ``bitrate`` throughout.
    """

    usual_coalesce_us: ClassVar[int] = 2_000

    bitrate: int | None = None
    data_bitrate: int | None = None
    fd: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.channel:
            raise ValueError("channel must not be empty")
        if self.bitrate is not None and not MIN_BITRATE <= self.bitrate <= MAX_BITRATE:
            raise ValueError(
                f"bitrate must be {MIN_BITRATE} to {MAX_BITRATE} bit/s, got {self.bitrate}"
            )
        if self.data_bitrate is None:
            return
        if self.bitrate is None:
            raise ValueError("data_bitrate needs a bitrate, too")
        if not self.fd:
            raise ValueError("data_bitrate needs fd = true")
        if not self.bitrate <= self.data_bitrate <= MAX_DATA_BITRATE:
            raise ValueError(
                f"data_bitrate must be {self.bitrate} (the bitrate) to {MAX_DATA_BITRATE} bit/s, "
                f"got {self.data_bitrate}"
            )


OPTIONS = VirtualOptions


def open(options: Options) -> Backend:  # noqa: A001 - the name that every backend module has
    """Returns a new bus of these :class:`VirtualOptions`."""
    if not isinstance(options, VirtualOptions):
        raise TypeError(f"a virtual bus takes VirtualOptions, got {options!r}")
    return InstantBus(options) if options.bitrate is None else TimedBus(options, options.bitrate)


class VirtualBus(Backend):
    """The common part of both kinds of bus: the lock, the descriptor, closing."""

    supports_error_frames = True
    keeps_timestamps = True

    def __init__(self, options: VirtualOptions) -> None:
        self.bitrate = options.bitrate
        self.data_bitrate = options.data_bitrate
        self.fd = options.fd
        self.info = f"virtual bus {options.channel}"
        self._lock = threading.Lock()
        self._closed = False
        self._wake = Wake()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.info}{' closed' if self._closed else ''}>"

    def fileno(self) -> int:
        return self._wake.fileno()

    def read(self) -> Sequence[Transmit]:
        # Before the lock: a send after it sets the flag again, at worst for a read of nothing.
        self._wake.clear()
        with self._lock:
            self._check_open()
            return self._ended()

    def send(self, transmits: Sequence[Transmit]) -> None:
        with self._lock:
            is_new = self._accept(transmits)  # also if the bus is closed: abandon() returns them
            self._check_open()
        if is_new:
            self._wake.set()

    def close(self) -> None:
        with self._lock:
            self._closed = True
        self._wake.close()

    def _check_open(self) -> None:
        if self._closed:
            raise AdapterGoneError(f"{self.info} is closed")

    @abstractmethod
    def _accept(self, transmits: Sequence[Transmit]) -> bool:
        """Queues transmits; returns whether the reader must be woken. Under the lock."""

    @abstractmethod
    def _ended(self) -> list[Transmit]:
        """Removes and returns the transmits that have ended. Under the lock."""


class InstantBus(VirtualBus):
    """A bus without a bitrate: a frame has been sent as soon as it is handed over."""

    immediate = True

    def __init__(self, options: VirtualOptions) -> None:
        super().__init__(options)
        self._unread: list[Transmit] = []

    def room(self, sender: str) -> int:  # noqa: ARG002 - all clients share the room
        return CAPACITY - len(self._unread)

    def abandon(self) -> Sequence[Transmit]:
        with self._lock:
            return self._ended()

    def _accept(self, transmits: Sequence[Transmit]) -> bool:
        now_ns, wall_ns = clock.monotonic_ns(), clock.wall_ns()
        for transmit in transmits:
            if _is_expired(transmit, now_ns):
                transmit.failure = _expiry(transmit, now_ns)
            else:
                transmit.timestamp_ns = _timestamp_ns(transmit, wall_ns)
        self._unread += transmits
        return False

    def _ended(self) -> list[Transmit]:
        ended, self._unread = self._unread, []
        return ended


class TimedBus(VirtualBus):
    """A bus with a bitrate, run by a :class:`Timeline`; each ``read`` brings it up to date.

    Frames in close succession are reported together, as a USB adapter does: a process that wakes up
    for each of 8,800 frames per second does little else.
    """

    def __init__(self, options: VirtualOptions, bitrate: int) -> None:
        super().__init__(options)
        self.info += f", {bitrate} bit/s"
        if options.data_bitrate is not None:
            self.info += f", data {options.data_bitrate} bit/s"
        self._timeline = Timeline(bitrate, options.data_bitrate)
        self._coalesce_ns = options.coalesce_ns
        self._told_ns = 0  # monotonic, of the last read
        self._wall_offset_ns = clock.wall_ns() - clock.monotonic_ns()

    def due_ns(self) -> int | None:
        with self._lock:
            timeline = self._timeline
            due_ns = timeline.due_ns()
            if due_ns is None or not timeline.is_busy:
                return due_ns
            wait_ns = self._coalesce_ns
            if not timeline.is_streaming:
                wait_ns = min(wait_ns, _AWAITED_NS)
            return max(due_ns, self._told_ns + wait_ns)

    def room(self, sender: str) -> int:
        with self._lock:
            return self._timeline.room(sender)

    def abandon(self) -> Sequence[Transmit]:
        with self._lock:
            return self._timeline.drain()

    def _accept(self, transmits: Sequence[Transmit]) -> bool:
        was_idle = self._timeline.due_ns() is None
        for transmit in transmits:
            self._timeline.put(transmit)
        return was_idle

    def _ended(self) -> list[Transmit]:
        now_ns = clock.monotonic_ns()
        self._follow_wall_clock(now_ns)
        ended = self._timeline.step(now_ns)
        self._told_ns = now_ns
        for end_ns, transmit in ended:
            if transmit.failure is None:
                wall_ns = end_ns + self._wall_offset_ns
                transmit.timestamp_ns = _timestamp_ns(transmit, wall_ns)
        return [transmit for _, transmit in ended]

    def _follow_wall_clock(self, now_ns: int) -> None:
        """Renews the offset when the wall clock was set or the machine slept.

        Otherwise it is kept: two clocks are never read at the same moment, and the jitter would
        spoil the intervals between timestamps, which are exact.
        """
        offset_ns = clock.wall_ns() - now_ns
        if abs(offset_ns - self._wall_offset_ns) > clock.SECOND:
            self._wall_offset_ns = offset_ns


class Timeline:
    """Simulates a bus with bit rates in virtual time: which frame is sent when, and how long.

    Whenever the bus becomes free, the heads of all clients' queues compete by their arbitration
    field, and the winner occupies the bus for exactly its bits. The result does not depend on how
    often or how late :meth:`step` is called. Times are monotonic ns; one thread at a time.
    """

    def __init__(self, bitrate: int, data_bitrate: int | None = None) -> None:
        self._bitrate = bitrate
        self._data_bitrate = data_bitrate
        self._queues: dict[str, deque[Transmit]] = {}  # of clients with a frame waiting
        self._on_wire: Transmit | None = None
        self._free_ns = 0  # end of the frame on the wire, or of the last one that was

    def room(self, sender: str) -> int:
        """How many more frames this client can queue."""
        return QUEUE_DEPTH - len(self._queues.get(sender, ()))

    @property
    def is_busy(self) -> bool:
        """Whether another frame follows the one on the wire."""
        return self._on_wire is not None and bool(self._queues)

    @property
    def is_streaming(self) -> bool:
        """Whether the client of the frame on the wire has queued others behind it."""
        return self._on_wire is not None and self._on_wire.sender in self._queues

    def put(self, transmit: Transmit) -> None:
        """Queues a frame, which takes part in arbitration from its ``queued_ns`` on."""
        self._queues.setdefault(transmit.sender, deque()).append(transmit)

    def due_ns(self) -> int | None:
        """When the next frame starts or ends; ``None`` if the bus is idle and no frame waits."""
        if self._on_wire is not None:
            return self._free_ns
        if not self._queues:
            return None
        return max(self._free_ns, min([queue[0].queued_ns for queue in self._queues.values()]))

    def step(self, now_ns: int) -> list[tuple[int, Transmit]]:
        """Advances to ``now_ns``; returns the transmits that ended since, with their end times."""
        ended: list[tuple[int, Transmit]] = []
        while (due_ns := self.due_ns()) is not None and due_ns <= now_ns:
            if self._on_wire is not None:
                ended.append((due_ns, self._on_wire))
                self._on_wire = None
                continue
            transmit = self._take_winner(due_ns)
            if _is_expired(transmit, due_ns):
                transmit.failure = _expiry(transmit, due_ns)
                ended.append((due_ns, transmit))
                continue
            self._on_wire = transmit
            self._free_ns = due_ns + bus_time_ns(transmit.frame, self._bitrate, self._data_bitrate)
        return ended

    def drain(self) -> list[Transmit]:
        """Removes and returns all transmits that have not ended, in the order of their queueing."""
        waiting = [transmit for queue in self._queues.values() for transmit in queue]
        waiting.sort(key=lambda transmit: transmit.queued_ns)
        if self._on_wire is not None:
            waiting.insert(0, self._on_wire)
        self._on_wire = None
        self._queues.clear()
        return waiting

    def _take_winner(self, now_ns: int) -> Transmit:
        """Removes and returns the head that wins at ``now_ns``: the lowest key, then the oldest.

        Expired heads come first, so that frames of higher priority cannot delay their failure.
        """
        waiting = [queue for queue in self._queues.values() if queue[0].queued_ns <= now_ns]
        winner = waiting[0] if len(waiting) == 1 else _winner(waiting, now_ns)
        transmit = winner.popleft()
        if not winner:
            del self._queues[transmit.sender]
        return transmit


def _winner(queues: list[deque[Transmit]], now_ns: int) -> deque[Transmit]:
    def rank(queue: deque[Transmit]) -> tuple[bool, int, int]:
        head = queue[0]
        key = arbitration_key(head.frame.arbitration_id, head.frame.flags)
        return not _is_expired(head, now_ns), key, head.queued_ns

    return min(queues, key=rank)


def _timestamp_ns(transmit: Transmit, wall_ns: int) -> int:
    """The timestamp of a frame sent at ``wall_ns``; its sender may have set another one."""
    frame = transmit.frame
    return frame.timestamp_ns if frame.flags & HARDWARE_TIMESTAMP else wall_ns


def _is_expired(transmit: Transmit, now_ns: int) -> bool:
    return 0 < transmit.expires_ns <= now_ns


def _expiry(transmit: Transmit, now_ns: int) -> str:
    waited_ms = (now_ns - transmit.queued_ns) / clock.MILLISECOND
    return f"expired after waiting {waited_ms:.1f} ms for the bus"
