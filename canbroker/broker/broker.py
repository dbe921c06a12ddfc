"""The broker: its loop, and the methods of its control socket. It never sees a frame."""

from __future__ import annotations

import importlib.metadata
import logging
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from canbroker.actors.gateway.options import GatewayOptions
from canbroker.actors.sections import check as check_sections
from canbroker.actors.sections import nats_options, web_options
from canbroker.backends.configured import check
from canbroker.broker.callers import Callers
from canbroker.broker.channel_slot import ChannelSlot
from canbroker.broker.databases import Databases
from canbroker.broker.directory import Directory
from canbroker.broker.flight_records import FlightRecords, record_suffix
from canbroker.broker.leases import Leases
from canbroker.broker.log_file import LogFile
from canbroker.broker.premises import Premises
from canbroker.broker.recordings import Recordings
from canbroker.broker.register import Register
from canbroker.broker.slots import GatewaySlot, NatsSlot, SchedulerSlot, WebSlot
from canbroker.broker.succession import Succession
from canbroker.broker.supervisor import ActorSlot, Phase
from canbroker.configuration.broker_file import BrokerConfig, Config
from canbroker.errors import CanError, CanInitializationError
from canbroker.system import clock
from canbroker.system.lock import BrokerLock
from canbroker.system.throttle import Throttle
from canbroker.transport.address import TcpAddress
from canbroker.transport.listening import check_free
from canbroker.transport.replier import Caller, Replier
from canbroker.transport.runtime import Runtime
from canbroker.transport.sockets import Context
from canbroker.transport.waiter import Descriptor, Waiter
from canbroker.wire import control
from canbroker.wire.replay import Hold
from canbroker.wire.status import BrokerStatus

#: A broker that a client has started leaves this long after its last client.
IDLE_NS: Final = 5 * clock.SECOND

_logger = logging.getLogger(__name__)


