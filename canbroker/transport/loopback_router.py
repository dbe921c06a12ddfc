"""The ROUTER where sockets are portable: libzmq's, as it encrypts these connections."""

from __future__ import annotations

from collections.abc import Sequence

import zmq

from canbroker.transport.address import IpcAddress
from canbroker.transport.loopback_socket import LoopbackSocket
from canbroker.transport.sockets import Context, send_two
from canbroker.transport.waiter import SharedWaiter
from canbroker.wire import control


class LoopbackRouter(LoopbackSocket):
    """A :class:`~canbroker.transport.routers.Router`. Nobody is disconnected, as peers are not
    known here."""

    def __init__(self, context: Context, endpoint: IpcAddress, unread: int) -> None:
        """``unread``: as of :meth:`Context.replier`.

        :raises CanInitializationError: cannot listen on ``endpoint``.
        """
        super().__init__(context.replier(endpoint, unread), endpoint)
        self._is_used = True  # may have messages, unseen

    def receive(self) -> tuple[bytes, Sequence[bytes]] | None:
        self._is_used = True
        try:
            routing_id = self.socket.recv(zmq.NOBLOCK)
        except zmq.Again:
            return None
        # Parts of a message arrive together. A part that is not copied knows whether it is the
        # last one; asking the socket takes as long as all the rest.
        part = self.socket.recv(zmq.NOBLOCK, copy=False)
        parts = [part.bytes]
        while part.more:
            part = self.socket.recv(zmq.NOBLOCK, copy=False)
            parts.append(part.bytes)
        return routing_id, parts

    def refuse(self) -> None:
        """It is counted by who refuses it."""

    def reply(self, routing_id: bytes, body: bytes) -> None:
        self._is_used = True
        send_two(self.socket, routing_id, body)

    def is_connected(self, routing_id: bytes) -> bool:
        """Sends it a reply to no request, which peers ignore: libzmq reports a missing peer only
        when something is sent to it."""
        self._is_used = True
        self.socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        try:
            self.socket.send_multipart([routing_id, control.NOTHING], zmq.NOBLOCK)
        except zmq.Again:  # connected, but its queue is full
            return True
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            return False
        finally:
            self.socket.setsockopt(zmq.ROUTER_MANDATORY, 0)
        return True

    def look(self, waiter: SharedWaiter) -> bool:
        is_used, self._is_used = self._is_used, False
        return is_used and waiter.look(self.socket)
