"""Connections for requests, the end that serves many clients: a ROUTER."""

from __future__ import annotations

from typing import Final

import zmq

from canbroker.system import clock
from canbroker.system.throttle import Throttle
from canbroker.transport.address import IpcAddress
from canbroker.transport.guard import Guard
from canbroker.transport.listening import listening
from canbroker.transport.sockets import REQUEST_HIGH_WATER, Context, Socket, send_two
from canbroker.transport.waiter import Waiter

#: How long a socket is not read after a malformed request. Each costs an exception, its text and a
#: reply, and other peers should not wait for that.
_REST_NS: Final = clock.MILLISECOND // 5

#: Malformed requests of a connection that are answered within a second.
MAX_REFUSED: Final = 64


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
    """The ROUTER that receives transmit requests. One thread at a time."""

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
        send_two(self.socket, identity, reply)
