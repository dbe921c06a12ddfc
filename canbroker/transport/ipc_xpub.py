"""The native XPUB: publishes topics by Unix sockets, without libzmq."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from typing import Final

from canbroker.system.throttle import Throttle
from canbroker.transport.address import IpcAddress
from canbroker.transport.ipc_listener import IpcListener
from canbroker.transport.ipc_peer import IpcPeer
from canbroker.transport.kept_out import KeptOut
from canbroker.transport.sockets import MAX_SUBSCRIPTION_BYTES, STREAM_HIGH_WATER
from canbroker.transport.subscriptions import Subscription
from canbroker.transport.zmtp import encode, encode_topic

_KINDS: Final = frozenset({b"SUB", b"XSUB"})

_SUBSCRIBE: Final = 1

#: The most topics of a connection; a channel has fewer routes.
_MAX_TOPICS: Final = 4_096

#: The most topics whose receivers are remembered.
_REMEMBERED: Final = 8_192


class IpcXpub(IpcListener):
    """As :class:`canbroker.transport.xpub.Xpub`. Topics are prefixes, as with libzmq."""

    def __init__(
        self, endpoint: IpcAddress, kept_out: KeptOut, limit: int, refused: Throttle
    ) -> None:
        """As of :class:`IpcRouter`."""
        self._limit = limit
        self._refused = refused
        self._subscribers: dict[bytes, dict[IpcPeer, None]] = {}  # by topic
        self._lengths: Counter[int] = Counter()  # of those topics
        self._receivers: dict[bytes, tuple[bytes, Sequence[IpcPeer]]] = {}  # of whole topics
        self._reports: deque[Subscription] = deque()  # in the order in which they became true
        super().__init__(endpoint, "XPUB", _KINDS, kept_out, MAX_SUBSCRIPTION_BYTES)

    def events(self, at_most: int) -> list[Subscription]:
        events: list[Subscription] = []
        for _ in range(at_most):
            if not self._reports and not self._hear():
                break
            if self._reports:
                events.append(self._reports.popleft())
        self._remind()
        return events

    @property
    def has_more(self) -> bool:
        return bool(self._reports) or super().has_more or self._look()

    def is_ended(self, subscription: Subscription) -> bool:
        source = subscription.source
        return isinstance(source, IpcPeer) and not source.is_open

    def refuse(self, subscription: Subscription) -> None:
        if isinstance(subscription.source, IpcPeer):
            size = 1 + len(subscription.topic)
            self.reject(subscription.source, size, self._limit, self._refused)

    def publish(self, topic: bytes, body: bytes) -> None:
        head, receivers = self._receivers.get(topic) or self._find(topic)
        if receivers:
            message = encode(body, head)
            for peer in receivers:
                self.send(peer, message, STREAM_HIGH_WATER)

    def _hear(self) -> bool:
        """Takes a message, and adds what there is to report; whether there was anything."""
        taken = self.take()
        if taken is None:
            return bool(self._reports)  # of peers that were found to be gone
        peer, parts = taken
        body = parts[0]
        if len(parts) > 1 or not body or body[0] > _SUBSCRIBE:
            what = "message to the stream refused"
            self._refused.note(what, "a subscriber may only subscribe")
            self.reject(peer, sum(map(len, parts)), self._limit, self._refused)
        elif body[0] == _SUBSCRIBE:
            self._subscribe(peer, body[1:])
            self._reports.append(Subscription(body[1:], True, peer))
        elif self._unsubscribe(peer, body[1:]):
            self._reports.append(Subscription(body[1:], False, peer))
        return True

    def _find(self, topic: bytes) -> tuple[bytes, Sequence[IpcPeer]]:
        """The encoded topic, and the peers that have subscribed to it or to a prefix of it."""
        found: dict[IpcPeer, None] = {}
        for length in self._lengths:
            if length <= len(topic):
                found |= self._subscribers.get(topic[:length], {})
        if len(self._receivers) >= _REMEMBERED:
            self._receivers.clear()
        self._receivers[topic] = result = encode_topic(topic), tuple(found)
        return result

    def _subscribe(self, peer: IpcPeer, topic: bytes) -> None:
        if topic in peer.topics:
            return
        if len(peer.topics) >= _MAX_TOPICS:
            self._refused.note("connection ended", f"it has subscribed to {_MAX_TOPICS} topics")
            self.end(peer)
            return
        peer.topics[topic] = None
        if topic not in self._subscribers:
            self._subscribers[topic] = {}
            self._lengths[len(topic)] += 1
        self._subscribers[topic][peer] = None
        self._receivers.clear()

    def _unsubscribe(self, peer: IpcPeer, topic: bytes) -> bool:
        """Whether nobody is subscribed to the topic any more."""
        if topic not in peer.topics:
            return False
        del peer.topics[topic]
        self._receivers.clear()
        subscribers = self._subscribers[topic]
        del subscribers[peer]
        if subscribers:
            return False
        del self._subscribers[topic]
        self._lengths[len(topic)] -= 1
        if not self._lengths[len(topic)]:
            del self._lengths[len(topic)]
        return True

    def _ended(self, peer: IpcPeer) -> None:
        for topic in list(peer.topics):
            if self._unsubscribe(peer, topic):
                self._reports.append(Subscription(topic, False, peer))
        self._remind()

    def _remind(self) -> None:
        """Has a waiter report what is left."""
        if self._reports:
            self._more.set()
