"""What slcan sketches on microcontroller boards share: the reset at open, and the line buffer.

Such a board is wired so that DTR, which a system raises when a program opens the port, resets the
processor: whatever the sketch had been told is forgotten, and for a while nothing listens. Behind
the USB converter is a serial line with a speed: bytes arrive one after the other.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import deque
from typing import ClassVar

from canbroker.backends.slcan.codec import BEL, CR, encode
from canbroker.model.frame import Frame
from canbroker.simulator.firmware.base import Firmware, StaleData, State
from canbroker.simulator.options import SimulatorOptions
from canbroker.system.clock import SECOND

_BITS_A_BYTE = 10


class Sketch(Firmware):
    """A sketch's command buffer is an array of C: what a short line leaves in it stays there."""

    baudrate: ClassVar[int]
    command_size: ClassVar[int]
    #: What the board prints when it is reset, and when it is ready.
    at_reset: ClassVar[bytes] = b""
    when_ready: ClassVar[bytes] = b""

    def __init__(self, options: SimulatorOptions) -> None:
        super().__init__(options)
        self.stamped = False
        self._ready_ns = 0
        self._booting = False
        self._said: deque[tuple[int, bytes]] = deque()  # for the host, and when it is said
        self._command = bytearray(self.command_size + 1)
        self._size = 0
        self._stale = StaleData()

    # ----------------------------------------------------------------------------------- the reset

    def port_opened(self, now_ns: int) -> None:
        self.power_off()
        self._announce(self.at_reset, now_ns)
        self._booting = True
        boot_ns = self.boot_ns if self.options.boot is None else int(self.options.boot * SECOND)
        self._ready_ns = now_ns + boot_ns
        self.reset(now_ns)

    def power_off(self) -> None:
        super().power_off()
        self.stamped = False
        self._said.clear()
        self._command = bytearray(len(self._command))
        self._size = 0

    @abstractmethod
    def reset(self, now_ns: int) -> None:
        """Forgets what the sketch keeps in variables of its own."""

    def poll(self, now_ns: int) -> bytes:
        if self._booting and now_ns >= self._ready_ns:
            self._booting = False
            self._announce(self.when_ready, now_ns)
            self.ready(now_ns)
        said = b""
        while self._said and self._said[0][0] <= now_ns:
            said += self._said.popleft()[1]
        return said

    def ready(self, now_ns: int) -> None:
        """The sketch begins to run."""

    def due_ns(self) -> int | None:
        times = [self._ready_ns] if self._booting else []
        return min(times + [at_ns for at_ns, _ in [*self._said][:1]], default=None)

    # -------------------------------------------------------------------------------- from the host

    def receive(self, data: bytes, now_ns: int) -> bytes:
        said = self.poll(now_ns)
        if self._booting:
            self.while_booting(data, now_ns)
            return said
        for byte in data:
            byte_ns = _BITS_A_BYTE * SECOND // self.baudrate
            self.arrived_ns = max(self.arrived_ns, now_ns) + byte_ns
            self.take(byte, self.arrived_ns)
        return said + self.poll(now_ns)

    def while_booting(self, data: bytes, now_ns: int) -> None:
        """Bytes that come before the sketch runs."""

    def take(self, byte: int, at_ns: int) -> None:
        """A byte comes to the sketch, which puts it into its buffer."""
        self._command[self._size] = byte
        self._size += 1
        if self._size == self.command_size:
            self.ledger.refuse_command(bytes(self._command[:8]))
            self._size = 0
            self.say(BEL)
        elif byte == CR[0]:
            self._command[self._size] = 0
            line, self._size = bytes(self._command[: self._size]), 0
            self.run(line, at_ns)

    @abstractmethod
    def run(self, line: bytes, at_ns: int) -> None:
        """Does what a line says, which ends in CR; answers with :meth:`say`."""

    def _announce(self, text: bytes, now_ns: int) -> None:
        if text:
            self._said.append((now_ns, text))

    def say(self, answer: bytes) -> None:
        """Answers, once the last byte that has come so far has really arrived."""
        self._said.append((self.arrived_ns, answer))

    def refuse(self, line: bytes) -> None:
        self.ledger.refuse_command(line[:-1])
        self.say(BEL)

    def set_open(self) -> None:
        self.state = State.OPEN
        self.opened += 1

    def acknowledge_transmit(self) -> None:
        """CR, unless an operator wants something else: both sketches acknowledge every line."""
        if self.refuse_next:
            self.refuse_next -= 1
            self.ledger.refused_count += 1
            self.say(BEL)
        elif self.mute_next:
            self.mute_next -= 1
        else:
            self.say(CR)

    # ---------------------------------------------------------------------------------- to the host

    def report(self, frame: Frame, stamp: int) -> bytes:
        """A frame's line: with as many bytes behind a remote frame as its code says."""
        digits = b"%04X" % stamp if self.stamped else b""
        return encode(frame)[:-1] + self._stale.behind(frame) + digits + CR
