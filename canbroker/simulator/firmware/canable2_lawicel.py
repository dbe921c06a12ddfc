"""CANable 2.0 with a firmware that speaks Lawicel's dialect, CAN FD included.

Source: ``Nakakiyo092/canable2-fw`` (src/slcan.c, doc/1.-Command-List.md, inc/buffer.h), a rewrite
of ``normaldotcom/canable2-fw`` that acknowledges as LAWICEL's manual says. What differs from
:mod:`.lawicel`: ``d D b B`` for CAN FD, ``Yn`` for its data bitrate (500 k, 1, 2, 4, 5, 8 Mbit/s);
``V`` answers ``VL2K4``, ``N`` four hex digits, ``v``, ``I``, ``i`` and ``f`` words; ``s`` takes
eight digits, prescaler and segments of a 160 MHz clock, not the four of an SJA1000; no auto poll
(``X``, ``P``, ``A``), no ``U``, and of the filter modes ``W2`` alone. It begins at 125 kbit/s. The
transmit queue has 64 buffers.

Not here: time stamps in microseconds (``Z2``), reports of sent frames (``z``), loopback, remote
frames with a code above 8, and the line buffer of 165 bytes, whose end is as :mod:`.canable`'s.
"""

from __future__ import annotations

import re
from typing import ClassVar, Final

from canbroker.simulator.firmware.base import State
from canbroker.simulator.firmware.lawicel import Lawicel
from canbroker.simulator.options import SimulatorOptions

_CLOCK: Final = 160_000_000
_TIMING: Final = re.compile(rb"([sy])([0-9A-Fa-f]{8})")
_FILTERS: Final = re.compile(rb"[Mm][0-9A-Fa-f]{8}|W2|-[01]|N[0-9A-Fa-f]{4}")
_DETAILS: Final = b"f: node_sts=ER_ACTV, last_err_code=NONE, err_cnt_tx_rx=[0x00, 0x00], "


class Canable2Lawicel(Lawicel):
    fd: ClassVar = True
    identity: ClassVar = {
        b"V": b"VL2K4\r",
        b"N": b"N0001\r",
        b"v": b'v: hardware="CANable2.0", software="4f2a6bc", '
        b'url="github.com/Nakakiyo092/canable2-fw.git"\r',
        b"I": b"I30A0\r",
        b"i": b'i: protocol="ISO-CANFD", clock_mhz=160, controller="STM32G431CB"\r',
    }
    data_bitrates: ClassVar = {
        b"Y0": 500_000,
        b"Y1": 1_000_000,
        b"Y2": 2_000_000,
        b"Y4": 4_000_000,
        b"Y5": 5_000_000,
        b"Y8": 8_000_000,
    }

    def __init__(self, options: SimulatorOptions) -> None:
        super().__init__(options)
        self.bus.bitrate = 125_000

    def _query(self, line: bytes) -> bytes | None:
        if line == b"f" and self.state is not State.CLOSED:
            return _DETAILS + b"est_bus_load_percent=00\r"
        return super()._query(line)

    def _set_up(self, line: bytes) -> bool:
        if line in self.data_bitrates:
            self.bus.data_bitrate = self.data_bitrates[line]
            return True
        return self._set_bitrate(line) or _FILTERS.fullmatch(line) is not None

    def _set_bitrate(self, line: bytes) -> bool:
        if line in self.bitrates:
            self.bus.bitrate = self.bitrates[line]
            return True
        match = _TIMING.fullmatch(line)
        if match is None:
            return False
        letter, digits = match.groups()
        prescaler, before, after, jump = bytes.fromhex(digits.decode("ascii"))
        if not (prescaler and before and after and jump):
            return False
        rate = _CLOCK // (prescaler * (1 + before + after))
        if letter == b"s":
            self.bus.bitrate = rate
        else:
            self.bus.data_bitrate = rate
        return True
