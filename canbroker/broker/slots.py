"""Scheduler, gateway, web page and NATS bridge of a broker, each supervised in its slot."""

from __future__ import annotations

from canbroker.actors.kinds import KINDS
from canbroker.actors.nats.options import HOLD_S, HOLDER, NatsOptions
from canbroker.actors.specs import GatewaySpec, NatsSpec, SchedulerSpec, WebSpec
from canbroker.actors.web.options import WebOptions
from canbroker.broker.supervisor import ActorSlot, Phase
from canbroker.model.filters import EVERYTHING
from canbroker.transport.address import TcpAddress
from canbroker.transport.runtime import Runtime
from canbroker.wire.replay import Hold
from canbroker.wire.status import GatewayStatus, NatsStatus, SchedulerStatus, WebStatus
from canbroker.wire.topics import route_topic


class SchedulerSlot(ActorSlot):
    """The scheduler of all periodic tasks. Started for the first client that asks for it."""

    def __init__(self, runtime: Runtime, log_level: str) -> None:
        """:raises CanInitializationError: the runtime directory is too long for the socket."""
        super().__init__(KINDS["scheduler"], "scheduler", "scheduler")
        self.address = runtime.place.scheduler
        self._runtime = runtime
        self._log_level = log_level

    def resume(self) -> None:
        """Takes over from a broker that was killed: the scheduler runs if there were tasks."""
        self.requested = self._runtime.journal_path.exists()

    def status(self) -> SchedulerStatus:
        return SchedulerStatus(
            **self.condition(),
            control=str(self.address),
        )

    def _spec(self) -> SchedulerSpec:
        return SchedulerSpec(address=str(self._runtime.address), log_level=self._log_level)


class GatewaySlot(ActorSlot):
    """The gateway for remote clients, if the broker is to have one."""

    def __init__(self, runtime: Runtime, listen: TcpAddress, log_level: str) -> None:
        """``listen``: where remote clients connect."""
        super().__init__(KINDS["gateway"], "gateway", "gateway for remote clients", configured=True)
        self._runtime = runtime
        self._listen = listen
        self._log_level = log_level

    def status(self) -> GatewayStatus:
        says = self.report if self.phase is Phase.RUNNING else {}
        return GatewayStatus(
            **self.condition(),
            **{"listen": str(self._listen), **says},
        )

    def _spec(self) -> GatewaySpec:
        return GatewaySpec(
            address=str(self._runtime.address),
            listen=str(self._listen),
            log_level=self._log_level,
        )


class WebSlot(ActorSlot):
    """The web page, if the broker is to have one."""

    def __init__(self, runtime: Runtime, options: WebOptions, log_level: str) -> None:
        """``options``: with an address to listen at."""
        super().__init__(KINDS["web"], "web", "web page", configured=True)
        self._runtime = runtime
        self._options = options
        self._log_level = log_level

    def status(self) -> WebStatus:
        says = self.report if self.phase is Phase.RUNNING else {}
        return WebStatus(
            **self.condition(),
            listen=self._options.listen or "",
            **says,
        )

    def _spec(self) -> WebSpec:
        return WebSpec(
            options=self._options,
            address=str(self._runtime.address),
            log_level=self._log_level,
        )


class NatsSlot(ActorSlot):
    """The bridge to NATS, if the broker is to have one."""

    def __init__(self, runtime: Runtime, options: NatsOptions, log_level: str) -> None:
        """``options``: with all that was left out."""
        super().__init__(KINDS["nats"], "nats", "NATS bridge", configured=True)
        self._runtime = runtime
        self._options = options
        self._log_level = log_level

    def status(self) -> NatsStatus:
        says = self.report if self.phase is Phase.RUNNING else {}
        return NatsStatus(
            **self.condition(),
            url=self._options.server.shown,
            **says,
        )

    def holds(self, channel: str) -> list[Hold]:
        """The route of a channel that the bridge publishes, open from the channel's beginning."""
        if channel not in self._options.channels:
            return []
        topic = route_topic(channel, EVERYTHING).decode()
        return [Hold(topic=topic, holder=HOLDER, seconds=HOLD_S)]

    def _spec(self) -> NatsSpec:
        return NatsSpec(
            options=self._options,
            address=str(self._runtime.address),
            log_level=self._log_level,
        )
