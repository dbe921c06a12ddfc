"""An ESP32 with mintynet's sketch, as it is without a display.

Source: ``mintynet/esp32-slcan`` at f1f6b22 (esp32-slcan-nodisp/esp32-slcan-nodisp.ino), its CAN
library ``nhatuan84/arduino-esp32-can-demo`` (src/CAN.c), and the ESP32's ROM for the first text.

- Opening the port resets the board. It prints the ROM's text (which a port at the sketch's 500,000
  baud shows as noise, and a port on the chip's own USB in clear), is deaf for 0.3 s, and then
  collects up to 256 bytes until its setup ends, 2.4 s after the reset: it prints ``BT Switch OFF``
  and answers everything that it has collected.
- CR acknowledges, also behind a transmit and on a closed channel, where nothing is sent; BEL
  refuses. ``Z2`` is not answered at all.
- ``S3`` to ``S8`` exist, ``S7`` is 800 kbit/s; they are accepted at any time and work at the next
  ``O``. ``L`` and ``s`` are refused. ``M`` and ``m`` are acknowledged, and change nothing.
- ``V1234``, ``N2208``, and ``F00`` whatever the state.
- ``l`` adds CR LF to each frame's CR until it comes again, and is answered with BEL; ``h`` prints
  a page of help (here its first lines) with BEL behind it.
- 32 bytes without a CR are refused and forgotten. An empty line is refused.
- The digits are read by ``sscanf`` from a buffer that is not cleared: digits that a line
  lacks come from an earlier one, and a character that is not a digit counts as 0.
- One transmit buffer, and no look at it: a frame that comes while another one is on the bus is
  acknowledged, and lost.
- A remote frame is reported with as many bytes as its code says, from an earlier frame.
- A time stamp is in milliseconds since the reset, modulo 60,000.
"""

from __future__ import annotations

import re
from typing import ClassVar, Final

from canbroker.backends.slcan.codec import CR
from canbroker.model.frame import EXTENDED, REMOTE, Frame
from canbroker.simulator.firmware.base import State
from canbroker.simulator.firmware.sketch import Sketch
from canbroker.simulator.options import SimulatorOptions
from canbroker.system.clock import MILLISECOND

_DEAF_NS: Final = 300 * MILLISECOND
_COLLECTED: Final = 256
_RATES: Final = {
    b"3": 100_000,
    b"4": 125_000,
    b"5": 250_000,
    b"6": 500_000,
    b"7": 800_000,
    b"8": 1_000_000,
}
_IDENTITY: Final = {b"V": b"V1234\r", b"N": b"N2208\r", b"F": b"F00\r"}
_KINDS: Final = {b"t": 0, b"T": EXTENDED, b"r": REMOTE, b"R": REMOTE | EXTENDED}
_NUMBER: Final = re.compile(rb"[+-]?(?:0[xX])?[0-9A-Fa-f]+")

_ROM_TEXT: Final = (
    b"ets Jun  8 2016 00:22:57\r\n\r\n"
    b"rst:0x1 (POWERON_RESET),boot:0x13 (SPI_FAST_FLASH_BOOT)\r\n"
    b"configsip: 0, SPIWP:0xee\r\n"
    b"clk_drv:0x00,q_drv:0x00,d_drv:0x00,cs0_drv:0x00,hd_drv:0x00,wp_drv:0x00\r\n"
    b"mode:DIO, clock div:1\r\n"
    b"load:0x3fff0018,len:4\r\n"
    b"entry 0x400806b4\r\n"
)


