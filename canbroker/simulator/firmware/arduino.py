"""An Arduino with an MCP2515 shield and the sketch slcanuino.

Source: ``kahiroka/slcanuino`` at fa0816f (slcan.ino, Canbus/mcp2515.c, Canbus/Canbus.h); Arduino's
HardwareSerial for the 64 bytes that wait for the sketch; Microchip's data sheet of the MCP2515 for
the order of its transmit buffers.

- Opening the port resets the board. Its boot loader listens for 2 s and swallows what comes (as on
  boards with the old one; Optiboot is ready sooner after a byte that is not one of its commands).
- CR acknowledges, also behind a transmit; BEL refuses. A transmit is acknowledged in any case: when
  its length is wrong it is not sent. A remote frame is sent only with ``2 x DLC`` digits behind it.
- ``O`` and ``C`` switch a lamp. The controller runs from the start at 500 kbit/s; a closed channel
  receives and transmits. ``S`` works at the next ``O``, which drops what waits for the bus.
- ``S3`` to ``S6`` and ``S8`` exist; ``L``, ``s`` and ``S7`` do not. ``M`` and ``m`` are
  acknowledged, and change nothing. ``Z2`` is refused and acknowledged.
- ``V1234``, ``N1234``, and ``F12`` whatever the state.
- A time stamp is the number of the frame since the reset, modulo 65,536.
- 33 bytes without a CR are refused and forgotten. An empty line is refused.
- Three transmit buffers. The sketch waits until one is free, and while it waits only 63 bytes fit
  into the serial line's buffer; what comes then is lost. Of the buffers that wait, the controller
  sends the one with the highest number first, so two that wait can change places.
- A remote frame is reported with as many bytes as its code says, from an earlier frame.
"""

from __future__ import annotations

import re
from collections import deque
from typing import ClassVar, Final

from canbroker.backends.slcan.codec import CR
from canbroker.model.frame import EXTENDED, REMOTE, Frame
from canbroker.simulator.firmware.base import State
from canbroker.simulator.firmware.sketch import Sketch
from canbroker.simulator.options import SimulatorOptions
from canbroker.system.clock import SECOND

_RATES: Final = {
    b"3": 100_000,
    b"4": 125_000,
    b"5": 250_000,
    b"6": 500_000,
    b"8": 1_000_000,
}
_IDENTITY: Final = {b"V": b"V1234\r", b"N": b"N1234\r", b"F": b"F12\r"}
_SERIAL_BUFFER: Final = 63
_TRANSMIT_BUFFERS: Final = 3
_NO_DIGIT: Final = re.compile(rb"[^0-9A-Fa-f]")


