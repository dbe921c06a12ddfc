"""Ewert Energy's CANdapter.

Source: Ewert Energy Systems, "CANdapter Manual" (2008), of which a public copy shows the first of
the commands (``S``, ``O``, ``C``, ``T``, their conditions and answers), and the programs of its
users: ``papazoga/candapter-shim`` (a stand-in for one), ``Anay1440/pyCandapter``,
``LordSpecial/PyCANdapter``, python-can's ``slcan.py`` with its ``x``, and
``Purdue-Electric-Racing-2017/Matlab-Candapter-Utility`` (``V``). The rest of the manual could not
be had.

- ACK (0x06, no CR behind it) acknowledges, BEL refuses.
- Letters may be upper or lower case: ``t`` and ``T`` are both a frame with an 11-bit identifier,
  ``x`` and ``X`` one with 29 bits. Frames from the bus begin with ``t`` and ``x``.
- ``S`` wants a closed channel, ``O`` an ``S`` before it, ``C`` and transmits an open channel.
  ``S7`` is 800 kbit/s.
- An empty line is not answered: the programs write CR before a command, and read one byte.
  LF ends a line as CR does: pyCandapter writes nothing else.

Assumed: no letter for remote frames, which are not reported; every other command, time stamps and
listen-only among them, is refused; a line whose length does not fit its code is refused; 32 frames
wait for the bus, and a further one is refused; the digits of ``V``.
"""

from __future__ import annotations

import re
from typing import ClassVar, Final

from canbroker.backends.slcan.codec import BEL, encode
from canbroker.model.frame import EXTENDED, FD, REMOTE, Frame
from canbroker.simulator.firmware.base import RefusingFirmware, State
from canbroker.simulator.firmware.lawicel import Lawicel
from canbroker.simulator.options import SimulatorOptions

_ACK: Final = b"\x06"
_LINE_END: Final = re.compile(rb"[\r\n]")
_MAX_LINE: Final = 64


class Candapter(RefusingFirmware):
    queue_size: ClassVar = 32
    version: ClassVar = b"V0102\r"

    def __init__(self, options: SimulatorOptions) -> None:
        super().__init__(options)
        self._rest = b""
        self._set_up = False

    def receive(self, data: bytes, now_ns: int) -> bytes:
        *lines, rest = _LINE_END.split(self._rest + data)
        self._rest = rest[: _MAX_LINE + 1]
        return b"".join(self._answer(line, now_ns) for line in lines if line)

    def line(self, frame: Frame, _now_ns: int) -> bytes:
        line = encode(frame)
        return b"x" + line[1:] if frame.flags & EXTENDED else line

    def carries(self, frame: Frame) -> bool:
        return not frame.flags & (FD | REMOTE)

    def power_off(self) -> None:
        super().power_off()
        self._rest = b""
        self._set_up = False

    def _answer(self, line: bytes, now_ns: int) -> bytes:
        letter = line[:1].upper()
        if letter in (b"T", b"X"):
            return self.transmit((b"t" if letter == b"T" else b"T") + line[1:], now_ns, _ACK)
        command = line.upper()
        if command == b"V":
            return self.version
        if self._command(command):
            return _ACK
        self.ledger.refuse_command(line)
        return BEL

    def _command(self, command: bytes) -> bool:
        if command == b"C":
            was_open = self.state is not State.CLOSED
            self.state = State.CLOSED
            self.bus.clear()
            return was_open
        if self.state is not State.CLOSED:
            return False
        if command in Lawicel.bitrates:
            self.bus.bitrate = Lawicel.bitrates[command]
            self._set_up = True
            return True
        if command == b"O" and self._set_up:
            self.state = State.OPEN
            self.opened += 1
            return True
        return False