class Esp32(Sketch):
    boot_ns: ClassVar = 2_400 * MILLISECOND
    baudrate: ClassVar = 500_000
    command_size: ClassVar = 32
    at_reset: ClassVar = _ROM_TEXT
    when_ready: ClassVar = b"BT Switch OFF\r\n"

    def __init__(self, options: SimulatorOptions) -> None:
        super().__init__(options)
        self._next_rate = 500_000
        self._extra_line_end = False
        self._reset_ns = 0
        self._collected = b""

    # ----------------------------------------------------------------------------------- the reset

    def reset(self, now_ns: int) -> None:
        self._next_rate = 500_000
        self._extra_line_end = False
        self._reset_ns = now_ns
        self._collected = b""

    def while_booting(self, data: bytes, now_ns: int) -> None:
        if now_ns - self._reset_ns >= min(_DEAF_NS, self._ready_ns - self._reset_ns):
            self._collected = (self._collected + data)[:_COLLECTED]

    def ready(self, now_ns: int) -> None:
        collected, self._collected = self._collected, b""
        for byte in collected:
            self.take(byte, now_ns)

    # -------------------------------------------------------------------------------- from the host

    def run(self, line: bytes, at_ns: int) -> None:
        letter, value = line[:1], line[1:2]
        if letter in _KINDS:
            self._transmit(_KINDS[letter], at_ns)
        elif letter in _IDENTITY:
            self.say(_IDENTITY[letter])
        elif letter == b"O":
            self.bus.clear()
            self.bus.bitrate = self._next_rate
            self.set_open()
            self.say(CR)
        elif letter == b"C":
            self.state = State.CLOSED
            self.bus.clear()
            self.say(CR)
        elif letter == b"Z":
            if value in (b"0", b"1"):
                self.stamped = value == b"1"
                self.say(CR)
        elif letter in (b"M", b"m"):
            self.say(CR)
        elif letter == b"S" and value in _RATES:
            self._next_rate = _RATES[value]
            self.say(CR)
        else:
            self._beyond_the_protocol(letter)
            self.refuse(line)

    def _beyond_the_protocol(self, letter: bytes) -> None:
        if letter == b"l":
            self._extra_line_end = not self._extra_line_end
        elif letter == b"h":
            self.say(b"\r\nmintynet.com - slcan esp32\r\n\r\nO\t=\tStart slcan\r\n")

    def _transmit(self, flags: int, at_ns: int) -> None:
        if self.state is State.CLOSED or self.bus.waiting(at_ns):
            self.ledger.lost_count += 1
        else:
            frame = self._frame(flags)
            self.bus.add(frame, at_ns)
            self.ledger.accept(frame)
        self.acknowledge_transmit()

    def _frame(self, flags: int) -> Frame:
        if flags & EXTENDED:
            digits = 8
            high, low = self._scan(1, 4, 4)
            identifier = ((high or 0) << 16) + (low or 0) & 0x1FFFFFFF
        else:
            digits = 3
            identifier = (self._scan(1, 3)[0] or 0) & 0x7FF
        length = min(8, self._scan(1 + digits, 1)[0] or 0)
        if flags & REMOTE:
            return Frame(0, identifier, flags, length)
        data = bytearray()
        for number in range(length):
            value = self._scan(2 + digits + 2 * number, 2)[0]
            if value is None:  # sscanf leaves its variable alone
                value = data[-1] if data else 0
            data.append(value & 0xFF)
        return Frame(0, identifier, flags, bytes(data))

    def _scan(self, start: int, *widths: int) -> list[int | None]:
        """What ``sscanf`` finds in the buffer with a ``%<width>x`` for each of ``widths``.

        It stops at the first that has nothing to read: that one and those behind are ``None``.
        """
        text = bytes(self._command[start:]).split(b"\0", 1)[0]
        values: list[int | None] = []
        for width in widths:
            text = text.lstrip(b" \t\n\v\f\r")
            number = _NUMBER.match(text[:width])
            if number is None:
                break
            values.append(int(number.group(), 16))
            text = text[number.end() :]
        return values + [None] * (len(widths) - len(values))

    # ---------------------------------------------------------------------------------- to the host

    def line(self, frame: Frame, now_ns: int) -> bytes:
        stamp = (now_ns - self._reset_ns) // MILLISECOND % 60_000
        return self.report(frame, stamp) + (b"\r\n" if self._extra_line_end else b"")
