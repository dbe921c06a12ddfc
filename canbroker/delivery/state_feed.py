"""The state events that a channel publishes."""

from __future__ import annotations

from typing import Final

from canbroker.transport.address import Address
from canbroker.transport.sockets import Context, Messages, Socket

#: State events that are kept for a slow reader: about two minutes' worth.
_UNREAD_STATES: Final = 128


class StateFeed:
    """Follows the state stream of a channel. One thread at a time; never blocks.

    A slow reader gets old events first and misses newer ones; see :meth:`refresh`.
    """

    def __init__(self, context: Context, endpoint: Address, topic: bytes) -> None:
        self.socket: Socket = context.subscriber(endpoint, _UNREAD_STATES)
        self.socket.subscribe(topic)
        self._topic = topic
        self._messages = Messages(self.socket)

    def receive(self) -> bytes | None:
        """The next event's body, if one has arrived."""
        while (message := self._messages.next()) is not None:
            if message[0] == self._topic:
                return message[1]
        return None

    def turn_to(self, topic: bytes) -> None:
        """Follows another topic of the channel from now on; discards unread events of this one."""
        self.socket.unsubscribe(self._topic)
        self.socket.subscribe(topic)
        self._topic = topic

    def refresh(self) -> None:
        """Asks for the current state: a channel publishes it when a client subscribes."""
        self.socket.unsubscribe(self._topic)
        self.socket.subscribe(self._topic)

    def close(self) -> None:
        self.socket.close()
