"""The parameters of a serial adapter."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable
from typing import ClassVar, Final, Literal

from canbroker.backends.base import Options
from canbroker.backends.slcan.dialects import BITRATES, DATA_BITRATES
from canbroker.model.bit_timing import rate_of_btr

_PORT_AND_BAUD: Final = re.compile(r"(.+)@(\d+)")
#: In bit/s: higher than any rate that a system accepts for a serial line.
_FASTEST: Final = 100_000_000
#: Longest ``sleep_after_open``: clients give up on a channel that takes longer to open.
_PATIENCE_S: Final = 10

_BTR: Final = re.compile(r"[0-9A-Fa-f]{4}")


class SlcanOptions(Options, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Parameters of the interface ``slcan``.

    ``channel`` is a device, a pseudo-terminal or a pyserial URL; ``device@baud`` also sets
    ``tty_baudrate``. ``btr`` contains the registers BTR0 and BTR1 in four hexadecimal digits.
    Without ``bitrate`` and ``btr`` the adapter keeps its own setting. Rates are in bit/s.

    ``dialect`` is the adapter's firmware family; ``auto`` detects it. ``timestamps``: ``auto`` uses
    the adapter's clock as long as it keeps time with the host's, ``on`` always uses it, ``off``
    uses the host's clock. ``sleep_after_open`` is the number of seconds to wait before the first
    command, which is repeated for 3 s in any case.
    """

    #: python-can polls, with these as pauses. canbroker does not poll.
    without_effect: ClassVar[frozenset[str]] = frozenset({"poll_interval", "timeout"})
    renamed: ClassVar[dict[str, str]] = {"ttyBaudrate": "tty_baudrate"}

    bitrate: int | None = None
    btr: str | None = None
    tty_baudrate: int = 115_200
    rtscts: bool = False
    listen_only: bool = False
    fd: bool = False
    data_bitrate: int | None = None
    dialect: Literal["auto", "lawicel", "canable", "canable2", "candapter", "sketch"] = "auto"
    timestamps: Literal["auto", "on", "off"] = "auto"
    sleep_after_open: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.port:
            raise ValueError("channel must name a serial device or a pyserial URL")
        if self.bitrate is not None and self.bitrate not in BITRATES:
            raise ValueError(f"bitrate must be one of {_listed(BITRATES)}, got {self.bitrate}")
        if self.btr is not None and not _BTR.fullmatch(self.btr):
            raise ValueError(f"btr must be 4 hexadecimal digits (BTR0, BTR1), got {self.btr!r}")
        if self.bitrate is not None and self.btr is not None:
            raise ValueError("give either bitrate or btr, not both")
        if not 0 < self.baudrate <= _FASTEST:
            raise ValueError(f"tty_baudrate must be 1 to {_FASTEST}, got {self.baudrate}")
        if self.data_bitrate is not None and not self.fd:
            raise ValueError("data_bitrate needs fd=True")
        if self.data_bitrate is not None and self.data_bitrate not in DATA_BITRATES:
            accepted = _listed(DATA_BITRATES)
            raise ValueError(f"data_bitrate must be one of {accepted}, got {self.data_bitrate}")
        if not (math.isfinite(self.sleep_after_open) and 0 <= self.sleep_after_open <= _PATIENCE_S):
            raise ValueError(
                f"sleep_after_open must be 0 to {_PATIENCE_S} s, got {self.sleep_after_open}"
            )

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
        """The requested bit rate, from ``bitrate`` or ``btr``; ``None``: the adapter's own."""
        return self.bitrate if self.btr is None else rate_of_btr(self.btr)

    @property
    def identity(self) -> str:
        """The device itself, even if ``channel`` is a link to it."""
        if "://" in self.port:
            return self.port
        return os.path.realpath(self.port) if os.sep in self.port else os.path.normcase(self.port)


class AnsweringOptions(SlcanOptions, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Parameters of an adapter that answered when it was opened before.

    If it is silent now, that is an error, not a firmware that never answers.
    """


def _listed(table: Iterable[int]) -> str:
    return ", ".join(map(str, table))
