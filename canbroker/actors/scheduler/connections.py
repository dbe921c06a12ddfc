"""The scheduler's connections to one channel."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Final

from canbroker.delivery.state_feed import StateFeed
from canbroker.transport.calls import ControlLink
from canbroker.transport.links import Link
from canbroker.transport.place import ChannelAddresses
from canbroker.transport.sockets import Context
from canbroker.transport.waiter import Waiter
from canbroker.wire import topics

#: Descriptors of a channel's connections: three sockets, each with its signal and its connection.
DESCRIPTORS: Final = 6


class ChannelConnections:
    """To the channel's transmit, control and state sockets; all are open. One thread."""

    def __init__(
        self, context: Context, waiter: Waiter, channel: str, addresses: ChannelAddresses
    ) -> None:
        """``waiter`` wakes up for states and control replies, but not for transmit replies.

        :raises CanInitializationError: no descriptors are left.
        """
        with ExitStack() as on_error:
            self.transmit = Link(context, addresses.transmit)
            on_error.callback(self.transmit.close)
            self.control = ControlLink(context, addresses.control)
            on_error.callback(self.control.close)
            self.states = StateFeed(context, addresses.stream, topics.state_topic(channel))
            on_error.pop_all()
        self._waiter = waiter
        self._sockets = (self.states.socket, self.control.socket)
        for socket in self._sockets:
            waiter.add(socket)

    def close(self) -> None:
        for socket in self._sockets:
            self._waiter.remove(socket)
        self.transmit.close()
        self.control.close()
        self.states.close()
