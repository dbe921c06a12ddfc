"""LAWICEL's CANUSB, the adapter that gave the protocol its name.

Source: LAWICEL AB, "CAN232 Version 3 Manual" (February 2010) and "CANUSB Manual". Read were the
parts that public copies show (``V`` answers ``Vhhss``, ENTER alone answers CR, the bits of ``F``)
and, for every command with its conditions, two independent implementations of those manuals that
quote them: ``latonita/can-ascii`` (can-232.h, can-232.cpp) and ``Nakakiyo092/canable2-fw``
(doc/1.-Command-List.md).

CR acknowledges, BEL refuses. With auto poll, which a CANUSB has on from the factory, a transmit is
acknowledged with ``z`` or ``Z`` and CR, without it with CR. Most settings want a closed channel,
``C`` and ``F`` an open one. A full transmit queue refuses with BEL. ``S7`` is 800 kbit/s.

The adapter keeps its settings over a loss of power, and begins as an earlier program left it: at
500 kbit/s, so that ``O`` works without ``S``, which a factory-new one refuses. The size of the
transmit queue is not in the manuals; 64 frames are assumed. Variants: ``timestamps=False`` is
software that has no ``Z`` yet, ``silent`` an adapter whose acknowledgements do not arrive.
"""

from __future__ import annotations

import re
from collections import deque
from typing import ClassVar, Final

from canbroker.backends.slcan.codec import BEL, CR, LineBuffer, encode
from canbroker.model.frame import Frame
from canbroker.simulator.firmware.base import RefusingFirmware, State
from canbroker.simulator.options import SimulatorOptions
from canbroker.system.clock import MILLISECOND

_REGISTERS: Final = re.compile(rb"s([0-9A-Fa-f]{2})([0-9A-Fa-f]{2})")
_SJA1000_CLOCK: Final = 16_000_000
_RECEIVE_FIFO: Final = 32
#: Accepted while the channel is closed, with nothing to show for it here: the acceptance filter,
#: the filter mode, the serial line's speed.
_FILTERS: Final = re.compile(rb"[Mm][0-9A-Fa-f]{8}|W[01]|U[0-6]")


class Lawicel(RefusingFirmware):
    queue_size: ClassVar = 64
    bitrates: ClassVar[dict[bytes, int]] = {
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
    identity: ClassVar[dict[bytes, bytes]] = {b"V": b"V1013\r", b"N": b"NA123\r"}

    def __init__(self, options: SimulatorOptions) -> None:
        super().__init__(options)
        self._lines = LineBuffer()
        self._stamped = False
        self._polled = False  # auto poll is off: frames wait until the host asks
        self._fifo: deque[bytes] = deque(maxlen=_RECEIVE_FIFO)

    def receive(self, data: bytes, now_ns: int) -> bytes:
        return b"".join(
            self._answer(line, now_ns) if end == CR else self._refusal(line)
            for line, end in self._lines.feed(data)
        )

    def line(self, frame: Frame, now_ns: int) -> bytes:
        line = encode(frame, now_ns // MILLISECOND % 60_000 if self._stamped else None)
        if self._polled:
            self._fifo.append(line)
            return b""
        return line

    def power_off(self) -> None:
        super().power_off()
        self._lines.clear()
        self._fifo.clear()

    def _answer(self, line: bytes, now_ns: int) -> bytes:
        if line in self.identity:
            return self.identity[line]
        if line[:1] and line[:1] in b"tTrRdDbB":
            done = self._acknowledgement(line)
            return self._unless_silent(self.transmit(line, now_ns, done))
        answer = self._query(line)
        if answer is None:
            answer = CR if not line or self._command(line) else None
        return self._refusal(line) if answer is None else self._unless_silent(answer)

    def _query(self, line: bytes) -> bytes | None:
        """The answer to a question that an open channel has; ``None`` if it is none."""
        if self.state is State.CLOSED:
            return None
        if line == b"F":
            return b"F00\r"
        if line == b"P" and self._polled:
            return self._fifo.popleft() if self._fifo else CR
        if line == b"A" and self._polled:
            frames = b"".join(self._fifo)
            self._fifo.clear()
            return frames + b"A\r"
        return None

    def _command(self, line: bytes) -> bool:
        """Does what a command says; ``False`` if the adapter refuses it now."""
        if line == b"C":
            return self._close()
        if self.state is not State.CLOSED:
            return line in (b"Q0", b"Q1", b"Q2")
        if line in (b"O", b"L"):
            self.state = State.OPEN if line == b"O" else State.LISTEN
            self.opened += 1
            return True
        if line in (b"Z0", b"Z1"):
            self._stamped = line == b"Z1" and self.options.timestamps
            return self.options.timestamps
        return self._set_up(line)

    def _set_up(self, line: bytes) -> bool:
        if line in (b"X0", b"X1"):
            self._polled = line == b"X0"
            return True
        return self._set_bitrate(line) or _FILTERS.fullmatch(line) is not None

    def _set_bitrate(self, line: bytes) -> bool:
        if match := _REGISTERS.fullmatch(line):
            timing0, timing1 = (int(digits, 16) for digits in match.groups())
            quanta = 3 + (timing1 & 0x0F) + (timing1 >> 4 & 0x07)
            self.bus.bitrate = _SJA1000_CLOCK // (2 * ((timing0 & 0x3F) + 1) * quanta)
            return True
        if line in self.bitrates:
            self.bus.bitrate = self.bitrates[line]
            return True
        return False

    def _close(self) -> bool:
        was_open = self.state is not State.CLOSED
        self.state = State.CLOSED
        self.bus.clear()
        return was_open

    def _acknowledgement(self, line: bytes) -> bytes:
        """What an accepted frame is answered with."""
        if self._polled:
            return CR
        return b"z\r" if line[:1].islower() else b"Z\r"

    def _refusal(self, line: bytes) -> bytes:
        self.ledger.refuse_command(line)
        return self._unless_silent(BEL)

    def _unless_silent(self, answer: bytes) -> bytes:
        return b"" if self.options.silent else answer
