"""CANable and CANtact adapters with their stock firmware.

Source: ``normaldotcom/canable-fw`` at 8ca5d39 (src/slcan.c, src/can.c, src/usbd_cdc_if.c,
src/main.c, inc/slcan.h, inc/can.h, Makefile; and the HAL's stm32f0xx_hal_can.c for what becomes of
a frame while the channel is closed).

- It acknowledges nothing and refuses nothing. ``V`` answers the commit and the repository's URL.
  A command that it does not know (``L``, ``N``, ``F``, ``Z``, ``s``) does nothing.
- The line buffer is never cleared: an empty line repeats the last command, the transmission of a
  frame included, and a line that is too short takes the rest from the line before.
- The letters of a line count as digits without a check (``G`` is 16, and so on).
- A line longer than 30 bytes begins anew at the buffer's start.
- Of 27 frames that wait for three mailboxes a further one is dropped without a word.
- Frames that come while the channel is closed wait, and leave when it opens. Closing drops what
  is in the mailboxes, and keeps the queue.
- ``M1`` is stored, and then overwritten by ``O``, which always opens in normal mode: the firmware
  has a command for listen-only and does not listen only.
- ``S7`` is 750 kbit/s; ``S9`` and above are ignored, and the rate before stays, which is 125 kbit/s
  at first.
- A remote frame is reported with as many data bytes as its code says, from whatever was received
  before.
- ``A0`` and ``A1`` (automatic retransmission) change nothing on a bus that acknowledges.

Not here: a report that comes while the one before is still on its way over USB is lost, which
depends on how fast the host polls.
"""

from __future__ import annotations

from collections import deque
from typing import ClassVar, Final

from canbroker.backends.slcan.codec import CR, encode
from canbroker.model.frame import EXTENDED, FD, FD_LENGTHS, REMOTE, Frame
from canbroker.simulator.firmware.base import Firmware, StaleData, State
from canbroker.simulator.options import SimulatorOptions

_MAILBOXES: Final = 3
_USB_PACKET: Final = 64