class Arduino(Sketch):
    boot_ns: ClassVar = 2 * SECOND
    baudrate: ClassVar = 1_000_000
    command_size: ClassVar = 33

    def __init__(self, options: SimulatorOptions) -> None:
        super().__init__(options)
        self._next_rate = 500_000
        self._count = 0
        self._buffers: dict[int, Frame] = {}  # of three, by number
        self._sending: int | None = None  # the buffer whose frame is on the bus
        self._sent_ns = 0  # when it has left
        self._waiting: deque[int] = deque()  # bytes for a sketch that waits for a buffer
        self._held: Frame | None = None  # the frame that waits for one

    @property
    def receives(self) -> bool:
        return not self._booting

    def reset(self, _now_ns: int) -> None:
        self._next_rate = self.bus.bitrate = 500_000
        self._count = 0
        self._clear()

    def _clear(self) -> None:
        self.ledger.lost_count += len(self._buffers)
        self._buffers.clear()
        self._sending = None
        self._held = None
        self._waiting.clear()

    def power_off(self) -> None:
        super().power_off()
        self._clear()

    def poll(self, now_ns: int) -> bytes:
        self._advance(now_ns)
        return super().poll(now_ns)

    def due_ns(self) -> int | None:
        times = [super().due_ns(), self._sent_ns if self._sending is not None else None]
        return min((time for time in times if time is not None), default=None)

    # -------------------------------------------------------------------------------- from the host

    def take(self, byte: int, at_ns: int) -> None:
        self._advance(at_ns)
        if self._held is None:
            super().take(byte, at_ns)
        elif len(self._waiting) < _SERIAL_BUFFER:
            self._waiting.append(byte)

    def run(self, line: bytes, at_ns: int) -> None:
        letter, value = line[:1], line[1:2]
        if letter in (b"t", b"T", b"r", b"R"):
            self._transmit(line, at_ns)
        elif letter in _IDENTITY:
            self.say(_IDENTITY[letter])
        elif letter == b"O":
            self._clear()
            self.bus.bitrate = self._next_rate
            self.set_open()
            self.say(CR)
        elif letter == b"C":
            self.state = State.CLOSED
            self.say(CR)
        elif letter == b"Z":
            self._set_stamps(value, line)
        elif letter in (b"M", b"m"):
            self.say(CR)
        elif letter == b"S" and value in _RATES:
            self._next_rate = _RATES[value]
            self.say(CR)
        else:
            self.refuse(line)

    def _set_stamps(self, value: bytes, line: bytes) -> None:
        if value in (b"0", b"1"):
            self.stamped = value == b"1"
        else:
            self.refuse(line)
        self.say(CR)

    def _transmit(self, line: bytes, at_ns: int) -> None:
        frame = _frame(line)
        if frame is None:
            self.ledger.lost_count += 1
        elif len(self._buffers) == _TRANSMIT_BUFFERS:
            self._held = frame
            return
        else:
            self._load(frame, at_ns)
        self.acknowledge_transmit()

    # ------------------------------------------------------------------------------ the controller

    def _load(self, frame: Frame, at_ns: int) -> None:
        self._buffers[min(set(range(_TRANSMIT_BUFFERS)) - self._buffers.keys())] = frame
        if self._sending is None:
            self._send(at_ns)

    def _send(self, at_ns: int) -> None:
        if self._buffers:
            self._sending = max(self._buffers)
            self._sent_ns = at_ns + self.bus.duration_ns(self._buffers[self._sending])

    def _advance(self, now_ns: int) -> None:
        """Lets time go on: frames leave, and a sketch that waited goes on with what came."""
        while self._sending is not None and self._sent_ns <= now_ns:
            self.ledger.accept(self._buffers.pop(self._sending))
            self._sending = None
            at_ns = self._sent_ns
            self._send(at_ns)
            if self._held is not None:
                held, self._held = self._held, None
                self._load(held, at_ns)
                self.acknowledge_transmit()
            while self._waiting and self._held is None:
                super().take(self._waiting.popleft(), at_ns)

    # ---------------------------------------------------------------------------------- to the host

    def line(self, frame: Frame, _now_ns: int) -> bytes:
        line = self.report(frame, self._count)
        if self.stamped:
            self._count = (self._count + 1) % 65_536
        return line


def _frame(line: bytes) -> Frame | None:
    """The frame of a line with its CR; ``None`` if the sketch does not send it."""
    extended = line[:1] in (b"T", b"R")
    digits = 8 if extended else 3
    body = _NO_DIGIT.sub(b"0", line[1:-1])
    if len(body) <= digits:
        return None
    identifier = int(body[:digits], 16) & (0x1FFFFFFF if extended else 0x7FF)
    code = int(body[digits : digits + 1], 16)
    data = body[digits + 1 :]
    if len(data) != 2 * code:
        return None
    flags = (EXTENDED if extended else 0) | (REMOTE if line[:1] in (b"r", b"R") else 0)
    length = min(code, 8)
    if flags & REMOTE:
        return Frame(0, identifier, flags, length)
    return Frame(0, identifier, flags, bytes.fromhex(data[: 2 * length].decode("ascii")))
