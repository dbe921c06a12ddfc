"""How to simulate."""

from __future__ import annotations

import math
from typing import Final

import msgspec

#: The kinds of firmware that have variants.
LAWICEL_KINDS: Final = ("lawicel", "canable2-lawicel")


class SimulatorOptions(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """``replay`` names a candump log; ``rate`` is a speed factor, 0 is as fast as it is read.

    ``paused`` waits for the command ``start``; ``link`` is a symbolic link to keep on the device;
    ``faults`` are control commands that are given at the start; ``seed`` makes random faults
    repeat. ``answer_delay`` is in seconds: how late everything that the adapter says arrives, as
    over Bluetooth or a network.

    The adapter: ``firmware`` names one of :data:`.firmware.FIRMWARES`. ``queue`` is the number of
    frames that wait for the bus, and ``boot`` the seconds that a board boots when its port is
    opened, both instead of the firmware's own. Variants of Lawicel's: ``timestamps`` accepts
    ``Z1``, ``silent`` acknowledges nothing.
    """

    firmware: str = "lawicel"
    replay: str | None = None
    loop: bool = False
    rate: float = 1.0
    paused: bool = False
    link: str | None = None
    faults: list[str] = []
    seed: int = 0
    answer_delay: float = 0.0
    queue: int | None = None
    boot: float | None = None
    timestamps: bool = True
    silent: bool = False

    def __post_init__(self) -> None:
        for name, value in (
            ("rate", self.rate),
            ("answer_delay", self.answer_delay),
            ("boot", self.boot or 0.0),
        ):
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name} must be 0 or above, got {value}")
        if self.queue is not None and self.queue < 1:
            raise ValueError(f"queue must be 1 or above, got {self.queue}")
        if self.firmware not in LAWICEL_KINDS and (self.silent or not self.timestamps):
            raise ValueError(
                f"timestamps and silent are variants of {' and '.join(LAWICEL_KINDS)}, "
                f"not of {self.firmware}"
            )
