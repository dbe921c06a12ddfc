"""ZeroMQ sockets with every option that matters set in one table, and waiting for several."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias, cast

import zmq
import zmq.backend

from canbroker.errors import CanError, CanInitializationError, CanOperationError
from canbroker.system import clock, handles
from canbroker.system.descriptors import share
from canbroker.system.portable import PORTABLE
from canbroker.transport.address import Address, IpcAddress, TcpAddress
from canbroker.transport.shared import QuietSocket, shared
from canbroker.wire import MAX_MESSAGE_BYTES
from canbroker.wire.topics import MAX_TOPIC_BYTES

if TYPE_CHECKING:
    from canbroker.model.key import SecretKey

Socket: TypeAlias = "zmq.Socket[bytes]"

#: The most messages queued per connection. For a subscriber these are batches: how far a stalled
#: client may fall behind before the publisher drops its messages. This bounds its memory.
STREAM_HIGH_WATER: Final = 2_000
REQUEST_HIGH_WATER: Final = 8_192

#: Subscriptions of one connection that libzmq reads at once. It reads until there are none and
#: queues them: with many under way it did nothing else for a second. Those that a client repeats
#: after a reconnect have to arrive together.
_SUBSCRIPTION_HIGH_WATER: Final = 8

#: A topic and what surrounds it.
MAX_SUBSCRIPTION_BYTES: Final = MAX_TOPIC_BYTES + 64

#: A plain integer, as arithmetic with enumerations costs a microsecond.
_POLLIN: Final = int(zmq.POLLIN)

_SNDMORE: Final = int(zmq.SNDMORE)
_NOBLOCK: Final = int(zmq.NOBLOCK)

_NOT_ASCII: Final = b"\x80"

#: What :meth:`zmq.Socket.send` calls, after it has looked at what other kinds of sockets need.
_send: Final = zmq.backend.Socket.send

#: Connections that wait to be accepted by libzmq.
_BACKLOG: Final = 100

_LINGER_MS: Final = 200

_RECONNECT_MS: Final = 10
_RECONNECT_MAX_MS: Final = 100


#: How often to look whether the other ends of sockets listen elsewhere, where they may.
FOLLOW_NS: Final = 100 * clock.MILLISECOND


def follow(socket: Socket) -> None:
    """Connects a socket anew if its other end listens elsewhere by now. Looks every
    :data:`FOLLOW_NS`. Call it on the thread that uses the socket, where sockets are portable."""
    if isinstance(socket, QuietSocket) and socket.reached is not None:
        socket.reached.follow(socket)


def readable(socket: Socket) -> bool:
    """Whether a message waits in ``socket``; cheaper than an exception when none does."""
    if PORTABLE:  # not every socket is waited for
        follow(socket)
    return has_message(socket)


def has_message(socket: Socket) -> bool:
    """As :func:`readable`, of a socket that is waited for."""
    return bool(cast(int, socket.getsockopt(zmq.EVENTS)) & _POLLIN)


def send_two(socket: Socket, head: bytes, body: bytes) -> None:
    """Sends a message of two parts; a fifth of the time of :meth:`zmq.Socket.send_multipart`."""
    _send(socket, head, _SNDMORE)
    _send(socket, body)


def send_at_once(socket: Socket, body: bytes) -> bool:
    """Sends a message of one part, if there is room for it; whether there was."""
    try:
        _send(socket, body, _NOBLOCK)
    except zmq.Again:
        return False
    return True


class Messages:
    """Reads messages of a topic and a body, and stays in step when it is interrupted.

    A signal handler may raise (Ctrl-C, a test's time limit) between the two parts. Topics are
    ASCII, and bodies are arrays of MessagePack, which do not begin with ASCII. Where that leaves
    open what a part is, the socket is asked: the last part of a message is a body.
    """

    def __init__(self, socket: Socket) -> None:
        self._socket = socket
        self._topic: bytes | None = None
        self.expected = False  # a Waiter has reported a message, which saves looking for it
        self.is_empty = False  # there was none, and the socket was not used since

    def next(self) -> tuple[bytes, bytes] | None:
        """The next message that has arrived, if there is one."""
        self.is_empty = False
        while self.expected or self._topic is not None or readable(self._socket):
            self.expected = False
            try:
                part = self._socket.recv(_NOBLOCK)
            except zmq.Again:  # nothing was there, or the exception that interrupted us has lost it
                self._topic = None
                break
            if self._is_topic(part):
                self._topic = part
            elif self._topic is not None:
                topic, self._topic = self._topic, None
                return topic, part
        self.is_empty = True
        return None

    def _is_topic(self, part: bytes) -> bool:
        if part[:1] >= _NOT_ASCII:
            return False
        return self._topic is None or bool(self._socket.getsockopt(zmq.RCVMORE))


class Context:
    """The ZeroMQ context of a process that listens. Close all of its sockets before it.

    ``kept_out`` belongs to the listening sockets. ``identity`` is our key, for brokers that are
    reached by TCP.
    """

    _refusal: type[CanError] = CanInitializationError
    identity: SecretKey | None = None

    def __init__(self, sockets: int | None = None) -> None:
        """``sockets``: the most that it can have; ``None``: libzmq's default, 1,023."""
        self._context: zmq.Context[Socket] = zmq.Context(io_threads=1)
        if sockets is not None:
            self._context.set(zmq.MAX_SOCKETS, sockets)
        from canbroker.transport.kept_out import KeptOut  # noqa: PLC0415 - clients do not listen

        self.kept_out = KeptOut()
        if PORTABLE:
            from canbroker.transport.loopback import Admission  # noqa: PLC0415 - not loaded natively

            self._admission = Admission(self._context)

    def publisher(self, endpoint: IpcAddress) -> Socket:
        socket = self._socket(zmq.XPUB, STREAM_HIGH_WATER)
        socket.setsockopt(zmq.RCVHWM, _SUBSCRIPTION_HIGH_WATER)
        socket.setsockopt(zmq.XPUB_VERBOSE, 1)  # each new subscriber is sent the present state
        # libzmq stores subscriptions, in a node per byte, before we see them.
        socket.setsockopt(zmq.MAXMSGSIZE, MAX_SUBSCRIPTION_BYTES)
        return self._bound(socket, endpoint)

    def subscriber(self, endpoint: IpcAddress, unread: int = STREAM_HIGH_WATER) -> Socket:
        """``unread``: the most messages that are queued. A message longer than 33 bytes keeps
        8 KiB in this context: libzmq reads that much at a time, and does not copy."""
        socket = self._socket(zmq.SUB, unread)
        # Only subscriptions can be unsent. Lingering for them delayed the end of every broker by
        # 200 ms, as its channels are gone by then.
        socket.setsockopt(zmq.LINGER, 0)
        return self.connected(socket, endpoint)

    def remote_subscriber(self, endpoint: TcpAddress, unread: int = STREAM_HIGH_WATER) -> Socket:
        """A socket whose messages subscribe and unsubscribe: a byte 1 or 0, and the topic. It is
        not connected yet. ``unread``: as of :meth:`subscriber`."""
        return self._unconnected(endpoint, self._socket(zmq.DEALER, unread))

    def remote_requester(self, endpoint: TcpAddress) -> Socket:
        """As :meth:`requester`, not connected yet."""
        return self._unconnected(endpoint, self._socket(zmq.DEALER, REQUEST_HIGH_WATER))

    def replier(self, endpoint: IpcAddress, unread: int = REQUEST_HIGH_WATER) -> Socket:
        """``unread``: the most replies that are queued for a peer that does not read them."""
        socket = self._socket(zmq.ROUTER, REQUEST_HIGH_WATER)
        socket.setsockopt(zmq.SNDHWM, unread)
        socket.setsockopt(zmq.ROUTER_HANDOVER, 1)  # a peer that reconnects keeps its identity
        return self._bound(socket, endpoint)

    def requester(self, endpoint: Address, name: str = "") -> Socket:
        """``name``: its identity, by which the replier can reach it unasked, also after it has
        connected again. A gateway gives each socket such an identity of its own."""
        if isinstance(endpoint, TcpAddress):
            return self.connected(self.remote_requester(endpoint), endpoint)
        socket = self._socket(zmq.DEALER, REQUEST_HIGH_WATER)
        if name:
            socket.setsockopt(zmq.ROUTING_ID, name.encode())
        return self.connected(socket, endpoint)

    def close(self) -> None:
        if PORTABLE:
            self._admission.close()
        self._context.term()

    def _open(self, kind: int) -> QuietSocket:
        return cast("QuietSocket", self._context.socket(kind, socket_class=QuietSocket))

    def _socket(self, kind: int, high_water: int) -> QuietSocket:
        try:
            socket = self._open(kind)
        except zmq.ZMQError as error:  # for instance, no descriptors are left
            what = handles.explained(OSError(error.errno, str(error)))
            raise self._refusal(f"cannot make a socket: {what}") from error
        socket.setsockopt(zmq.SNDHWM, high_water)
        socket.setsockopt(zmq.RCVHWM, high_water)
        socket.setsockopt(zmq.LINGER, _LINGER_MS)
        socket.setsockopt(zmq.MAXMSGSIZE, MAX_MESSAGE_BYTES)
        socket.setsockopt(zmq.RECONNECT_IVL, _RECONNECT_MS)
        socket.setsockopt(zmq.RECONNECT_IVL_MAX, _RECONNECT_MAX_MS)
        # Without heartbeats of ZeroMQ: the kernel tells at once when the other end of an ipc
        # connection is gone, and a peer whose queue is full does not answer heartbeats. A client
        # that does not receive would lose its presence, and its tasks with it.
        return socket

    def _unconnected(self, endpoint: TcpAddress, socket: QuietSocket) -> Socket:
        from canbroker.transport import curve  # noqa: PLC0415 - local programs do not need it

        socket.setsockopt(zmq.LINGER, 0)
        try:
            curve.reach(socket, endpoint, self.identity)
        except CanInitializationError:
            socket.close()
            raise
        return socket

    def _bound(self, socket: QuietSocket, endpoint: IpcAddress) -> Socket:
        # Connections in the backlog are accepted even while the socket is paused.
        socket.setsockopt(zmq.BACKLOG, min(_BACKLOG, share() // 4))
        try:
            if PORTABLE:
                self._bind_portable(socket, endpoint)
            else:
                socket.bind(str(endpoint))
        except (zmq.ZMQError, OSError, CanError) as error:
            socket.close()
            raise CanInitializationError(f"cannot listen on {endpoint}: {error}") from error
        return socket

    def _bind_portable(self, socket: QuietSocket, endpoint: IpcAddress) -> None:
        from canbroker.transport import loopback  # noqa: PLC0415 - as above

        key = loopback.FabricKey.make(endpoint.path.parent)
        self._admission.open(key)
        loopback.bind(socket, endpoint.path, key)

    def connected(self, socket: Socket, endpoint: Address) -> Socket:
        """``socket``, which connects from now on. It is closed if it cannot.

        :raises CanInitializationError: it cannot.
        """
        where = endpoint.endpoint if isinstance(endpoint, TcpAddress) else str(endpoint)
        try:
            if PORTABLE and isinstance(endpoint, IpcAddress):
                from canbroker.transport import loopback  # noqa: PLC0415 - as above

                loopback.connect(cast("QuietSocket", socket), endpoint.path)
            else:
                socket.connect(where)
        except zmq.ZMQError as error:
            socket.close()
            raise CanInitializationError(f"cannot connect to {where}: {error}") from error
        return socket


class SharedContext(Context):
    """The sockets of one client, in the context that all clients of this process share.

    Any thread may close it, when no other thread uses its sockets.
    """

    _refusal = CanOperationError

    def __init__(self) -> None:
        """Opens nothing."""

    def close(self) -> None:
        """Closes its open sockets. Idempotent.

        If a signal handler interrupts it with an exception, call it again to close the others.
        """
        shared.leave(self)

    def _open(self, kind: int) -> QuietSocket:
        return shared.open(self, kind)

    def connected(self, socket: Socket, endpoint: Address) -> Socket:
        if isinstance(endpoint, IpcAddress) and not PORTABLE:  # else when it has connected
            shared.endpoints.add(str(endpoint.path))
        return super().connected(socket, endpoint)
