"""All that an actor needs to know when it starts; travels to its process as JSON."""

from __future__ import annotations

from typing import Any

import msgspec


class ChannelSpec(msgspec.Struct, frozen=True, kw_only=True, tag="channel"):
    """A channel actor: what it is called, what it opens, where it listens."""

    name: str
    interface: str
    parameters: dict[str, Any]
    stream: str
    transmit: str
    control: str
    ring_descriptor: int | None = None  # of the memory that the broker keeps for it
    ring_s: float = 60.0
    awaited: list[str] = []  # clients of a predecessor
    error_rate: int = 100  # error frames a second that it passes on
    log_level: str = "info"


class SchedulerSpec(msgspec.Struct, frozen=True, kw_only=True, tag="scheduler"):
    """The scheduler: whose it is."""

    address: str  # of the broker
    log_level: str = "info"


Spec = ChannelSpec | SchedulerSpec
