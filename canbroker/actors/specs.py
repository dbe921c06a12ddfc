"""What a broker and its actors tell each other as JSON: all to start with, and reports."""

from __future__ import annotations

from typing import Any, Final

import msgspec

#: Characters of a reason, why an actor cannot start or shall end: a line of a report fits the pipe
#: at once, and is less than the longest one that is read.
MAX_TEXT: Final = 2048


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


class Ready(msgspec.Struct, tag="ready"):
    """The child's answer: ``error`` is empty when it serves, else the reason why it does not.

    ``code`` groups it as an error of the control protocol does.
    """

    error: str = ""
    code: str = "initialization"


class Alive(msgspec.Struct, tag="alive"):
    """The child still does its work."""
