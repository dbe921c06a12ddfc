"""Connections for requests: the DEALER of a client, and the ROUTER that serves many clients."""

from __future__ import annotations

import errno
from typing import Final

import zmq

from canbroker.system import clock
from canbroker.system.throttle import Throttle
from canbroker.transport.address import Address, IpcAddress, TcpAddress
from canbroker.transport.guard import Guard
from canbroker.transport.listening import listening
from canbroker.transport.shared import endpoint_of
from canbroker.transport.sockets import REQUEST_HIGH_WATER, Context, Socket, readable
from canbroker.transport.waiter import Descriptor, Waiter

#: How long a socket is not read after a malformed request. Each costs an exception, its text and a
#: reply, and other peers should not wait for that.
_REST_NS: Final = clock.MILLISECOND // 5

#: Malformed requests of a connection that are answered within a second.
MAX_REFUSED: Final = 64


class Link:
    """A DEALER that sends requests and collects replies.

    One thread at a time. Only :meth:`wait` blocks.
    """

    def __init__(self, context: Context, endpoint: Address, name: str = "") -> None:
        """``name``: as of :meth:`Context.requester`."""
        self._context = context
        self._endpoint = endpoint
        self._has_disconnected = False
        self.socket: Socket = self._opened(context, endpoint, name)
        # Requests that are not delivered when the client ends must not be delivered later.
        self.socket.setsockopt(zmq.LINGER, 0)
        self._waits: tuple[Descriptor | None, Waiter] | None = None  # for this wake

    def send(self, request: bytes) -> bool:
        """Queues a request; ``False`` if the queue is full."""
        if self._has_disconnected:
            self._context.connected(self.socket, self._endpoint)
            self._has_disconnected = False
        try:
            self.socket.send(request, zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True

    def receive(self) -> bytes | None:
        """A reply, if one has arrived."""
        return self.socket.recv(zmq.NOBLOCK) if readable(self.socket) else None

    def wait(self, wake: Descriptor | None, timeout_ns: int | None) -> None:
        """Waits until a reply may have arrived, ``wake`` is set, or ``timeout_ns`` has passed."""
        if self._waits is None or self._waits[0] is not wake:
            waiter = Waiter()
            waiter.add(self.socket)
            if wake is not None:
                waiter.add(wake)
            self._waits = wake, waiter
        self._waits[1].wait(timeout_ns)

    def forget(self) -> None:
        """Forgets the requests that are still queued: a peer that starts later would get them.

        A signal handler may raise between any two steps. Then the next request connects anew, which
        does nothing if the connection is there.
        """
        self._has_disconnected = True
        try:
            self.socket.disconnect(endpoint_of(self.socket))
        except zmq.ZMQError as error:
            if error.errno not in {errno.ENOENT, errno.EINVAL}:  # it was not connected
                raise

    def close(self) -> None:
        self.socket.close()

    def _opened(self, context: Context, endpoint: Address, name: str) -> Socket:
        return context.requester(endpoint, name)


class KeepingLink(Link):
    """A link that loses no reply when a signal handler raises: each is kept until :meth:`done`.

    Python runs handlers in the main thread between any two steps. One of them is the end of
    ``recv``, when libzmq has given the message away and no variable refers to it yet. So libzmq
    writes replies into a buffer of ours, where they are found again.
    """

    def __init__(self, context: Context, endpoint: Address, size: int) -> None:
        """``size``: bytes of the longest reply; longer ones arrive truncated."""
        super().__init__(context, endpoint)
        self._kept = bytearray(size)  # begins with 0 if empty; an array of MessagePack does not
        self._length: int | None = None

    def receive(self) -> bytes | None:
        """The kept reply, or the next one that has arrived; ``None`` if there is neither."""
        if not self._kept[0]:
            if not readable(self.socket):
                return None
            self._length = None
            self._length = self.socket.recv_into(self._kept, flags=zmq.NOBLOCK)
        return bytes(self._kept[: self._measured() if self._length is None else self._length])

    def done(self) -> None:
        """Forgets the kept reply, which has been handled."""
        self._kept[0] = 0

    @property
    def interruptions(self) -> int:
        """How often the connection was lost, with what was under way; here it never is, unless the
        actor's successor listens elsewhere."""
        reached = getattr(self.socket, "reached", None)
        return 0 if reached is None else reached.moves

    def renew(self) -> None:
        """Forgets requests that are not sent yet, which would be sent when it connects again; here
        they are for an actor that is gone, and its successor refuses them."""

    def _measured(self) -> int:
        """The length of the kept reply, which is followed by remains of longer ones."""
        import msgpack  # noqa: PLC0415 - few programs get here, and all would wait for it at start

        unpacker = msgpack.Unpacker()
        unpacker.feed(self._kept)
        try:
            unpacker.skip()
        except (ValueError, msgpack.OutOfData):  # not a reply of this protocol
            return len(self._kept)
        return int(unpacker.tell())


def open_transmit(context: Context, endpoint: Address, size: int) -> KeepingLink:
    """The link to the transmit socket at ``endpoint``, wherever that is.

    :param size: as of :class:`KeepingLink`.
    :raises CanInitializationError, CanOperationError: cannot open a socket.
    """
    if isinstance(endpoint, TcpAddress):
        from canbroker.transport.remote_links import (  # noqa: PLC0415 - not loaded for local ones
            RemoteKeepingLink,
        )

        return RemoteKeepingLink(context, endpoint, size)
    return KeepingLink(context, endpoint, size)


class Router:
    """A ROUTER that disconnects peers that keep sending rejected messages."""

    def __init__(
        self,
        context: Context,
        endpoint: IpcAddress,
        refused: Throttle,
        unread: int = REQUEST_HIGH_WATER,
    ) -> None:
        self.socket: Socket = context.replier(endpoint, unread)
        self.listening = listening(self.socket, endpoint)
        self._guard = Guard(context.gate, MAX_REFUSED, refused)

    def close(self) -> None:
        self.listening.close()
        self.socket.close()

    def _refuse(self, message: zmq.Frame, size: int, waiter: Waiter) -> None:
        """Counts a rejected message, and stops reading the socket briefly."""
        waiter.rest(self.socket, _REST_NS)
        self._guard.refuse(message, size)


class Intake(Router):
    """The ROUTER that receives transmit requests. Made, used and closed by one thread."""

    def __init__(self, context: Context, endpoint: IpcAddress, refused: Throttle) -> None:
        """``refused``: counts and logs rejected messages."""
        super().__init__(context, endpoint, refused)
        self._last: zmq.Frame | None = None  # the last part
        self._others = 0  # bytes of the parts before it

    def receive(self) -> tuple[bytes, bytes | None] | None:
        """The identity of a peer and its request, if one has arrived.

        The request is ``None`` if its connection was ended for rejected messages.
        """
        try:
            identity = self.socket.recv(zmq.NOBLOCK)
        except zmq.Again:
            return None
        # Parts of a message arrive together. A part that is not copied knows whether it is the
        # last one; asking the socket takes as long as all the rest.
        part = self.socket.recv(zmq.NOBLOCK, copy=False)
        body = b"" if part.more else part.bytes  # a request has one part
        self._others = 0
        while part.more:
            self._others += len(part)
            part = self.socket.recv(zmq.NOBLOCK, copy=False)
        self._last = part
        return identity, None if self._guard.has_ended(part) else body

    def refuse(self, identity: bytes, reply: bytes, waiter: Waiter) -> None:
        """Answers and counts the message received last, which is not a request.

        :param waiter: has reported the socket as readable; it lets the socket rest.
        """
        self.reply(identity, reply)
        if self._last is not None:
            self._refuse(self._last, self._others + len(self._last), waiter)

    def reply(self, identity: bytes, reply: bytes) -> None:
        """Answers a request. The answer is lost if its connection is gone."""
        self.socket.send_multipart([identity, reply])
