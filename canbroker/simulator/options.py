"""How to simulate."""

from __future__ import annotations

import math

import msgspec


class SimulatorOptions(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """``replay`` names a candump log; ``rate`` is a speed factor, 0 is as fast as it is read.

    ``paused`` waits for the command ``start``; ``link`` is a symbolic link to keep on the device;
    ``faults`` are control commands that are given at the start; ``seed`` makes random faults
    repeat. The adapter: ``fd`` knows the CANable 2.0 dialect, ``timestamps`` accepts ``Z1``,
    ``silent`` acknowledges nothing, ``queue`` is the number of frames that wait for the bus.
    """

    replay: str | None = None
    loop: bool = False
    rate: float = 1.0
    paused: bool = False
    link: str | None = None
    faults: list[str] = []
    seed: int = 0
    fd: bool = True
    timestamps: bool = True
    silent: bool = False
    queue: int = 64

    def __post_init__(self) -> None:
        if not (math.isfinite(self.rate) and self.rate >= 0):
            raise ValueError(f"rate must be 0 or above, got {self.rate}")
        if self.queue < 1:
            raise ValueError(f"queue must be 1 or above, got {self.queue}")
