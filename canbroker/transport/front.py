"""The listening end of a gateway: one TCP port for all sockets of all remote clients."""

from __future__ import annotations

import enum
import socket as sockets
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from typing import Final, NamedTuple

import zmq
from zmq.backend import zmq_poll

from canbroker.errors import CanInitializationError, CanOperationError
from canbroker.model.key import SecretKey
from canbroker.system import clock
from canbroker.system.descriptors import duplicated_socket, share
from canbroker.transport import curve
from canbroker.transport.address import TcpAddress
from canbroker.transport.monitor import close_monitor, events_of, open_monitor
from canbroker.transport.shared import endpoint_of
from canbroker.transport.sockets import Socket
from canbroker.transport.zap import Admit, Authenticator
from canbroker.wire import MAX_MESSAGE_BYTES

#: The most messages that are queued for one socket of a client. Messages beyond that stay with
#: the channel, which drops for this client alone.
_HIGH_WATER: Final = 1_000

#: The most messages of one socket of a client that are queued; a message may have a MiB.
_UNREAD: Final = 128

#: At the end, the time for messages to clients that libzmq has not written yet: one of them is the
#: answer to whoever has stopped the broker.
_LINGER_MS: Final = 200

#: Connections that wait to be accepted by libzmq.
_BACKLOG: Final = 100

#: Connections that may be in their handshake. libzmq ends it after 10 s, and does not tell which
#: have got through it: those that have sent a message, or are older.
MAX_HANDSHAKES: Final = 512

_HANDSHAKE_NS: Final = 10 * clock.SECOND

_EVENTS: Final = zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED

#: Plain integers, as arithmetic with enumerations costs a microsecond.
_NOW: Final = int(zmq.NOBLOCK)
_MORE_NOW: Final = int(zmq.NOBLOCK | zmq.SNDMORE)
_POLLIN: Final = int(zmq.POLLIN)
_SRCFD: Final = int(zmq.SRCFD)


class Arrival(NamedTuple):
    """A message from a client's socket.

    ``peer`` is the routing id of that socket, a secret of the client. ``user`` is as of
    :class:`Authenticator`. ``connection`` is the descriptor of the connection, which may be closed
    by now. ``body`` is ``None`` if the message has several parts.
    """

    peer: bytes
    user: str
    connection: int
    body: bytes | None


class Sent(enum.Enum):
    """The outcome of sending a message to a client's socket."""

    QUEUED = enum.auto()
    FULL = enum.auto()  # not queued: there is no room
    GONE = enum.auto()  # not queued: the socket is not connected


#: Looking it up takes as long as looking whether a message has arrived.
_QUEUED: Final = Sent.QUEUED


