"""The publishing side of a channel: subscriptions arrive as filters, batches leave as routes."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

import msgspec

from canbroker.delivery.ring import MAX_MARKS, Ring
from canbroker.delivery.routes import Route, RouteTable, kind_of
from canbroker.model.filters import EVERYTHING, FilterSet
from canbroker.model.frame import Frame
from canbroker.system import clock
from canbroker.system.throttle import Throttle
from canbroker.transport.address import IpcAddress
from canbroker.transport.sockets import Context
from canbroker.transport.subscriptions import Subscription
from canbroker.transport.xpub import xpub
from canbroker.wire import WireError, control, stream, topics
from canbroker.wire.replay import Held, Hold

#: A route that is silent is told its next number this often: at first soon, as its last frames may
#: be missing; then less often, as each time wakes several threads.
HEARTBEAT_NS: Final = 200 * clock.MILLISECOND
IDLE_HEARTBEAT_NS: Final = 500 * clock.MILLISECOND
_SOON: Final = 5  # times
MAX_ROUTES: Final = MAX_MARKS

#: The most private topics at a time; the state names all of them and has to fit into a message.
MAX_CLIENTS: Final = 1024

#: After an actor was replaced, subscribers that use their sockets have found its successor within
#: this time. The actor waits longer for clients that do not.
_FIND_NS: Final = 2 * clock.SECOND
_AWAIT_NS: Final = 30 * clock.SECOND

#: The most holders of a route.
_MAX_HOLDERS: Final = 64

#: Subscriptions and heartbeats that are handled before the channel handles frames again.
_AT_ONCE: Final = 16

_logger = logging.getLogger(__name__)


class Presence(NamedTuple):
    """A client has come, and its filters are active; or it has gone."""

    client_id: str
    filters: FilterSet
    present: bool
    topic: bytes  # as the client spelled it, canonical or not
    claim: str | None = None  # as in the topic


class Leaving(NamedTuple):
    """A client asks to be told when this client is not present any more."""

    client_id: str


class Holder(NamedTuple):
    """A holder of a route: it is kept open for ``keep_ns`` without a subscriber; ``since``: the
    number of the first frame that was kept for this holder."""

    keep_ns: int
    since: int


class Publisher:
    """Owns the channel's XPUB socket and its routes. One thread at a time.

    If its ring contains frames of a predecessor, it keeps all frames until
    :meth:`stop_keeping_all`, and a route that is opened before that has numbers from the beginning.
    Clients that knew the predecessor ask for the frames that they have missed; new clients begin
    where they are told.

    :raises CanInitializationError: the endpoint cannot be bound.
    """

    def __init__(
        self,
        context: Context,
        endpoint: IpcAddress,
        channel: str,
        epoch: int,
        ring: Ring,
        awaited: Iterable[str] = (),
    ) -> None:
        """``ring`` keeps the published frames; ``awaited``: ids of a predecessor's clients."""
        self.epoch = epoch
        self.dropped_upstream = 0
        self.refused = Throttle(_logger)
        self.state_asked = False  # a client has joined the state topic since it was published
        self._channel = channel
        self._table = RouteTable()
        self._ring = ring
        self._keeps_all = ring.inherits
        self._awaited = set(awaited)
        self._began_ns = clock.monotonic_ns()
        self._state_topic = topics.state_topic(channel)
        begin = topics.encode_channel(channel)
        self._route_prefix, self._private_prefix = f"{begin}/rx".encode(), f"{begin}/@".encode()
        self._state_wanted = False
        self._present: set[bytes] = set()  # private topics
        self._unreported: list[Presence | Leaving] = []  # changes for the next round
        self._held: dict[bytes, dict[str, Holder]] = {}  # by topic and name
        self._left_ns: dict[bytes, int] = {}  # held routes without a subscriber, since when
        self._fresh: list[Route] = []  # routes whose subscribers do not know its next number yet
        self._xpub = xpub(context, endpoint, self.refused)
        self.socket, self.listening = self._xpub.socket, self._xpub.listening
        self.watch, self.look = self._xpub.watch, self._xpub.look
        self._send = self._xpub.publish

    def __len__(self) -> int:
        return len(self._table)

    def route(self, topic: bytes) -> Route | None:
        """The route of a topic, if it is open."""
        return self._table.get(topic)

    def wanted(self) -> FilterSet:
        """The frames that an adapter with filters must let pass."""
        return EVERYTHING if self._keeps_all else self._table.wanted()

    def stop_keeping_all(self, now_ns: int) -> bool:
        """Stops keeping all frames when that is due; returns ``True`` once, when it does."""
        patience = _AWAIT_NS if self._awaited else _FIND_NS
        is_early = now_ns - self._began_ns < patience
        if not self._keeps_all or (is_early and self._ring.is_whole):
            return False
        self._keeps_all = False
        self._ring.forget_kinds()
        return True

    def hold(self, request: Hold) -> msgspec.Struct:
        """As the control method ``hold``."""
        topic = request.topic.encode()
        route = self._table.get(topic)
        if route is None:
            return control.ErrorResult(
                "malformed", "only an open route can be held: subscribe first"
            )
        holders = self._held.get(topic, {})
        is_held = request.holder in holders
        if not is_held and len(holders) >= _MAX_HOLDERS:
            return control.ErrorResult("limit", f"the route has {_MAX_HOLDERS} holders, the limit")
        since = holders[request.holder].since if is_held else route.next_seq
        if request.seconds:
            holders[request.holder] = Holder(int(request.seconds * clock.SECOND), since)
            self._held[topic] = holders
        else:
            holders.pop(request.holder, None)
        has_it = is_held if request.epoch == self.epoch else self._ring.has(request.epoch)
        return Held(self.epoch, route.next_seq, since, has_it, self._ring.oldest(route.key))

    def begin_hold(self, request: Hold) -> None:
        """Opens and holds a route whose holder is not there yet. Call it before any frame.

        :raises WireError: the topic is not that of a route of this channel.
        """
        topic = request.topic.encode()
        asked = topics.parse(topic, self._channel)
        if not isinstance(asked, topics.RouteTopic):
            raise WireError(f"topic {request.topic!r} is not that of a route")
        self._open(topic, asked.filters)
        self.hold(request)
        self._left_ns[topic] = self._began_ns

    def end_holds(self, now_ns: int) -> bool:
        """Closes held routes whose subscribers have been gone for too long; whether there were."""
        over = [
            topic
            for topic, since_ns in self._left_ns.items()
            if now_ns - since_ns
            >= max((holder.keep_ns for holder in self._held[topic].values()), default=0)
        ]
        for topic in over:
            del self._left_ns[topic], self._held[topic]
            self._table.drop(topic)
        return bool(over)

    def subscriptions(self) -> list[Presence | Leaving]:
        """Handles some of the subscription events that have arrived; opens and drops routes.

        All events that arrived together are read before any is reported: after a reconnect, libzmq
        repeats a client's subscriptions in another order. If more are waiting, the changes of this
        round are returned in the next one.
        """
        changes, self._unreported = self._unreported, []
        for subscription in self._xpub.events(_AT_ONCE):
            change = self._subscription(subscription)
            if change is not None:
                self._unreported.append(change)
        if self._xpub.has_more:
            return changes
        changes += self._unreported
        self._unreported = []
        return changes

    def ready(self, client: Presence, state: msgspec.Raw) -> None:
        """Tells a client that has come the next number of its route, and the channel's state."""
        head, mark, query = client.topic.partition(b"?")
        at = head.rindex(b"/@")
        route = self._table.get(head[:at] + b"/rx" + (mark + query if mark else b";"))
        if route is None and len(self._table) >= MAX_ROUTES:
            self._send(client.topic, stream.encode_error(self.epoch, self._no_room()))
            return
        next_seq = route.next_seq if route else 0
        self._send(client.topic, stream.encode_ready(self.epoch, next_seq, state))

    def left(self, client_id: str) -> None:
        """Tells the clients that have asked that this client is not present."""
        topic = topics.left_topic(self._channel, client_id)
        self._send(topic, stream.encode_event(self.epoch, stream.LeftEvent(client_id)))

    def state(self, event: stream.StateEvent) -> None:
        """Publishes the channel's state, if a client has subscribed to it."""
        self.state_asked = False
        if self._state_wanted:
            self._send(self._state_topic, stream.encode_event(self.epoch, event))

    def publish(self, frames: Sequence[Frame]) -> None:
        """Sends each frame to the routes that it belongs to, one batch a route."""
        if len(frames) <= stream.MAX_BATCH:
            self._publish(frames)
            return
        for start in range(0, len(frames), stream.MAX_BATCH):
            self._publish(frames[start : start + stream.MAX_BATCH])

    def _publish(self, frames: Sequence[Frame]) -> None:
        matching = self._table.matching
        touched: list[Route] = []
        kept: list[bytes] = []
        for frame in frames:
            routes = matching(frame)
            if not routes and not self._keeps_all:
                continue
            packed = stream.pack_frame(frame)
            kept.append(packed)
            for route in routes:
                if not route.pending:
                    touched.append(route)
                route.pending.append(packed)
        if kept:
            self._ring.append(kept, touched, map(kind_of, frames) if self._keeps_all else ())
        if touched:
            now = clock.monotonic_ns()
            for route in touched:
                self._flush(route, now)

    def greet(self) -> bool:
        """Tells subscribers of new routes their next number; returns whether there are any."""
        fresh, self._fresh = self._fresh, []
        now = clock.monotonic_ns()
        for route in fresh:
            self._beat(route, now)
        return bool(fresh)

    def heartbeat(self, now_ns: int) -> int | None:
        """Tells subscribers of idle routes their next number.

        Returns when to call it again; ``None`` if there are no routes.
        """
        due: int | None = None
        told = 0
        for route in self._table.routes():
            due_ns = _beat_due_ns(route)
            # Half an interval early, but for the first: so idle routes come to beat together.
            if now_ns >= due_ns or (route.beats and 2 * now_ns >= due_ns + route.sent_ns):
                if told == _AT_ONCE:
                    return now_ns
                told += 1
                self._beat(route, now_ns)
                due_ns = _beat_due_ns(route)
            due = due_ns if due is None else min(due, due_ns)
        return due

    def close(self, reason: str) -> None:
        """Ends every route, with the reason, and closes the socket."""
        for route in self._table.routes():
            body = stream.encode_end(self.epoch, route.next_seq, self.dropped_upstream, reason)
            self._send(route.topic, body)
        self._xpub.close()

    def _beat(self, route: Route, now_ns: int) -> None:
        body = stream.encode_heartbeat(self.epoch, route.next_seq, self.dropped_upstream)
        self._send(route.topic, body)
        route.sent_ns = now_ns
        route.beats += 1

    def _flush(self, route: Route, now_ns: int) -> None:
        packed, route.pending = route.pending, []
        body = stream.encode_frames(self.epoch, route.next_seq, self.dropped_upstream, packed)
        route.next_seq += len(packed)
        route.sent_ns = now_ns
        route.beats = 0
        self._send(route.topic, body)

    def _subscription(self, subscription: Subscription) -> Presence | Leaving | None:
        topic, subscribed, _ = subscription
        known = topic in self._table or topic in self._present or topic == self._state_topic
        if not subscribed and not known:
            return None  # there was no room for it
        if subscribed and self._xpub.is_ended(subscription):
            return None
        try:
            if not known:
                self._check_room(topic)
            asked = topics.parse(topic, self._channel)
        except WireError as error:
            if subscribed:
                self.refused.note("subscription refused", str(error))
                self._send(topic, stream.encode_error(self.epoch, str(error)))
                self._xpub.refuse(subscription)
            return None
        match asked:
            case topics.PrivateTopic(client_id, filters, claim):
                (self._present.add if subscribed else self._present.discard)(topic)
                self._awaited.discard(client_id)
                return Presence(client_id, filters, subscribed, topic, claim)
            case topics.StateTopic():
                self._state_wanted = self.state_asked = subscribed
            case topics.LeftTopic(client_id):
                return Leaving(client_id)
            case topics.RouteTopic(filters) if subscribed:
                self._open(topic, filters)
            case _:
                self._leave(topic)
        return None

    def _leave(self, topic: bytes) -> None:
        if topic in self._held:
            self._left_ns[topic] = clock.monotonic_ns()
        else:
            self._table.drop(topic)

    def _open(self, topic: bytes, filters: FilterSet) -> None:
        self._left_ns.pop(topic, None)
        if topic in self._table:
            return
        route = self._table.open(topic, filters)
        self._fresh.append(route)
        if self._keeps_all and self._ring.is_whole:
            self._ring.count_all(route)
        else:
            self._ring.forget(route)

    def _check_room(self, topic: bytes) -> None:
        """Checked first for a new topic: a client that subscribes endlessly must cost little."""
        if topic.startswith(self._route_prefix) and len(self) >= MAX_ROUTES:
            raise WireError(self._no_room())
        if topic.startswith(self._private_prefix) and len(self._present) >= MAX_CLIENTS:
            raise WireError(f"channel {self._channel!r} has {MAX_CLIENTS:,} clients, the limit")

    def _no_room(self) -> str:
        return f"channel {self._channel!r} has {MAX_ROUTES} routes, the limit"


def _beat_due_ns(route: Route) -> int:
    return route.sent_ns + (HEARTBEAT_NS if route.beats < _SOON else IDLE_HEARTBEAT_NS)
