"""The XPUB where sockets are portable: libzmq's, as it encrypts these connections."""

from __future__ import annotations

from typing import Final

import zmq

from canbroker.system.throttle import Throttle
from canbroker.transport.address import IpcAddress
from canbroker.transport.loopback_socket import LoopbackSocket
from canbroker.transport.sockets import Context, send_two
from canbroker.transport.subscriptions import Subscription
from canbroker.transport.waiter import SharedWaiter

_SUBSCRIBE: Final = 1


class LoopbackXpub(LoopbackSocket):
    """A :class:`~canbroker.transport.xpub.Xpub`. Nobody is disconnected, as peers are not known
    here."""

    def __init__(self, context: Context, endpoint: IpcAddress, refused: Throttle) -> None:
        """``refused``: the account of what is rejected.

        :raises CanInitializationError: cannot listen on ``endpoint``.
        """
        super().__init__(context.publisher(endpoint), endpoint)
        self._refused = refused

    def events(self, at_most: int) -> list[Subscription]:
        events: list[Subscription] = []
        for _ in range(at_most):
            try:
                body = self.socket.recv(zmq.NOBLOCK)
            except zmq.Again:
                break
            if body and body[0] <= _SUBSCRIBE:
                events.append(Subscription(body[1:], body[0] == _SUBSCRIBE, None))
                continue
            self._refused.note("message to the stream refused", "a subscriber may only subscribe")
        return events

    def is_ended(self, subscription: Subscription) -> bool:
        del subscription
        return False

    def refuse(self, subscription: Subscription) -> None:
        """It is counted by who refuses it."""

    def publish(self, topic: bytes, body: bytes) -> None:
        send_two(self.socket, topic, body)

    def look(self, waiter: SharedWaiter) -> bool:
        return waiter.look(self.socket)