class Front:
    """A ROUTER that all remote clients connect to. One thread.

    It has a context of its own, whose thread encrypts. Connections beyond the limits are ended as
    soon as they are accepted: libzmq would abort the process if it had no descriptor for one.
    """

    def __init__(self, address: TcpAddress, secret: SecretKey | None, admit: Admit) -> None:
        """
        :param secret: the broker's key; ``None`` if ``address`` is not encrypted.
        :param admit: says which user a key belongs to; called on a thread of its own.
        :raises CanInitializationError: cannot listen there.
        """
        self.at_most = share()
        self.turned_away = 0
        self._connections: set[int] = set()  # descriptors
        self._handshakes: dict[int, int] = {}  # descriptor -> until when, monotonic ns
        self._context: zmq.Context[Socket] = zmq.Context(io_threads=1)
        try:
            self._authenticator = Authenticator(self._context, admit)
        except (zmq.ZMQError, CanOperationError) as error:
            self._context.term()
            raise CanInitializationError(f"cannot listen on {address.endpoint}: {error}") from error
        try:
            self.socket, self.monitor = self._listening(address, secret)
        except zmq.ZMQError as error:
            self._end()
            why = "the port is taken" if error.errno == zmq.EADDRINUSE else str(error)
            raise CanInitializationError(f"cannot listen on {address.endpoint}: {why}") from error
        # pyzmq's method for any kind of socket takes as long again as what it calls.
        self._send = super(zmq.Socket, self.socket).send
        self._recv = self.socket.recv
        self._looked_at = [(self.socket, _POLLIN)]
        bound = endpoint_of(self.socket)
        port = int(bound.rpartition(":")[2])
        self.address = TcpAddress(address.host, port, encrypted=address.encrypted)

    def __repr__(self) -> str:
        return f"<Front {self.address} connections={len(self)} of {self.at_most}>"

    def __len__(self) -> int:
        return len(self._connections)

    def receive(self, *, is_reported: bool = False) -> Arrival | None:
        """The next message that has arrived, if there is one.

        :param is_reported: most likely there is: something has happened to the socket.
        """
        # Looking takes three times as long as receiving, and half of asking for the events.
        if not is_reported and not zmq_poll(self._looked_at, 0):
            return None
        try:
            peer = self._recv(_NOW)
        except zmq.Again:
            return None
        part = self._recv(_NOW, copy=False)
        body = None if part.more else part.bytes
        while part.more:
            part = self._recv(_NOW, copy=False)
        connection = part.get(_SRCFD)
        if self._handshakes:
            self._handshakes.pop(connection, None)
        return Arrival(peer, str(part.get("User-Id")), connection, body)

    def send(self, peer: bytes, parts: Sequence[bytes]) -> Sent:
        """Queues a message for a client's socket. Never waits."""
        try:
            self._send(peer, _MORE_NOW)
        except zmq.Again:
            return Sent.FULL
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            return Sent.GONE
        for part in parts[:-1]:
            self._send(part, _MORE_NOW)
        self._send(parts[-1], _NOW)
        return _QUEUED

    def follow(self, now_ns: int) -> list[int]:
        """Counts connections when the monitor is readable; returns those that have ended."""
        ended: list[int] = []
        for event, connection in events_of(self.monitor):
            if event == zmq.EVENT_ACCEPTED:
                self._accepted(connection, now_ns)
            else:
                self._connections.discard(connection)
                self._handshakes.pop(connection, None)
                ended.append(connection)
        return ended

    def hang_up(self, connection: int) -> None:
        """Ends a connection, by its descriptor; libzmq has no call for this."""
        if connection not in self._connections:
            return
        ours = duplicated_socket(connection)
        if ours is None:
            return
        with ours, suppress(OSError):  # the other end is gone
            if ours.family in {sockets.AF_INET, sockets.AF_INET6}:
                ours.shutdown(sockets.SHUT_RDWR)

    def close(self) -> None:
        close_monitor(self.socket, self.monitor)
        self.socket.close()
        self._end()

    def _accepted(self, connection: int, now_ns: int) -> None:
        self._connections.add(connection)
        self._handshakes[connection] = now_ns + _HANDSHAKE_NS
        for other, until_ns in list(self._handshakes.items()):  # the oldest first
            if until_ns <= now_ns:
                del self._handshakes[other]
            elif len(self._handshakes) > MAX_HANDSHAKES:
                # Not the newest: connections that never go on must not keep out those that do.
                del self._handshakes[other]
                self._turn_away(other)
            else:
                break
        if len(self) > self.at_most:
            self._turn_away(connection)

    def _turn_away(self, connection: int) -> None:
        self.turned_away += 1
        self.hang_up(connection)

    def _listening(self, address: TcpAddress, secret: SecretKey | None) -> tuple[Socket, Socket]:
        """The socket, and its monitor.

        :raises zmq.ZMQError: cannot listen there.
        """
        with ExitStack() as on_error:
            socket = self._context.socket(zmq.ROUTER)
            on_error.callback(socket.close)
            curve.keep_alive(socket)
            if secret is not None:
                curve.serve(socket, secret)
            socket.setsockopt(zmq.ZAP_DOMAIN, b"canbroker")  # else nobody is asked
            socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
            socket.setsockopt(zmq.ROUTER_HANDOVER, 1)  # a client's socket connects again
            socket.setsockopt(zmq.SNDHWM, _HIGH_WATER)
            socket.setsockopt(zmq.RCVHWM, _UNREAD)
            socket.setsockopt(zmq.MAXMSGSIZE, MAX_MESSAGE_BYTES)
            socket.setsockopt(zmq.BACKLOG, _BACKLOG)
            socket.setsockopt(zmq.LINGER, _LINGER_MS)
            monitor = open_monitor(socket, _EVENTS)
            on_error.callback(monitor.close, linger=0)
            socket.bind(address.endpoint)
            on_error.pop_all()
        return socket, monitor

    def _end(self) -> None:
        self._authenticator.close()
        self._context.term()
