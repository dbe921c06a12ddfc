"""CANable 2.0 adapters with their stock firmware: CAN FD, and no acknowledgements.

Source: ``normaldotcom/canable2-fw`` at b158aa7 (src/slcan.c, src/can.c, src/usbd_cdc_if.c,
src/error.c, inc/slcan.h, inc/can.h, Makefile; and the HAL's stm32g4xx_hal_fdcan.c). What differs
from :mod:`.canable`, whose parser it inherited with the repeating empty line:

- ``d D b B`` transmit CAN FD frames; ``Y2`` and ``Y5`` set 2 and 5 Mbit/s, others do nothing.
- ``X`` does not return, and transmits as ``t`` does: ``X1`` is a frame, its rest from the line
  before.
- ``E`` answers the error register, without a CR behind it.
- ``m`` and ``a`` are unknown.
- 63 frames wait for a FIFO of three. While the channel is closed frames are dropped at once.
  Closing drops what waits for the bus.
- ``S9`` is 83.3 kbit/s. ``S7`` is said to be 750 kbit/s; its prescaler of 7 makes 1.43 Mbit/s of
  the 170 MHz clock.
- The line buffer holds 155 bytes.
"""

from __future__ import annotations

from typing import ClassVar, Final

from canbroker.model.frame import BITRATE_SWITCH, EXTENDED, FD
from canbroker.simulator.firmware.base import State
from canbroker.simulator.firmware.canable import Canable
from canbroker.simulator.options import SimulatorOptions

_CLOCK: Final = 170_000_000
_QUANTA: Final = 17
# Bits of the error register.
_CAN_TX_FAILED: Final = 1 << 2
_CAN_TX_FULL: Final = 1 << 4


class Canable2(Canable):
    fd: ClassVar = True
    version: ClassVar = b"b158aa7 github.com/normaldotcom/canable2-fw.git\r"
    mtu: ClassVar = 155
    queue_size: ClassVar = 63
    max_dlc: ClassVar = 15
    rates: ClassVar = {**Canable.rates, 7: _CLOCK // (7 * _QUANTA), 9: 83_333}
    data_rates: ClassVar = {2: 2_000_000, 5: 5_000_000}
    transmits: ClassVar = {
        **Canable.transmits,
        ord("d"): FD,
        ord("D"): FD | EXTENDED,
        ord("b"): FD | BITRATE_SWITCH,
        ord("B"): FD | BITRATE_SWITCH | EXTENDED,
        ord("X"): 0,
    }

    def __init__(self, options: SimulatorOptions) -> None:
        super().__init__(options)
        self._errors = 0

    def _command(self, letter: str, value: int, now_ns: int) -> bytes:
        if letter == "Y" and value in self.data_rates and self.state is State.CLOSED:
            self.bus.data_bitrate = self.data_rates[value]
        if letter == "E":
            return f"CANable Error Register: {self._errors:X}".encode("ascii")
        return super()._command(letter, value, now_ns)

    def _process(self, now_ns: int) -> None:
        if self.state is State.CLOSED and self._queue:
            self._errors |= _CAN_TX_FAILED
            self.ledger.lost_count += len(self._queue)
            self._queue.clear()
        super()._process(now_ns)

    def _overflow(self) -> None:
        self._errors |= _CAN_TX_FULL
        super()._overflow()

    def power_off(self) -> None:
        super().power_off()
        self._errors = 0
