"""What adapters of every kind have: a state, a queue to the bus, an account of their frames.

The bus is one where every frame is acknowledged and nobody else transmits at the same time: a
frame takes the time that its bits take. No I/O, no clock; times are monotonic nanoseconds.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from enum import Enum
from typing import ClassVar

from canbroker.backends.slcan.codec import BEL, LineError, decode
from canbroker.model.bus_time import bus_time_ns
from canbroker.model.frame import BITRATE_SWITCH, FD, Frame, describe
from canbroker.simulator.options import SimulatorOptions

_REMEMBERED_FRAMES = 65_536
_REMEMBERED_COMMANDS = 100


class State(Enum):
    CLOSED = "closed"
    OPEN = "open"
    LISTEN = "listen"


class Ledger:
    """What became of the frames and commands that a host wrote."""

    def __init__(self) -> None:
        #: Frames that went to the bus, in the order in which they did; candump's notation.
        self.accepted: deque[str] = deque(maxlen=_REMEMBERED_FRAMES)
        self.accepted_count = 0
        #: Transmits that were refused with BEL.
        self.refused_count = 0
        #: Frames that the adapter dropped without saying so.
        self.lost_count = 0
        #: Commands that were answered with BEL, and how often. A host that cleans up before it
        #: opens causes some.
        self.refused_commands: dict[str, int] = {}

    def accept(self, frame: Frame) -> None:
        self.accepted.append(describe(frame))
        self.accepted_count += 1

    def refuse_command(self, line: bytes) -> None:
        name = line[:8].decode("ascii", "backslashreplace")
        if name in self.refused_commands or len(self.refused_commands) < _REMEMBERED_COMMANDS:
            self.refused_commands[name] = self.refused_commands.get(name, 0) + 1


class BusQueue:
    """When the frames that wait for the bus have left."""

    def __init__(self) -> None:
        self.bitrate = 500_000
        self.data_bitrate = 2_000_000
        self._done_ns: deque[int] = deque()

    def waiting(self, now_ns: int) -> int:
        """The number of frames that have not left yet, the one on the bus included."""
        while self._done_ns and self._done_ns[0] <= now_ns:
            self._done_ns.popleft()
        return len(self._done_ns)

    def add(self, frame: Frame, now_ns: int) -> None:
        begins_ns = max(now_ns, self._done_ns[-1] if self._done_ns else 0)
        self._done_ns.append(begins_ns + self.duration_ns(frame))

    def duration_ns(self, frame: Frame) -> int:
        data_bitrate = self.data_bitrate if frame.flags & BITRATE_SWITCH else None
        return bus_time_ns(frame, self.bitrate, data_bitrate)

    def clear(self) -> None:
        self._done_ns.clear()


class Firmware(ABC):
    """An adapter from the first byte of a host to the frame on the bus, and back."""

    #: Whether it answers transmits, so that an operator can ask for a wrong answer.
    acknowledges: ClassVar[bool] = True
    #: How long it boots when a program opens its port (DTR resets it); 0: opening does nothing.
    boot_ns: ClassVar[int] = 0
    fd: ClassVar[bool] = False

    def __init__(self, options: SimulatorOptions) -> None:
        self.options = options
        self.state = State.CLOSED
        self.opened = 0
        #: When the last byte from the host has arrived, if it came over a line with a speed.
        self.arrived_ns = 0
        self.ledger = Ledger()
        self.bus = BusQueue()
        #: Transmits still to refuse, and still to accept without an answer.
        self.refuse_next = 0
        self.mute_next = 0

    @abstractmethod
    def receive(self, data: bytes, now_ns: int) -> bytes:
        """The answers to whatever commands the host's bytes complete."""

    @abstractmethod
    def line(self, frame: Frame, now_ns: int) -> bytes:
        """The line with which the adapter reports a frame from the bus."""

    @property
    def receives(self) -> bool:
        """Whether it passes frames from the bus to the host."""
        return self.state is not State.CLOSED

    def carries(self, frame: Frame) -> bool:
        """Whether the adapter has a line for the frame."""
        return self.fd or not frame.flags & FD

    def port_opened(self, _now_ns: int) -> None:
        """A program has opened the adapter's port. Most adapters do not notice."""
        return

    def poll(self, _now_ns: int) -> bytes:
        """What the adapter says on its own account by now."""
        return b""

    def due_ns(self) -> int | None:
        """When :meth:`poll` has something to do next; ``None``: nothing that time would bring."""
        return None

    def power_off(self) -> None:
        self.state = State.CLOSED
        self.bus.clear()


class RefusingFirmware(Firmware):
    """An adapter that answers every transmit, and refuses one that it has no room for."""

    #: Frames that wait for the bus.
    queue_size: ClassVar[int]

    def __init__(self, options: SimulatorOptions) -> None:
        super().__init__(options)
        self._queue_size = options.queue or self.queue_size

    def transmit(self, line: bytes, now_ns: int, done: bytes) -> bytes:
        """The answer to a frame's line: ``done``, BEL, or nothing if the operator wants that."""
        frame = self._frame_to_send(line, now_ns)
        if frame is None or self.refuse_next:
            self.refuse_next = max(0, self.refuse_next - 1)
            self.ledger.refused_count += 1
            return BEL
        self.bus.add(frame, now_ns)
        self.ledger.accept(frame)
        if self.mute_next:
            self.mute_next -= 1
            return b""
        return done

    def _frame_to_send(self, line: bytes, now_ns: int) -> Frame | None:
        """The frame, if the channel is open, the line is right and the queue has room."""
        try:
            frame, stamp = decode(line)
        except LineError:
            return None
        full = self.bus.waiting(now_ns) >= self._queue_size
        if full or stamp is not None or self.state is not State.OPEN or not self.carries(frame):
            return None
        return frame


class StaleData:
    """Data bytes behind a remote frame: what the controller's receive buffer still holds.

    Firmware that prints ``DLC`` bytes for every frame prints those of an earlier data frame.
    """

    def __init__(self) -> None:
        self._buffer = bytearray(8)

    def behind(self, frame: Frame) -> bytes:
        """The digits that such a firmware prints behind a remote frame."""
        if isinstance(frame.data, int):
            return self._buffer[: frame.data].hex().upper().encode("ascii")
        kept = frame.data[: len(self._buffer)]
        self._buffer[: len(kept)] = kept
        return b""
