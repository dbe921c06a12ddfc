"""The two ends of connections for requests: a DEALER's, and the ROUTER's that serves many."""

from __future__ import annotations

from typing import Final

import zmq

from canbroker.system import clock
from canbroker.system.throttle import Throttle
from canbroker.transport.address import Address
from canbroker.transport.guard import Guard
from canbroker.transport.listening import Listening
from canbroker.transport.sockets import REQUEST_HIGH_WATER, Context, Socket, readable
from canbroker.transport.waiter import Descriptor, Waiter

#: Where garbage is sent to is not looked at for so long: each costs an exception, its text and a
#: reply, and nobody who sends requests shall wait for that.
_REST_NS: Final = clock.MILLISECOND // 5

#: Garbage of a connection, within a second, that is answered.
MAX_REFUSED: Final = 64


class Link:
    """The client's end of the transmit path: a DEALER that sends requests and collects replies.

    One thread at a time. Nothing here blocks but :meth:`wait`.
    """

    def __init__(self, context: Context, endpoint: Address, name: str = "") -> None:
        """``name``: as of :meth:`Context.requester`."""
        self.socket: Socket = context.requester(endpoint, name)
        # What was not delivered when the client ends shall not be delivered afterwards.
        self.socket.setsockopt(zmq.LINGER, 0)
        self._waits: tuple[Descriptor | None, Waiter] | None = None  # for this one

    def send(self, request: bytes) -> bool:
        """Queues a request; ``False`` if the queue is full."""
        try:
            self.socket.send(request, zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True

    def receive(self) -> bytes | None:
        """A reply, if one has arrived."""
        return self.socket.recv(zmq.NOBLOCK) if readable(self.socket) else None

    def wait(self, wake: Descriptor | None, timeout_ns: int | None) -> None:
        """Waits until a reply may have arrived, ``wake`` is set, or ``timeout_ns`` is over."""
        if self._waits is None or self._waits[0] is not wake:
            waiter = Waiter()
            waiter.add(self.socket)
            if wake is not None:
                waiter.add(wake)
            self._waits = wake, waiter
        self._waits[1].wait(timeout_ns)

    def close(self) -> None:
        self.socket.close()


class KeepingLink(Link):
    """A link that loses no reply when a signal handler raises: each is kept until it is `done`.

    Python runs handlers in the main thread between any two steps, also at the end of ``recv``,
    when libzmq has given the message away and nobody has it yet. So libzmq writes it into memory
    of ours, where it is found again.
    """

    def __init__(self, context: Context, endpoint: Address, size: int) -> None:
        """``size``: of the largest reply; what is longer arrives truncated."""
        super().__init__(context, endpoint)
        self._kept = bytearray(size)  # begins with 0 if there is none, as no array of MessagePack
        self._length: int | None = None

    def receive(self) -> bytes | None:
        """The reply that is kept, or the next one, if it has arrived."""
        if not self._kept[0]:
            if not readable(self.socket):
                return None
            self._length = None
            self._length = self.socket.recv_into(self._kept, flags=zmq.NOBLOCK)
        return bytes(self._kept[: self._measured() if self._length is None else self._length])

    def done(self) -> None:
        """The reply has been dealt with."""
        self._kept[0] = 0

    def _measured(self) -> int:
        """The length of what is kept; what ends it is no longer there."""
        import msgpack  # noqa: PLC0415 - few programs get here, and all would wait for it at start

        unpacker = msgpack.Unpacker()
        unpacker.feed(self._kept)
        try:
            unpacker.skip()
        except (ValueError, msgpack.OutOfData):  # no reply of this protocol
            return len(self._kept)
        return int(unpacker.tell())


class Router:
    """A ROUTER that hangs up on who floods it with garbage."""

    def __init__(
        self,
        context: Context,
        endpoint: Address,
        refused: Throttle,
        unread: int = REQUEST_HIGH_WATER,
    ) -> None:
        self.socket: Socket = context.replier(endpoint, unread)
        self.listening = Listening(self.socket, endpoint)
        self._guard = Guard(context.gate, MAX_REFUSED, refused)

    def close(self) -> None:
        self.listening.close()
        self.socket.close()

    def _refuse(self, message: zmq.Frame, size: int, waiter: Waiter) -> None:
        """Counts garbage, and has the socket rest for it."""
        waiter.rest(self.socket, _REST_NS)
        self._guard.refuse(message, size)


class Intake(Router):
    """The actor's end of the transmit path: a ROUTER. Made, used and closed by one thread."""

    def __init__(self, context: Context, endpoint: Address, refused: Throttle) -> None:
        """``refused``: the account of what is refused."""
        super().__init__(context, endpoint, refused)
        self._last: zmq.Frame | None = None  # the last part
        self._others = 0  # bytes of the parts before it

    def receive(self) -> tuple[bytes, bytes | None] | None:
        """The next request and the connection it came from, if one has arrived.

        Without the request, if that connection was ended for what it sent.
        """
        try:
            identity = self.socket.recv(zmq.NOBLOCK)
        except zmq.Again:
            return None
        # Parts of a message arrive together. A part that is not copied knows whether it is the
        # last one; asking the socket takes as long as all the rest.
        part = self.socket.recv(zmq.NOBLOCK, copy=False)
        body = b"" if part.more else part.bytes  # no request has several
        self._others = 0
        while part.more:
            self._others += len(part)
            part = self.socket.recv(zmq.NOBLOCK, copy=False)
        self._last = part
        return identity, None if self._guard.has_ended(part) else body

    def refuse(self, identity: bytes, reply: bytes, waiter: Waiter) -> None:
        """Answers what was received last, which is no request; ``waiter`` has told of it."""
        self.reply(identity, reply)
        if self._last is not None:
            self._refuse(self._last, self._others + len(self._last), waiter)

    def reply(self, identity: bytes, reply: bytes) -> None:
        """Answers; a connection that is gone is nobody's loss."""
        self.socket.send_multipart([identity, reply])