class Broker:
    """The control socket listens as soon as the broker is made. :meth:`run` serves."""

    def __init__(
        self,
        runtime: Runtime,
        lock: BrokerLock,
        config: Config | None = None,
        *,
        listen: TcpAddress | None = None,
        autostarted: bool = False,
    ) -> None:
        """
        :param listen: where remote clients connect; ``None``: as the configuration says.
        :param lock: the runtime directory's lock, which the broker holds from now on.
        :param autostarted: a client has started it, so it leaves when it has no clients.
        :raises CanInitializationError: the configuration is wrong, or the socket cannot be bound.
        """
        self._runtime = runtime
        self._lock = lock
        self._autostarted = autostarted
        self._config = config.broker if config else BrokerConfig()
        self._records = FlightRecords(runtime, record_suffix(config))
        self._log_file = LogFile(runtime.log_path)
        self._scheduler = SchedulerSlot(runtime, self._config.log_level)
        sections = check_sections(config) if config else {}
        listen = listen or _listen(sections)
        self._gateway = listen and GatewaySlot(runtime, listen, self._config.log_level)
        web = web_options(config, sections)
        self._web = web and WebSlot(runtime, web, self._config.log_level)
        nats = nats_options(config, sections)
        self._nats = nats and NatsSlot(runtime, nats, self._config.log_level)
        self._callers = Callers(self._reply, self._start)
        self._recordings = Recordings(
            runtime,
            self._config.log_level,
            sections.get("recorder", {}),
            Path(config.source.path).absolute().parent if config else Path("/"),
            lambda: self._directory.slots,
            self._reply,
            self._start,
        )
        self._directory = Directory(
            runtime.place, self._config, self._records, self._callers, self._holds
        )
        self._started_ns = clock.monotonic_ns()
        self._busy_ns = self._started_ns
        self._stop_reason: str | None = None
        self._trouble: CanError | None = None  # which ends the broker
        checked = check(config) if config else {}
        self._databases = Databases(config)
        for name, (interface, options) in checked.items():
            slot = self._directory.add(name, interface, options, configured=True)
            slot.databases = self._databases.of(name)
        self._succession = Succession(runtime)
        self._succession.clear()
        if listen is not None:
            check_free(listen)
        self._register = Register(runtime)
        self._directory.resume(self._register.load())
        self._scheduler.resume()
        self._premises = Premises(runtime, lock)
        self._refused = Throttle(_logger)
        self._waiter = Waiter()
        self._leases = Leases(
            runtime.leases_path,
            _pools(config),
            self._waiter,
            self._reply,
            lambda name: self._directory.slots[name].is_up,
            lambda identity: self._control.is_connected(identity),  # noqa: PLW0108 - made below
        )
        self._context = Context()
        self._control = Replier(
            self._context,
            runtime.address,
            control.BROKER_METHODS,
            {
                "hello": self._hello,
                "attach": self._attach,
                "detach": self._detach,
                "status": self._status,
                "database": self._databases.part,
                "scheduler": self._get_scheduler,
                "shutdown": self._shutdown,
                **self._leases.handlers,
                **self._recordings.handlers,
            },
            self._refused,
        )
        self._control.watch(self._waiter)

    def __repr__(self) -> str:
        return f"<Broker {self._runtime.address} channels={len(self._directory.slots)}>"

    def run(self, *ends: Descriptor | int) -> None:
        """Serves until one of ``ends`` becomes readable, it is told to stop, or it is idle.

        :raises CanInitializationError: its runtime directory was removed, or another broker has
            taken it.
        """
        for end in ends:
            self._waiter.add(end)
        try:
            for slot in self._actors():
                if slot.wanted:
                    self._start(slot)
            while self._stop_reason is None:
                ready = self._waiter.wait(max(0, self._due() - clock.monotonic_ns()))
                if not ready.isdisjoint(ends):
                    self._stop_reason = "the broker was told to end"
                self._step(ready)
        finally:
            self._end()
        if self._trouble is not None:
            raise self._trouble

    # ------------------------------------------------------------------------------- the loop

    def _step(self, ready: set[object]) -> None:
        if self._control.socket in ready:
            self._control.serve(self._waiter)
        self._control.listening.attend(ready)
        self._serve_slots(ready)
        self._callers.serve(self._scheduler)
        self._succession.record(self._actors())
        self._register.record(self._channels())
        self._leases.step(ready, clock.monotonic_ns())
        self._recordings.step()
        self._records.step()
        self._log_file.step()
        self._look_after_files()
        if self._autostarted and self._idle():
            self._stop_reason = "its last client has left"

    def _look_after_files(self) -> None:
        """Restores files of the runtime directory that were removed; ends if that is impossible."""
        try:
            if self._premises.step(clock.monotonic_ns()):
                self._succession.record(self._actors(), anew=True)
                self._register.record(self._channels(), anew=True)
                self._leases.record()
        except CanInitializationError as error:
            self._trouble = error
            self._stop_reason = str(error)

    def _serve_slots(self, ready: set[object]) -> None:
        for actor in self._actors():
            if actor.child is not None and actor.child in ready:
                actor.reported(clock.monotonic_ns(), self._context, self._waiter)
        for slot in self._channels():
            if slot.feed is not None and slot.feed.socket in ready:
                slot.follow_state(clock.monotonic_ns())

    def _due(self) -> int:
        """Steps all slots; returns the monotonic time of the next step."""
        now = clock.monotonic_ns()
        due = min(now + clock.SECOND, self._leases.due_ns or now + clock.SECOND)
        due = min(due, *(actor.step(now, self._waiter) for actor in self._actors()))
        self._directory.forget_unused()
        return due

    def _idle(self) -> bool:
        now = clock.monotonic_ns()
        is_used = any(slot.clients for slot in self._channels())
        if self._callers or self._leases.busy or self._recordings.busy or is_used:
            self._busy_ns = now
        return now - self._busy_ns > IDLE_NS

    def _channels(self) -> Collection[ChannelSlot]:
        return self._directory.slots.values()

    def _actors(self) -> list[ActorSlot]:
        configured = [slot for slot in (self._gateway, self._web, self._nats) if slot]
        recorders = self._recordings.slots.values()
        return [*self._channels(), self._scheduler, *configured, *recorders]

    def _holds(self, channel: str) -> list[Hold]:
        """The routes of a channel that are open from its beginning."""
        bridge = self._nats.holds(channel) if self._nats else []
        return [*self._recordings.holds(channel), *bridge]

    def _start(self, slot: ActorSlot) -> None:
        slot.begin(clock.monotonic_ns(), self._waiter)
        self._succession.record(self._actors())  # at once: we may be killed at any time

    def _end(self) -> None:
        """Stops every actor, by force if it hangs, then gives up socket and lock."""
        reason = self._stop_reason or "the broker ends"
        _logger.info("stopping: %s", reason)
        try:
            self._callers.end(reason)
            self._leases.close(reason)
            self._recordings.end(reason)
            for slot in self._actors():
                # If we are in trouble, clients shall find the other broker that comes, or is there.
                slot.stop(clock.monotonic_ns(), reason, for_good=self._trouble is None)
            while any(slot.child is not None for slot in self._actors()):
                self._serve_slots(self._waiter.wait(max(0, self._due() - clock.monotonic_ns())))
        finally:
            self.close()

    def close(self) -> None:
        """Gives up sockets, files and the lock."""
        self._records.close()
        self._control.close()
        self._context.close()
        if self._lock.is_in_place:  # else the files are another broker's
            self._succession.remove_files()
        self._lock.release()

    # -------------------------------------------------------------------------------- methods

    def _hello(self, _: Caller, __: control.Params) -> control.HelloResult:
        self._busy_ns = clock.monotonic_ns()  # a client that says hello is about to attach
        return control.HelloResult(
            version=importlib.metadata.version("canbroker"),
            pid=os.getpid(),
            address=str(self._runtime.address),
            autostarted=self._autostarted,
            monotonic_ns=clock.monotonic_ns(),
            wall_ns=clock.wall_ns(),
        )

    def _attach(self, caller: Caller, request: control.Attach) -> msgspec.Struct | None:
        self._busy_ns = clock.monotonic_ns()
        if self._stop_reason is not None:
            return control.ErrorResult("shutting-down", self._stop_reason)
        try:
            slot = self._directory.find(request)
        except CanError as error:
            return control.ErrorResult(control.error_code(error), str(error))
        if slot.phase in {Phase.STOPPED, Phase.FAILED}:
            self._start(slot)
        return self._callers.await_channel(caller, request, slot)

    def _detach(self, _: Caller, request: control.Detach) -> control.Nothing:
        for slot in self._channels():
            slot.forget(request.client_id)
        return control.Nothing()

    def _status(self, _: Caller, request: control.Viewed) -> BrokerStatus:
        return BrokerStatus(
            version=importlib.metadata.version("canbroker"),
            pid=os.getpid(),
            address=str(self._runtime.address),
            autostarted=self._autostarted,
            uptime_s=(clock.monotonic_ns() - self._started_ns) / clock.SECOND,
            refused=self._refused.counts.total(),
            waiting=len(self._callers),
            turned_away=dict(self._callers.turned_away),
            channels=[
                slot.status() for slot in self._channels() if control.is_visible(slot.name, request)
            ],
            scheduler=self._scheduler.status(),
            pools=self._leases.visible_pools(request),
            leases=self._leases.status(request),
            # It names all users: not for those who may not know of all channels.
            gateway=self._gateway.status() if self._gateway and request.channels is None else None,
            recordings=self._recordings.status(request),
            web=self._web.status() if self._web and request.channels is None else None,
            nats=self._nats.status() if self._nats and request.channels is None else None,
        )

    def _get_scheduler(self, caller: Caller, _: control.Params) -> msgspec.Struct | None:
        if self._stop_reason is not None:
            return control.ErrorResult("shutting-down", self._stop_reason)
        if self._scheduler.phase in {Phase.STOPPED, Phase.FAILED}:
            self._start(self._scheduler)
        refused = self._callers.await_scheduler(caller)
        self._callers.serve(self._scheduler)
        return refused

    def _reply(self, caller: Caller, result: msgspec.Struct) -> None:
        self._control.reply(caller, result)

    def _shutdown(self, _: Caller, __: control.Params) -> control.Nothing:
        self._stop_reason = "the broker was told to stop"
        return control.Nothing()


def _listen(sections: Mapping[str, Mapping[str, Any]]) -> TcpAddress | None:
    """Where remote clients connect, as the configuration says."""
    options: GatewayOptions = sections.get("gateway", {}).get("gateway", GatewayOptions())
    return options.address


def _pools(config: Config | None) -> dict[str, list[str]]:
    """The channels of each pool, in the order of the file."""
    pools: dict[str, list[str]] = {}
    for channel in config.channels.values() if config else ():
        if channel.pool is not None:
            pools.setdefault(channel.pool, []).append(channel.name)
    return pools
