"""The channels that a broker supervises, with their clients."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from typing import Any, Final

import msgspec

from canbroker.actors.kinds import KINDS, Demand
from canbroker.actors.specs import ChannelSpec
from canbroker.backends import Options
from canbroker.broker.flight_records import FlightRecords
from canbroker.broker.supervisor import ActorSlot, Phase
from canbroker.configuration.broker_file import BrokerConfig
from canbroker.delivery.publisher import MAX_CLIENTS
from canbroker.delivery.state_feed import StateFeed
from canbroker.errors import CanError
from canbroker.system import clock
from canbroker.system.processes import is_alive
from canbroker.system.shared_memory import SharedMemory, kept
from canbroker.transport.place import Place
from canbroker.transport.sockets import Context
from canbroker.transport.waiter import Waiter
from canbroker.wire import WireError, control, topics
from canbroker.wire.databases import DatabaseInfo
from canbroker.wire.replay import Hold
from canbroker.wire.status import ChannelStatus, ClientStatus
from canbroker.wire.stream import CHANGING, StateEvent, decode_event

#: A client that got a channel and never subscribed is forgotten after this time, if its process has
#: ended.
_UNSEEN_NS: Final = 10 * clock.SECOND

#: After this time also if its process lives, but is not connected: its bus was closed while no
#: broker ran that could be told, or it keeps asking for channels without using them.
_GONE_NS: Final = 30 * clock.SECOND

#: A channel that a client opened is closed this long after its last client.
_IDLE_NS: Final = 2 * clock.SECOND

_logger = logging.getLogger(__name__)


class Client(msgspec.Struct):
    """A client of a channel, as it introduced itself.

    ``started`` is when its process started, as :func:`start_of` returns it. ``seen`` is true once
    the channel has seen its subscription. The channel counts ``replayed`` and ``gone``.
    """

    pid: int
    program: str
    since_ns: int
    started: int | None = None
    seen: bool = False
    filters: str = ""
    replayed: int = 0
    gone: int = 0
    given: dict[str, Any] = {}  # parameters that it has asked for


class ChannelSlot(ActorSlot):
    """A channel, the life of its actor, and its clients."""

    def __init__(
        self,
        place: Place,
        name: str,
        interface: str,
        options: Options,
        *,
        configured: bool,
        broker: BrokerConfig,
        records: FlightRecords,
    ) -> None:
        """
        :param configured: the configuration file has it, so it stays when it has no clients.
        :param broker: options of all channels.
        :param records: get a record when something goes wrong.
        :raises CanInitializationError: the runtime directory is too long for the sockets.
        """
        super().__init__(
            KINDS["channel"], name, f"channel actor of {name!r}", configured=configured
        )
        self.interface = interface
        self.options = options
        self.state: StateEvent | None = None
        self.clients: dict[str, Client] = {}
        self._departed: dict[str, None] = {}  # they said so; an older state may still name them
        self.feed: StateFeed | None = None
        self._broker = broker
        self._records = records
        self._crashed_ns: int | None = None  # monotonic, of an actor that is not replaced yet
        self._ring: SharedMemory | None = None
        self._addresses = place.channel(name)
        self.databases: list[DatabaseInfo] = []
        self._ring_path = place.ring(name)
        self.listen_only: bool | None = None  # as the channel was, for the actor's successor
        self._resumes = False
        self._idle_ns: int | None = None
        #: The routes of a channel that are open from its beginning.
        self.holds: Callable[[str], list[Hold]] = _no_holds

    def __repr__(self) -> str:
        return f"<ChannelSlot {self.name} {self.phase.value} clients={len(self.clients)}>"

    @property
    def parameters(self) -> dict[str, Any]:
        return self.options.written()

    @property
    def is_up(self) -> bool:
        """Whether its adapter works, as far as the broker knows."""
        return self.state is not None and self.state.state != "error"

    @property
    def is_closed(self) -> bool:
        """Whether its adapter is closed. It is open while the bus is off."""
        if self.phase is Phase.FAILED:
            return True
        return self.state is not None and self.state.state == "error" and not self.state.info

    def insists(self, keys: Collection[str]) -> bool:
        """Whether a client whose process lives has asked for one of these parameters."""
        there = (client for client in self.clients.values() if is_alive(client.pid))
        return any(not client.given.keys().isdisjoint(keys) for client in there)

    @property
    def idle(self) -> bool:
        """Whether it exists only for clients, and they are gone."""
        return self.phase in {Phase.STOPPED, Phase.FAILED} and not self.wanted

    def attached(self) -> control.Attached:
        """Where clients find the channel."""
        return control.Attached(
            name=self.name,
            interface=self.interface,
            parameters=self.parameters,
            stream=str(self._addresses.stream),
            transmit=str(self._addresses.transmit),
            control=str(self._addresses.control),
        )

    def status(self) -> ChannelStatus:
        return ChannelStatus(
            name=self.name,
            interface=self.interface,
            parameters=self.parameters,
            configured=self.configured,
            **self.condition(),
            stream=str(self._addresses.stream),
            transmit=str(self._addresses.transmit),
            control=str(self._addresses.control),
            state=self.state,
            clients=[
                ClientStatus(
                    client_id=client_id,
                    pid=client.pid,
                    program=client.program,
                    filters=client.filters,
                    replayed=client.replayed,
                    gone=client.gone,
                )
                for client_id, client in self.clients.items()
            ],
            record=self._records.last(self.name),
            databases=self.databases,
        )

    def begin(self, now_ns: int, waiter: Waiter) -> None:
        """As the base. Unless it was resumed, the channel has the mode of its options again."""
        if not self._resumes:
            self.listen_only = None
        self._resumes = False
        super().begin(now_ns, waiter)

    def resume(self, clients: dict[str, Client], listen_only: bool | None) -> None:
        """Takes over the clients of a broker that was killed. Call it before :meth:`begin`."""
        self.clients |= clients
        self.listen_only = listen_only
        self._resumes = True

    def follow_state(self, now_ns: int) -> None:
        """Follows the actor's state stream, which shows that it lives and lists its clients."""
        while self.feed is not None and (body := self.feed.receive()) is not None:
            try:
                event = decode_event(body).payload
            except WireError:
                _logger.exception("channel %r: cannot decode its state", self.name)
                continue
            if isinstance(event, StateEvent):
                self._heard_ns = now_ns
                self._note_error(event, now_ns)
                self.state = event
                if event.state != "error":
                    self.listen_only = event.state == "passive"
                self._note_clients(event, now_ns)

    def _note_error(self, event: StateEvent, now_ns: int) -> None:
        """Begins a flight record if the bus, or the adapter, has just failed."""
        has_failed = self.is_up and event.state == "error" and event.reason != CHANGING
        if has_failed and self.phase is Phase.RUNNING:
            reason = "bus-off" if "bus-off" in event.reason else "error"
            self._records.begin(self.name, reason, now_ns)

    # ------------------------------------------------------------------------------ lifecycle

    def _spec(self) -> ChannelSpec:
        parameters = self.parameters
        if self.listen_only is not None and hasattr(self.options, "listen_only"):
            parameters["listen_only"] = self.listen_only  # a client may have changed it
        if self._ring is None:
            self._ring = kept(self._broker.ring_mb << 20, self._ring_path)
        ring = self._ring
        return ChannelSpec(
            name=self.name,
            interface=self.interface,
            parameters=parameters,
            stream=str(self._addresses.stream),
            transmit=str(self._addresses.transmit),
            control=str(self._addresses.control),
            ring_descriptor=ring.descriptor if ring else None,
            ring_file=str(ring.path) if ring and ring.path else "",
            ring_s=self._broker.ring_s,
            awaited=list(self.clients),
            error_rate=self._broker.error_rate,
            holds=self.holds(self.name),
            log_level=self._broker.log_level,
        )

    def _running(self, now_ns: int, context: Context, waiter: Waiter) -> None:
        try:
            self.feed = StateFeed(context, self._addresses.stream, topics.state_topic(self.name))
        except CanError as error:  # no descriptors are left
            self.stop(now_ns, str(error))
            return
        waiter.add(self.feed.socket)
        if self._crashed_ns is not None:
            self._records.begin(self.name, "crash", self._crashed_ns)
            self._crashed_ns = None

    def _ending(self, waiter: Waiter) -> None:
        if self.feed is not None:
            waiter.remove(self.feed.socket)
            self.feed.close()
            self.feed = None
        self.state = None

    def _entered(self, phase: Phase) -> None:
        if phase is Phase.BACKING_OFF and self._crashed_ns is None:
            self._crashed_ns = self._since_ns
        if phase in {Phase.STOPPED, Phase.FAILED}:
            self._crashed_ns = None
        if phase in {Phase.RUNNING, Phase.FAILED}:
            # Clients of an actor that is replaced come back when they next use their bus.
            for client in self.clients.values():
                if client.seen:
                    client.seen = False
                    client.since_ns = self._since_ns

    def _attend(self, now_ns: int) -> None:
        self._forget_clients(now_ns)
        if self.phase is Phase.RUNNING:
            self._close_idle(now_ns)

    # -------------------------------------------------------------------------------- clients

    def _demand(self) -> Demand:
        # A recorder that was killed is a client that comes back.
        is_used = self.clients or self.holds(self.name)
        return super()._demand() | (Demand.CLIENTS if is_used else Demand(0))

    def forget(self, client_id: str) -> None:
        """Forgets a client that has said that it leaves."""
        if self.clients.pop(client_id, None) is not None:
            self._departed[client_id] = None
            if len(self._departed) > MAX_CLIENTS:
                del self._departed[next(iter(self._departed))]

    def _note_clients(self, event: StateEvent, now_ns: int) -> None:
        present = {info.client_id for info in event.clients}
        for info in event.clients:
            if info.client_id in self._departed:
                continue
            # An unknown one has outlived the broker that it introduced itself to.
            client = self.clients.setdefault(info.client_id, Client(0, "?", now_ns))
            client.seen = True
            client.filters = info.filters
            client.replayed, client.gone = info.replayed, info.gone
        for client_id, client in list(self.clients.items()):
            if client.seen and client_id not in present:
                del self.clients[client_id]

    def _forget_clients(self, now_ns: int) -> None:
        for client_id, client in list(self.clients.items()):
            late_ns = 0 if client.seen else now_ns - client.since_ns
            has_ended = late_ns > _UNSEEN_NS and not is_alive(client.pid)
            if has_ended or (late_ns > _GONE_NS and not self._is_connected(client)):
                del self.clients[client_id]

    def _is_connected(self, client: Client) -> bool:
        """Whether its process has a connection to the channel, as far as the broker knows. A
        process that does not use its bus is connected, and subscribes again when it does."""
        connected = self.state.connected if self.state is not None else []
        return not connected or 0 in connected or client.pid in connected

    def _close_idle(self, now_ns: int) -> None:
        if self.wanted:
            self._idle_ns = None
        elif self._idle_ns is None:
            self._idle_ns = now_ns
        elif now_ns - self._idle_ns > _IDLE_NS:
            self._idle_ns = None
            self.stop(now_ns, "its last client has left")


def _no_holds(_: str) -> list[Hold]:
    return []
