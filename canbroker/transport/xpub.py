"""The publishing socket of a channel: sends topics, and reports subscriptions to them."""

from __future__ import annotations

from typing import Final, NamedTuple

import zmq

from canbroker.system.throttle import Throttle
from canbroker.transport.address import IpcAddress
from canbroker.transport.guard import Guard
from canbroker.transport.listening import listening
from canbroker.transport.sockets import Context, Socket, readable, send_two

#: Subscriptions of a connection that may be refused within a second.
MAX_REFUSED: Final = 128

_SUBSCRIBE: Final = 1


class Subscription(NamedTuple):
    """Somebody subscribes to a topic (``begins``), or is the last one to end it."""

    topic: bytes
    begins: bool
    message: zmq.Frame  # that has brought it, to know whose it is


class Xpub:
    """An XPUB that disconnects peers that keep sending rejected messages. One thread at a time."""

    def __init__(self, context: Context, endpoint: IpcAddress, refused: Throttle) -> None:
        """``refused``: the account of what is rejected.

        :raises CanInitializationError: the endpoint cannot be bound.
        """
        self.socket: Socket = context.publisher(endpoint)
        self.listening = listening(self.socket, endpoint)
        self._refused = refused
        self._guard = Guard(context.gate, MAX_REFUSED, refused)

    def receive(self, at_most: int) -> list[Subscription]:
        """The events of ``at_most`` messages that have arrived; other messages are rejected."""
        received: list[Subscription] = []
        for _ in range(at_most):
            try:
                message = self.socket.recv(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                break
            body = message.bytes
            if body and body[0] <= _SUBSCRIBE:
                received.append(Subscription(body[1:], body[0] == _SUBSCRIBE, message))
                continue
            self._refused.note("message to the stream refused", "a subscriber may only subscribe")
            self._guard.refuse(message, len(message))
        return received

    @property
    def has_more(self) -> bool:
        """Whether another message has arrived."""
        return readable(self.socket)

    def is_ended(self, subscription: Subscription) -> bool:
        """Whether its connection was ended meanwhile, for what it had sent before."""
        return self._guard.has_ended(subscription.message)

    def refuse(self, subscription: Subscription) -> None:
        """Counts a subscription that is rejected against its connection."""
        self._guard.refuse(subscription.message, len(subscription.message))

    def send(self, topic: bytes, body: bytes) -> None:
        """Publishes. Never blocks: beyond a subscriber's high-water mark XPUB drops."""
        send_two(self.socket, topic, body)

    def close(self) -> None:
        self.listening.close()
        self.socket.close()
