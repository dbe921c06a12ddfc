"""The subscriber's end of a stream."""

from __future__ import annotations

import operator

import zmq

from canbroker.transport.address import Address, IpcAddress, TcpAddress
from canbroker.transport.sockets import STREAM_HIGH_WATER, Context, Messages, Socket, readable
from canbroker.transport.waiter import Descriptor, Waiter


class StreamLink:
    """A SUB socket. One thread at a time. Nothing here blocks except :meth:`wait`."""

    _waits: tuple[tuple[Descriptor, ...], Waiter] | None = None  # for these others
    _is_only_socket = False  # of those that are waited for

    def __init__(
        self, context: Context, endpoint: IpcAddress, unread: int = STREAM_HIGH_WATER
    ) -> None:
        """``unread``: as of :meth:`Context.subscriber`."""
        self._use(context.subscriber(endpoint, unread))

    def subscribe(self, topic: bytes) -> None:
        self._messages.is_empty = False
        self.socket.subscribe(topic)

    def unsubscribe(self, topic: bytes) -> None:
        self._messages.is_empty = False
        self.socket.unsubscribe(topic)

    def receive(self) -> tuple[bytes, bytes] | None:
        """Topic and body of the next message, if one has arrived."""
        return self._messages.next()

    def readable(self) -> bool:
        """Whether a message has arrived."""
        self._messages.is_empty = False
        return readable(self.socket)

    def wait(self, timeout_ns: int | None, *others: Descriptor) -> bool:
        """Waits until a message may have arrived or one of ``others`` is readable.

        :returns: whether one of these is so; if not, ``timeout_ns`` is over.
        """
        if self._waits is None or not _same(self._waits[0], others):
            waiter = Waiter()
            for source in (self.socket, *others):
                waiter.add(source)
            self._waits = others, waiter
            self._is_only_socket = not any(isinstance(other, zmq.Socket) for other in others)
        is_seen = self._messages.is_empty and self._is_only_socket
        ready = self._waits[1].wait(timeout_ns, is_seen=is_seen)
        self._messages.expected = self.socket in ready
        return bool(ready)

    def problem(self) -> str | None:
        """Why there is no connection, as far as is known; of a local one nothing is known."""
        return None

    def is_refused(self) -> bool:
        """Whether there will be no connection, because the other end does not want ours."""
        return False

    def close(self) -> None:
        self.socket.close()

    def _use(self, socket: Socket) -> None:
        self.socket: Socket = socket
        self._messages = Messages(self.socket)


def open_stream(context: Context, endpoint: Address, unread: int = STREAM_HIGH_WATER) -> StreamLink:
    """The stream that is published at ``endpoint``, wherever that is.

    :raises CanInitializationError, CanOperationError: cannot open a socket.
    """
    if isinstance(endpoint, TcpAddress):
        from canbroker.transport.remote_links import (  # noqa: PLC0415 - not loaded for local ones
            RemoteStreamLink,
        )

        return RemoteStreamLink(context, endpoint, unread)
    return StreamLink(context, endpoint, unread)


def _same(one: tuple[Descriptor, ...], other: tuple[Descriptor, ...]) -> bool:
    """Whether they are the same objects: sockets are equal when one has the other's address."""
    return len(one) == len(other) and all(map(operator.is_, one, other))
