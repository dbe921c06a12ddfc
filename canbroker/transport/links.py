"""Connections for requests, a client's end: a DEALER."""

from __future__ import annotations

import errno

import zmq

from canbroker.transport.address import Address, TcpAddress
from canbroker.transport.shared import endpoint_of
from canbroker.transport.sockets import Context, Socket, readable, send_at_once
from canbroker.transport.waiter import Descriptor, Waiter


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
        return send_at_once(self.socket, request)

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
