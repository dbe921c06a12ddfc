"""What a broker and its actors tell each other as JSON: how to start, and reports."""

from __future__ import annotations

from operator import add
from typing import Any, Final, NamedTuple

import msgspec

from canbroker.actors.nats.options import NatsOptions
from canbroker.actors.recorder.options import RecordOptions
from canbroker.actors.web.options import WebOptions
from canbroker.wire.replay import Hold

#: Characters of a reason why an actor cannot start or has to end. A report with such a reason fits
#: into the pipe at once, and is shorter than the longest report that is read.
MAX_TEXT: Final = 2048


class ActorSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What every actor is told."""

    log_level: str = "info"


class ChannelSpec(ActorSpec, frozen=True, kw_only=True, tag="channel"):
    """A channel actor: its name, what it opens, and where it listens."""

    name: str
    interface: str
    parameters: dict[str, Any]
    stream: str
    transmit: str
    control: str
    ring_descriptor: int | None = None  # of the memory that the broker keeps for it, or
    ring_file: str = ""  # its file; if there is neither, the memory ends with the actor
    ring_s: float = 60.0
    awaited: list[str] = []  # clients of a predecessor
    error_rate: int = 100  # error frames that it passes on, per second
    holds: list[Hold] = []  # routes that are open from the beginning


class SchedulerSpec(ActorSpec, frozen=True, kw_only=True, tag="scheduler"):
    """The scheduler: ``address`` is that of its broker."""

    address: str


class GatewaySpec(ActorSpec, frozen=True, kw_only=True, tag="gateway"):
    """The gateway: ``address`` is that of its broker, ``listen`` its own."""

    address: str
    listen: str


class RecorderSpec(ActorSpec, frozen=True, kw_only=True, tag="recorder"):
    """A recorder: the name of its recording, what to record, and the address of its broker."""

    name: str
    options: RecordOptions
    address: str


class WebSpec(ActorSpec, frozen=True, kw_only=True, tag="web"):
    """The web page: its options, and the address of its broker."""

    options: WebOptions
    address: str


class NatsSpec(ActorSpec, frozen=True, kw_only=True, tag="nats"):
    """The bridge to NATS: its options, which name everything, and the address of its broker."""

    options: NatsOptions
    address: str


class Totals(NamedTuple):
    """What is in files: frames and bytes. Frames that are not: how many are lost, as far as that is
    known, and ``unfit``, as their format cannot hold them."""

    files: int = 0
    frames: int = 0
    bytes: int = 0
    lost: int = 0
    unfit: int = 0

    def plus(self, other: Totals) -> Totals:
        return Totals(*map(add, self, other))


class RecorderAccount(msgspec.Struct):
    """What a recording has done since its actor began.

    ``file``: path of the current file, or of the last one. ``complete``: files that were completed;
    ``open``: those that are being written. If the actor is killed, its successor completes them.
    ``trouble``: what keeps it from recording, now.
    """

    file: str = ""
    complete: Totals = Totals()
    open: Totals = Totals()
    trouble: str = ""


class Ready(msgspec.Struct, tag="ready"):
    """The child serves, or ``error`` is the reason why it does not.

    ``code`` groups the error as the control protocol does.
    """

    error: str = ""
    code: str = "initialization"


class Alive(msgspec.Struct, tag="alive"):
    """The child still does its work. ``report``: what the broker shows of it, if anything."""

    report: dict[str, Any] = {}
