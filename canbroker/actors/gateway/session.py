"""One socket of a remote client, and the socket of the broker's side that it stands for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from canbroker.actors.gateway.methods import User
from canbroker.actors.gateway.policy import RemoteSocket
from canbroker.actors.gateway.upstream import Parts, Upstream
from canbroker.system import clock
from canbroker.transport.front import Sent
from canbroker.transport.zap import Peer

#: A client's socket that is not connected for this long is gone. Connections that are cut, or too
#: full to show that they live, come back sooner.
GRACE_NS: Final = clock.SECOND

#: How often a message that had no room is tried again.
RETRY_NS: Final = 10 * clock.MILLISECOND

#: Refused messages of a session within a second. A program that ignores all errors sends fewer.
_MAX_REFUSED: Final = 1_000

#: The descriptor of a connection that has not sent anything yet.
UNKNOWN: Final = -1

#: Messages that one session may send before the others have their turn.
_AT_ONCE: Final = 64

_QUEUED: Final = Sent.QUEUED


class Session:
    """Relays to one client's socket, and waits for it while it is full or away. One thread.

    ``stalled``: it has a message that could not be sent; nothing is read from upstream meanwhile,
    so the channel drops for this client alone, and the client asks for what it has missed.
    """

    def __init__(
        self, secret: bytes, socket: RemoteSocket, sender: str, user: User, upstream: Upstream
    ) -> None:
        """
        :param secret: the routing id of the client's socket.
        :param socket: the socket that it is for.
        :param sender: the peer that has sent the last message, as the text of a :class:`Peer`.
        :param user: that peer's user, with its rights.
        """
        self.secret = secret
        self.socket = socket
        self.sender = sender
        self.user = user
        self.connection = UNKNOWN  # descriptor
        self.upstream = upstream
        self._waiting: Parts | None = None
        self._gone_ns: int | None = None
        self._refused = 0
        self._refused_since_ns = 0

    def __repr__(self) -> str:
        return f"<Session {self.socket} of {self.name}>"  # without the secret

    @property
    def name(self) -> str:
        """The user's name."""
        return self.user.grant.name

    @property
    def peer(self) -> Peer:
        """The peer that has sent the last message."""
        return Peer.parse(self.sender)

    @property
    def stalled(self) -> bool:
        return self._waiting is not None

    def relay(self, send: Callable[[bytes, Parts], Sent], now_ns: int) -> bool:
        """Sends messages that have arrived from upstream, until it is stalled.

        :param send: as of :class:`Front`.
        :returns: whether it is not.
        """
        receive = self.upstream.receive
        for _ in range(_AT_ONCE):
            parts = receive()
            if parts is None:
                return True
            if not self._send(parts, send, now_ns):
                return False
        self.upstream.line.again()
        return True

    def is_flooding(self, now_ns: int) -> bool:
        """Counts a refused message; whether there were too many of late."""
        if now_ns - self._refused_since_ns > clock.SECOND:
            self._refused, self._refused_since_ns = 0, now_ns
        self._refused += 1
        return self._refused > _MAX_REFUSED

    def answer(self, parts: Parts, send: Callable[[bytes, Parts], Sent], now_ns: int) -> bool:
        """Sends an answer of the gateway's own; returns whether there was room for it."""
        if self._waiting is not None:
            return False
        self._send(parts, send, now_ns)
        return True

    def look(self, send: Callable[[bytes, Parts], Sent], now_ns: int) -> None:
        """Finds out whether the client's socket is connected, if nothing else does: a connection
        has ended, which may be this one's."""
        self.connection = UNKNOWN  # until the next message, if it has another one now
        if self._waiting is None:
            self._send(self.upstream.probe, send, now_ns)

    def retry(self, send: Callable[[bytes, Parts], Sent], now_ns: int) -> None:
        """Tries the message again that could not be sent."""
        if self._waiting is not None:
            waiting, self._waiting = self._waiting, None
            self._send(waiting, send, now_ns)

    def is_gone(self, now_ns: int) -> bool:
        """Whether the client's socket has been away for too long."""
        return self._gone_ns is not None and now_ns - self._gone_ns > GRACE_NS

    def replace(self, upstream: Upstream) -> None:
        """Goes on with another socket upstream."""
        self.upstream.close()
        self.upstream = upstream
        self._waiting = None

    def close(self) -> None:
        self.upstream.close()

    def _send(self, parts: Parts, send: Callable[[bytes, Parts], Sent], now_ns: int) -> bool:
        sent = send(self.secret, parts)
        if sent is _QUEUED:
            self._gone_ns = None
            return True
        self._waiting = parts
        if sent is Sent.FULL:
            self._gone_ns = None
        elif self._gone_ns is None:
            self._gone_ns = now_ns
        return False
