"""The state events that a channel publishes."""

from __future__ import annotations

from typing import Final

from canbroker.transport.address import Address
from canbroker.transport.sockets import Context, Socket
from canbroker.transport.stream_link import open_stream

#: State events that are kept for a slow reader: about a quarter of a minute's worth.
_UNREAD_STATES: Final = 32


class StateFeed:
    """Follows the state stream of a channel. One thread at a time; never blocks.

    A slow reader gets old events first and misses newer ones; see :meth:`refresh`.
    """

    def __init__(self, context: Context, endpoint: Address, topic: bytes) -> None:
        self._link = open_stream(context, endpoint, _UNREAD_STATES)
        self._link.subscribe(topic)
        self._topic = topic

    @property
    def socket(self) -> Socket:
        """Readable when an event has arrived."""
        return self._link.socket

    def problem(self) -> str | None:
        """Why there is no connection, as far as is known."""
        return self._link.problem()

    def is_refused(self) -> bool:
        """Whether there will be no connection any more."""
        return self._link.is_refused()

    def receive(self) -> bytes | None:
        """The next event's body, if one has arrived."""
        while (message := self._link.receive()) is not None:
            if message[0] == self._topic:
                return message[1]
        return None

    def turn_to(self, topic: bytes) -> None:
        """Follows another topic of the channel from now on; discards unread events of this one."""
        self._link.unsubscribe(self._topic)
        self._link.subscribe(topic)
        self._topic = topic

    def refresh(self) -> None:
        """Asks for the current state: a channel publishes it when a client subscribes."""
        self._link.unsubscribe(self._topic)
        self._link.subscribe(self._topic)

    def close(self) -> None:
        self._link.close()
