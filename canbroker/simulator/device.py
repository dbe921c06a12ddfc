"""The adapter itself: command lines in, answers out; no I/O, no clock of its own.

Source: LAWICEL AB, "CANUSB Manual", and the CANable 2.0 firmware documentation for FD.
"""

from __future__ import annotations

import re
from collections import deque
from enum import Enum

from canbroker.clock import MILLISECOND
from canbroker.frame import BITRATE_SWITCH, FD, Frame, bus_time_ns, describe
from canbroker.simulator.options import SimulatorOptions
from canbroker.slcan_codec import BEL, CR, LineBuffer, LineError, decode, encode

_BITRATES = {
    b"S0": 10_000,
    b"S1": 20_000,
    b"S2": 50_000,
    b"S3": 100_000,
    b"S4": 125_000,
    b"S5": 250_000,
    b"S6": 500_000,
    b"S7": 800_000,
    b"S8": 1_000_000,
}
_DATA_BITRATES = {b"Y2": 2_000_000, b"Y5": 5_000_000}
_REGISTERS = re.compile(rb"s([0-9A-Fa-f]{2})([0-9A-Fa-f]{2})")
_SJA1000_CLOCK = 16_000_000
_REMEMBERED_FRAMES = 65_536


class State(Enum):
    CLOSED = "closed"
    OPEN = "open"
    LISTEN = "listen"


class Device:
    """A Lawicel adapter on a bus where every frame is acknowledged. Times in monotonic ns.

    It starts closed at 500 kbit/s, with timestamps off.
    """

    def __init__(self, options: SimulatorOptions) -> None:
        self.state = State.CLOSED
        self.opened = 0
        self.accepted: deque[str] = deque(maxlen=_REMEMBERED_FRAMES)  # candump's notation
        self.accepted_count = 0
        self.refused_count = 0
        #: Commands that were answered with BEL, and how often. A host that cleans up before it
        #: opens causes some.
        self.refused_commands: dict[str, int] = {}
        #: Transmits still to refuse, and still to accept without an answer.
        self.refuse_next = 0
        self.mute_next = 0
        self._options = options
        self._lines = LineBuffer()
        self._bitrate = 500_000
        self._data_bitrate = 2_000_000
        self._stamped = False
        self._done_ns: deque[int] = deque()  # when each frame of the transmit queue has left

    def receive(self, data: bytes, now_ns: int) -> bytes:
        """The answers to whatever commands the host's bytes complete."""
        return b"".join(
            self._answer(line, now_ns) if end == CR else self._refusal(line)
            for line, end in self._lines.feed(data)
        )

    def carries(self, frame: Frame) -> bool:
        """Whether the adapter's dialect has a line for the frame."""
        return self._options.fd or not frame.flags & FD

    def line(self, frame: Frame, now_ns: int) -> bytes:
        """The line with which the adapter reports a frame from the bus."""
        return encode(frame, now_ns // MILLISECOND % 60_000 if self._stamped else None)

    def _answer(self, line: bytes, now_ns: int) -> bytes:
        letter = line[:1]
        if line == b"V":
            return b"V1013\r"
        if line == b"N":
            return b"NA123\r"
        if letter and letter in b"tTrRdDbB":
            return self._transmit(line, now_ns)
        if line == b"F" and self.state is not State.CLOSED:
            return self._unless_silent(b"F00\r")
        return self._unless_silent(CR) if self._command(line) else self._refusal(line)

    def _command(self, line: bytes) -> bool:
        """Does what a command says; ``False`` if the adapter refuses it now."""
        if line == b"C":
            return self._close()
        if self.state is not State.CLOSED:
            return False
        if line in (b"O", b"L"):
            self.state = State.OPEN if line == b"O" else State.LISTEN
            self.opened += 1
            return True
        if line in (b"Z0", b"Z1"):
            self._stamped = line == b"Z1" and self._options.timestamps
            return self._options.timestamps
        if line in _DATA_BITRATES and self._options.fd:
            self._data_bitrate = _DATA_BITRATES[line]
            return True
        return self._set_bitrate(line)

    def _set_bitrate(self, line: bytes) -> bool:
        if match := _REGISTERS.fullmatch(line):
            timing0, timing1 = (int(digits, 16) for digits in match.groups())
            quanta = 3 + (timing1 & 0x0F) + (timing1 >> 4 & 0x07)
            self._bitrate = _SJA1000_CLOCK // (2 * ((timing0 & 0x3F) + 1) * quanta)
            return True
        if line in _BITRATES:
            self._bitrate = _BITRATES[line]
            return True
        return False

    def _close(self) -> bool:
        was_open = self.state is not State.CLOSED
        self.state = State.CLOSED
        self._done_ns.clear()
        return was_open

    def _transmit(self, line: bytes, now_ns: int) -> bytes:
        frame = self._frame_to_send(line, now_ns)
        if frame is None or self.refuse_next:
            self.refuse_next = max(0, self.refuse_next - 1)
            self.refused_count += 1
            return self._unless_silent(BEL)
        self._done_ns.append(
            max(now_ns, self._done_ns[-1] if self._done_ns else 0)
            + bus_time_ns(
                frame,
                self._bitrate,
                self._data_bitrate if frame.flags & BITRATE_SWITCH else None,
            )
        )
        self.accepted.append(describe(frame))
        self.accepted_count += 1
        if self.mute_next:
            self.mute_next -= 1
            return b""
        return self._unless_silent(b"z\r" if line[:1].islower() else b"Z\r")

    def _frame_to_send(self, line: bytes, now_ns: int) -> Frame | None:
        """The frame, if the channel is open, the line is right and the queue has room."""
        while self._done_ns and self._done_ns[0] <= now_ns:
            self._done_ns.popleft()
        try:
            frame, stamp = decode(line)
        except LineError:
            return None
        full = len(self._done_ns) >= self._options.queue
        if full or stamp is not None or self.state is not State.OPEN or not self.carries(frame):
            return None
        return frame

    def _refusal(self, line: bytes) -> bytes:
        name = line[:8].decode("ascii", "backslashreplace")
        if name in self.refused_commands or len(self.refused_commands) < 100:
            self.refused_commands[name] = self.refused_commands.get(name, 0) + 1
        return self._unless_silent(BEL)

    def _unless_silent(self, answer: bytes) -> bytes:
        return b"" if self._options.silent else answer
