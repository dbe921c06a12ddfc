"""The sockets of the broker and its actors, as the gateway uses them for one client's socket."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Protocol, TypeAlias

from canbroker.actors.gateway.methods import Serves
from canbroker.actors.gateway.shares import Share
from canbroker.system import clock
from canbroker.transport.address import IpcAddress
from canbroker.transport.lines import Line, Lines
from canbroker.wire import DECODE_ERRORS, WireError, control
from canbroker.wire.transmit import Status, encode_reply

#: What a client's socket is sent: one part, or topic and body of a stream.
Parts: TypeAlias = Sequence[bytes]

Receive: TypeAlias = Callable[[], Parts | None]

#: Topics of one client's socket: those of its filters, its presence and the state, old and new.
MAX_TOPICS: Final = 64

_SUBSCRIBE: Final = 1

#: A channel keeps one request for frames of the past for each connection, and clients that are far
#: away send several at a time.
_PAST: Final = frozenset({"replay", "history"})
MAX_QUEUED: Final = 32
_ANSWER_NS: Final = clock.SECOND


class RefusedError(Exception):
    """The client's socket does not follow the protocol; its session ends."""


class Upstream(Protocol):
    """One socket of the broker's side, by its ``line``."""

    #: Sent to find out whether the client's socket is connected; clients ignore it.
    probe: Parts

    @property
    def line(self) -> Line: ...

    def forward(self, body: bytes) -> None:
        """Passes on what the client has sent.

        :raises RefusedError: it cannot be.
        """

    @property
    def receive(self) -> Receive:
        """Returns the next message for the client, if one has arrived."""

    def step(self, now_ns: int) -> None:
        """Called several times a second.

        :raises RefusedError: as of :meth:`forward`.
        """

    def close(self) -> None: ...


class StreamUpstream:
    """The stream of a channel, with the subscriptions of one client's socket."""

    probe: Parts = (b"", b"")

    def __init__(self, lines: Lines, endpoint: IpcAddress, share: Share) -> None:
        """
        :param share: of the channel's room, for the topics.
        :raises CanInitializationError: no descriptors are left.
        """
        self.line = lines.subscriber(endpoint)
        self.receive: Receive = self.line.receive
        self._topics = share

    def forward(self, body: bytes) -> None:
        """Subscribes and unsubscribes. The client repeats its topics when it hears nothing, so
        that a gateway that was restarted knows them, too; they are passed on once.

        :raises NoRoomError: the user has too many topics of that kind.
        """
        if not body or body[0] > _SUBSCRIBE:
            raise RefusedError("a subscriber may only subscribe")
        topic = body[1:]
        if body[0] != _SUBSCRIBE:
            if topic in self._topics:
                self._topics.give_back(topic)
                _check(self.line.unsubscribe(topic))
        elif topic not in self._topics:
            if len(self._topics) >= MAX_TOPICS:
                raise RefusedError(f"more than {MAX_TOPICS} topics")
            self._topics.take(topic)
            _check(self.line.subscribe(topic))

    def step(self, now_ns: int) -> None:  # noqa: ARG002 - as the protocol
        self.line.step()

    def close(self) -> None:
        self._topics.close()
        self.line.close()


class TransmitUpstream:
    """The socket that takes a client's transmit requests."""

    probe: Parts = (encode_reply(0, Status.OK, 0, 0),)

    def __init__(self, lines: Lines, endpoint: IpcAddress) -> None:
        """:raises CanInitializationError: no descriptors are left."""
        self.line = lines.requester(endpoint)
        self.receive: Receive = self.line.receive

    def forward(self, body: bytes) -> None:
        _check(self.line.send(body))

    def step(self, now_ns: int) -> None:  # noqa: ARG002 - as the protocol
        self.line.step()

    def close(self) -> None:
        self.line.close()


class ControlUpstream:
    """A control socket: of the broker, the scheduler or a channel.

    It has the same identity there after the client, or the gateway, has connected again, because
    leases and tasks belong to it.
    """

    probe: Parts = (control.NOTHING,)

    def __init__(self, lines: Lines, endpoint: IpcAddress, peer: bytes) -> None:
        """:raises CanInitializationError: no descriptors are left."""
        self.line = lines.requester(endpoint, hashlib.sha256(peer).hexdigest()[:32])
        self._queued: deque[tuple[int, bytes]] = deque()
        self._asked: int | None = None  # number of the request for the past that is under way
        self._until_ns = 0

    def forward(self, body: bytes) -> None:
        try:
            request = control.decode_request(body)
        except WireError:  # the process that it is for says what is wrong
            _check(self.line.send(body))
            return
        if request.method not in _PAST:
            _check(self.line.send(body))
        elif len(self._queued) >= MAX_QUEUED:
            raise RefusedError("too many requests for frames of the past at a time")
        else:
            self._queued.append((request.id, body))
            if self._asked is None:
                self._ask(clock.monotonic_ns())

    def receive(self) -> Parts | None:
        while (parts := self.line.receive()) is not None:
            body = parts[-1]
            if body == control.NOTHING:  # the process looks whether we are there
                continue
            if self._asked is not None and _number(body) == self._asked:
                self._ask(clock.monotonic_ns())
            return parts
        return None

    def step(self, now_ns: int) -> None:
        """Passes on the next request if the last one is not answered: the process was replaced."""
        self.line.step()
        if self._asked is not None and now_ns >= self._until_ns:
            self._ask(now_ns)

    def close(self) -> None:
        self.line.close()

    def _ask(self, now_ns: int) -> None:
        self._asked = None
        if self._queued:
            self._asked, body = self._queued.popleft()
            self._until_ns = now_ns + _ANSWER_NS
            _check(self.line.send(body))


def open_upstream(
    lines: Lines, serves: Serves, endpoint: IpcAddress, peer: bytes, share: Share
) -> Upstream:
    """The socket at ``endpoint``, which serves this.

    :param peer: identifies the client's socket.
    :param share: its user's, of the channel's room.
    :raises CanInitializationError: no descriptors are left.
    """
    match serves:
        case Serves.STREAM:
            return StreamUpstream(lines, endpoint, share)
        case Serves.TRANSMIT:
            return TransmitUpstream(lines, endpoint)
        case _:
            return ControlUpstream(lines, endpoint, peer)


def _number(body: bytes) -> int | None:
    try:
        return control.decode_reply(body).id
    except (WireError, *DECODE_ERRORS):
        return None


def _check(is_sent: bool) -> None:
    """:raises RefusedError: it is not."""
    if not is_sent:
        raise RefusedError("too many requests are not read")
