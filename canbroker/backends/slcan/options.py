"""What a user may say about a serial adapter."""

from __future__ import annotations

import os
import re

from canbroker.backends.base import Options
from canbroker.bit_timing import rate_of_btr

#: bit/s -> digit of the command S (CANUSB manual)
BITRATES = {
    10_000: 0,
    20_000: 1,
    50_000: 2,
    100_000: 3,
    125_000: 4,
    250_000: 5,
    500_000: 6,
    800_000: 7,
    1_000_000: 8,
}
#: bit/s -> digit of the command Y (CANable 2.0 firmware)
DATA_BITRATES = {2_000_000: 2, 5_000_000: 5}

_PORT_AND_BAUD = re.compile(r"(.+)@(\d+)")
_BTR = re.compile(r"[0-9A-Fa-f]{4}")


class SlcanOptions(Options, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Parameters of the interface ``slcan``.

    ``channel`` is a device, a pty or a pyserial URL; ``device@baud`` sets ``tty_baudrate`` too.
    With neither ``bitrate`` nor ``btr`` the adapter keeps its own setting. ``btr`` holds the
    registers BTR0 and BTR1 in four hex digits. Rates in bit/s.
    """

    bitrate: int | None = None
    btr: str | None = None
    tty_baudrate: int = 115_200
    rtscts: bool = False
    listen_only: bool = False
    fd: bool = False
    data_bitrate: int | None = None

    def __post_init__(self) -> None:
        if not self.port:
            raise ValueError("channel must name a serial device or a pyserial URL")
        if self.bitrate is not None and self.bitrate not in BITRATES:
            raise ValueError(f"bitrate must be one of {_listed(BITRATES)}, got {self.bitrate}")
        if self.btr is not None and not _BTR.fullmatch(self.btr):
            raise ValueError(f"btr must be 4 hexadecimal digits (BTR0, BTR1), got {self.btr!r}")
        if self.bitrate is not None and self.btr is not None:
            raise ValueError("give either bitrate or btr, not both")
        if self.baudrate <= 0:
            raise ValueError(f"tty_baudrate must be above 0, got {self.baudrate}")
        if self.data_bitrate is not None and not self.fd:
            raise ValueError("data_bitrate needs fd=True")
        if self.data_bitrate is not None and self.data_bitrate not in DATA_BITRATES:
            accepted = _listed(DATA_BITRATES)
            raise ValueError(f"data_bitrate must be one of {accepted}, got {self.data_bitrate}")

    @property
    def port(self) -> str:
        """The device or URL without a baud rate."""
        match = _PORT_AND_BAUD.fullmatch(self.channel)
        return match[1] if match else self.channel

    @property
    def baudrate(self) -> int:
        """The serial line's rate: the one in ``channel``, else ``tty_baudrate``."""
        match = _PORT_AND_BAUD.fullmatch(self.channel)
        return int(match[2]) if match else self.tty_baudrate

    @property
    def rate(self) -> int | None:
        """The bitrate that is asked for, one way or the other; ``None``: the adapter's own."""
        return self.bitrate if self.btr is None else rate_of_btr(self.btr)

    @property
    def identity(self) -> str:
        """The device itself, whichever link names it."""
        is_path = os.sep in self.port and "://" not in self.port
        return os.path.realpath(self.port) if is_path else self.port


def _listed(table: dict[int, int]) -> str:
    return ", ".join(map(str, table))
