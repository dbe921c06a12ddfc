"""The XPUB where sockets are portable: libzmq's, as it encrypts these connections."""

from __future__ import annotations

from typing import Final

import zmq

from canbroker.system.throttle import Throttle
from canbroker.transport.address import IpcAddress
from canbroker.transport.loopback_listening import LoopbackListening
from canbroker.transport.sockets import Context, Socket, readable, send_two
from canbroker.transport.subscriptions import Subscription
from canbroker.transport.waiter import SharedWaiter, Waiter

_SUBSCRIBE: Final = 1


class LoopbackXpub:
    """A :class:`~canbroker.transport.xpub.Xpub`. Nobody is disconnected, as peers are not known
    here."""

    def __init__(self, context: Context, endpoint: IpcAddress, refused: Throttle) -> None:
        """``refused``: the account of what is rejected.

        :raises CanInitializationError: cannot listen on ``endpoint``.
        """
        self.socket: Socket = context.publisher(endpoint)
        self.listening = LoopbackListening(self.socket, endpoint)
        self._refused = refused

    def watch(self, waiter: Waiter) -> None:
        waiter.add(self.socket)
        waiter.add(self.listening.monitor)

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

    @property
    def has_more(self) -> bool:
        return readable(self.socket)

    def is_ended(self, subscription: Subscription) -> bool:
        del subscription
        return False

    def refuse(self, subscription: Subscription) -> None:
        """It is counted by who refuses it."""

    def publish(self, topic: bytes, body: bytes) -> None:
        send_two(self.socket, topic, body)

    def look(self, waiter: SharedWaiter) -> bool:
        return waiter.look(self.socket)

    def close(self) -> None:
        self.listening.close()
        self.socket.close()