class Canable(Firmware):
    acknowledges: ClassVar = False
    version: ClassVar = b"8ca5d39 https://github.com/normaldotcom/canable-fw.git\r"
    mtu: ClassVar = 30
    queue_size: ClassVar = 27
    max_dlc: ClassVar = 8
    rates: ClassVar = {
        0: 10_000,
        1: 20_000,
        2: 50_000,
        3: 100_000,
        4: 125_000,
        5: 250_000,
        6: 500_000,
        7: 750_000,
        8: 1_000_000,
    }
    transmits: ClassVar[dict[int, int]] = {
        ord("t"): 0,
        ord("T"): EXTENDED,
        ord("r"): REMOTE,
        ord("R"): REMOTE | EXTENDED,
    }

    def __init__(self, options: SimulatorOptions) -> None:
        super().__init__(options)
        self.bus.bitrate = 125_000
        self._capacity = options.queue or self.queue_size
        self._buffer = bytearray(self.mtu)  # the command's letter, then the values of its digits
        self._size = 0
        self._queue: deque[Frame] = deque()
        self._on_bus: deque[Frame] = deque()
        self._stale = StaleData()

    # ------------------------------------------------------------------------------ from the host

    def receive(self, data: bytes, now_ns: int) -> bytes:
        answers = []
        for start in range(0, len(data), _USB_PACKET):
            packet = data[start : start + _USB_PACKET]
            answers += [self._take(byte, now_ns) for byte in packet]
            self._process(now_ns)
        return b"".join(answers)

    def _take(self, byte: int, now_ns: int) -> bytes:
        if byte == CR[0]:
            answer = self._run(now_ns)
            self._size = 0
            return answer
        if self._size >= self.mtu:
            self._size = 0
        self._buffer[self._size] = byte
        self._size += 1
        return b""

    def _run(self, now_ns: int) -> bytes:
        buffer = self._buffer
        for at in range(1, self._size):
            buffer[at] = _digit(buffer[at])
        letter = buffer[0]
        if letter in self.transmits:
            self._transmit(self.transmits[letter], now_ns)
            return b""
        return self._command(chr(letter), buffer[1], now_ns)

    def _command(self, letter: str, value: int, now_ns: int) -> bytes:
        if letter == "V":
            return self.version
        if letter == "O":
            self._open()
        elif letter == "C":
            self._close(now_ns)
        elif letter == "S" and value in self.rates and self.state is State.CLOSED:
            self.bus.bitrate = self.rates[value]
        return b""

    def _open(self) -> None:
        if self.state is State.CLOSED:
            self.state = State.OPEN
            self.opened += 1

    def _close(self, now_ns: int) -> None:
        if self.state is State.CLOSED:
            return
        self._settle(now_ns)
        self.state = State.CLOSED
        waiting = list(self._on_bus)
        self._on_bus.clear()
        self.bus.clear()
        self.ledger.lost_count += len(waiting[:_MAILBOXES])
        self._queue.extendleft(reversed(waiting[_MAILBOXES:]))

    def _transmit(self, flags: int, now_ns: int) -> None:
        frame = self._frame(flags)
        if frame is None:
            return
        self._settle(now_ns)
        if self._queued() >= self._capacity:
            self._overflow()
        else:
            self._queue.append(frame)

    def _queued(self) -> int:
        """The number of frames in the queue, without those in mailboxes."""
        mailboxes = _MAILBOXES if self.opened else 0  # the driver fills none before
        return max(0, len(self._on_bus) + len(self._queue) - mailboxes)

    def _overflow(self) -> None:
        self.ledger.lost_count += 1

    def _process(self, now_ns: int) -> None:
        """Passes on what is queued: the main loop does it after every packet from the host."""
        if self.state is not State.CLOSED:
            self._settle(now_ns)
            while self._queue:
                frame = self._queue.popleft()
                self._on_bus.append(frame)
                self.bus.add(frame, now_ns)

    def _settle(self, now_ns: int) -> None:
        """Writes down the frames that have left by now."""
        left = len(self._on_bus) - self.bus.waiting(now_ns)
        for _ in range(left):
            self.ledger.accept(self._on_bus.popleft())

    def _frame(self, flags: int) -> Frame | None:
        """The frame in the buffer, whatever line it is from; ``None``: its code is too large."""
        digits = 8 if flags & EXTENDED else 3
        identifier = 0
        for value in self._buffer[1 : 1 + digits]:
            identifier = identifier * 16 + value
        identifier &= 0x1FFFFFFF if flags & EXTENDED else 0x7FF
        code = self._buffer[1 + digits]
        if code > (self.max_dlc if flags & FD else 8):
            return None
        if flags & REMOTE:
            return Frame(0, identifier, flags, code)
        start, size = 2 + digits, FD_LENGTHS[code]
        pairs = self._buffer[start : start + 2 * size]
        data = bytes(
            ((high << 4) + low) & 0xFF for high, low in zip(pairs[::2], pairs[1::2], strict=True)
        )
        return Frame(0, identifier, flags, data)

    # -------------------------------------------------------------------------------- to the host

    def line(self, frame: Frame, _now_ns: int) -> bytes:
        return encode(frame)[:-1] + self._stale.behind(frame) + CR

    def poll(self, now_ns: int) -> bytes:
        self._settle(now_ns)
        return b""

    def power_off(self) -> None:
        super().power_off()
        self._queue.clear()
        self._on_bus.clear()
        self._buffer = bytearray(len(self._buffer))
        self._size = 0


def _digit(byte: int) -> int:
    if byte >= ord("a"):
        return byte - ord("a") + 10
    if byte >= ord("A"):
        return byte - ord("A") + 10
    return (byte - ord("0")) & 0xFF
