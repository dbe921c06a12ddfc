"""The kinds of actors, in one table: a new kind is one row here and a package of its own."""

from __future__ import annotations

import enum
import importlib
from collections.abc import Mapping
from typing import Any, Final, NamedTuple, Protocol, cast

import msgspec

from canbroker.actors.gateway.options import GatewayOptions
from canbroker.actors.lifelines import Lifelines
from canbroker.actors.nats.options import NatsOptions
from canbroker.actors.recorder.options import RecordOptions
from canbroker.actors.specs import (
    ActorSpec,
    ChannelSpec,
    GatewaySpec,
    NatsSpec,
    RecorderSpec,
    SchedulerSpec,
    WebSpec,
)
from canbroker.actors.web.options import WebOptions


class Demand(enum.Flag):
    """Reasons for an actor to run."""

    CONFIGURED = enum.auto()  # the configuration file names it
    CLIENTS = enum.auto()  # it has clients
    REQUESTED = enum.auto()  # somebody has asked for it since the broker began


class Beat(Protocol):
    """Tells the broker that the actor lives, with a report of it for people."""

    def __call__(self, report: Mapping[str, Any] = ..., /) -> None: ...


class Actor(Protocol):
    """An actor that was made: it serves as soon as it runs."""

    def run(self, lifelines: Lifelines, beat: Beat, /) -> None:
        """Serves until one of ``lifelines`` becomes readable. Calls ``beat`` every second, unless
        a state stream shows that the actor lives."""


class Section(NamedTuple):
    """A part of the configuration file that is about actors of a kind.

    ``options``: what one of its tables may contain; a wrong value raises :class:`ValueError` with
    the name of the key. ``is_named``: it has a table for each actor, ``[section.NAME]``; otherwise
    it is the table of the only one.
    """

    name: str
    options: type[msgspec.Struct]
    is_named: bool


class Kind(NamedTuple):
    """A kind of actor.

    ``actor`` is its class, as ``module:Class``; made with a ``spec``, it raises :class:`CanError`
    if it cannot serve. ``runs_for``: the reasons that make the broker start it. ``section``: where
    the configuration file names such actors; :mod:`canbroker.actors.sections` checks it.
    """

    actor: str
    spec: type[ActorSpec]
    runs_for: Demand
    section: Section | None = None

    def make(self, spec: ActorSpec) -> Actor:
        """Makes the actor; loads what it is made of.

        :raises CanError: it cannot serve.
        """
        module, _, name = self.actor.partition(":")
        return cast(Actor, getattr(importlib.import_module(module), name)(spec))


#: The kinds by their names, which are the tags of their specs.
KINDS: Final[Mapping[str, Kind]] = {
    "channel": Kind(
        "canbroker.actors.channel.actor:ChannelActor",
        ChannelSpec,
        Demand.CONFIGURED | Demand.CLIENTS,
    ),
    "scheduler": Kind(
        "canbroker.actors.scheduler.actor:SchedulerActor",
        SchedulerSpec,
        Demand.REQUESTED,
    ),
    "gateway": Kind(
        "canbroker.actors.gateway.actor:GatewayActor",
        GatewaySpec,
        Demand.CONFIGURED,
        Section("remote", GatewayOptions, is_named=False),
    ),
    "recorder": Kind(
        "canbroker.actors.recorder.actor:RecorderActor",
        RecorderSpec,
        Demand.CONFIGURED | Demand.REQUESTED,
        Section("record", RecordOptions, is_named=True),
    ),
    "web": Kind(
        "canbroker.actors.web.actor:WebActor",
        WebSpec,
        Demand.CONFIGURED,
        Section("web", WebOptions, is_named=False),
    ),
    "nats": Kind(
        "canbroker.actors.nats.actor:NatsActor",
        NatsSpec,
        Demand.CONFIGURED,
        Section("nats", NatsOptions, is_named=False),
    ),
}
