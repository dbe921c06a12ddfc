"""A client's ends of connections to a gateway."""

from __future__ import annotations

from typing import Final, cast

import zmq

from canbroker.system import clock
from canbroker.transport.address import Address, TcpAddress
from canbroker.transport.calls import ControlLink
from canbroker.transport.diagnosis import Diagnosis, Trouble
from canbroker.transport.links import KeepingLink, Link
from canbroker.transport.sockets import STREAM_HIGH_WATER, Context, Socket
from canbroker.transport.stream_link import StreamLink
from canbroker.transport.waiter import Descriptor

#: A route is heard of every 0.5 s, so after this time a gateway may have lost our topics.
_REPEAT_NS: Final = 3 * clock.SECOND // 4


class RemoteStreamLink(StreamLink):
    """A stream that a gateway relays. ZeroMQ repeats the subscriptions of a SUB socket when it
    connects again; here, they are messages, which this repeats when it hears nothing."""

    def __init__(
        self, context: Context, endpoint: TcpAddress, unread: int = STREAM_HIGH_WATER
    ) -> None:
        """
        :raises CanInitializationError: a key is missing.
        :raises CanOperationError: no descriptors are left.
        """
        self._topics: dict[bytes, None] = {}  # in the order of subscription
        self._heard_ns = self._said_ns = clock.monotonic_ns()
        self._use(context.remote_subscriber(endpoint, unread))
        self._diagnosis = Diagnosis(self.socket, endpoint, context.identity)
        context.connected(self.socket, endpoint)

    def subscribe(self, topic: bytes) -> None:
        self._topics[topic] = None
        self._say(b"\x01" + topic)

    def unsubscribe(self, topic: bytes) -> None:
        self._topics.pop(topic, None)
        self._say(b"\x00" + topic)

    def receive(self) -> tuple[bytes, bytes] | None:
        message = self._messages.next()
        while message is not None and not message[0]:  # the gateway looks whether we are there
            message = self._messages.next()
        now = clock.monotonic_ns()
        if message is not None:
            self._heard_ns = now
        elif now >= self._repeat_ns():
            self._repeat(now)
        return message

    def readable(self) -> bool:
        """As the base. A client that does nothing but send calls it, too."""
        now = clock.monotonic_ns()
        if now >= self._repeat_ns():
            self._repeat(now)
        return super().readable()

    def wait(self, timeout_ns: int | None, *others: Descriptor) -> bool:
        """As the base; also ends when the connection turns out to be impossible."""
        end = None if timeout_ns is None else clock.monotonic_ns() + timeout_ns
        while True:
            now = clock.monotonic_ns()
            patience = max(0, self._repeat_ns() - now)
            if end is not None and end - now <= patience:
                return super().wait(max(0, end - now), *others)
            if super().wait(patience, *others):
                return True
            self._repeat(clock.monotonic_ns())
            if self.problem() is not None:
                return False

    def problem(self) -> str | None:
        return self._diagnosis.problem()

    def is_refused(self) -> bool:
        return self._diagnosis.trouble() is Trouble.UNAUTHORIZED  # libzmq does not try again

    def close(self) -> None:
        self._diagnosis.close()
        super().close()

    def _repeat_ns(self) -> int:
        """When to repeat the topics (monotonic)."""
        return max(self._heard_ns, self._said_ns) + _REPEAT_NS

    def _repeat(self, now: int) -> None:
        self._said_ns = now
        for topic in self._topics:
            self._say(b"\x01" + topic)

    def _say(self, message: bytes) -> None:
        self._messages.is_empty = False
        try:
            self.socket.send(message, zmq.NOBLOCK)
        except zmq.Again:  # the connection is away; topics are repeated
            return


class _DiagnosedLink(Link):
    """A link to a gateway, which finds out why there is no connection."""

    _diagnosis: Diagnosis

    def close(self) -> None:
        self._diagnosis.close()
        super().close()

    def _opened(self, context: Context, endpoint: Address, _name: str) -> Socket:
        gateway = cast("TcpAddress", endpoint)
        socket = context.remote_requester(gateway)
        self._diagnosis = Diagnosis(socket, gateway, context.identity)
        return context.connected(socket, gateway)


class RemoteControlLink(_DiagnosedLink, ControlLink):
    """Calls methods of a process behind a gateway, and knows why it cannot."""

    def __init__(self, context: Context, endpoint: TcpAddress) -> None:
        """
        :raises CanInitializationError: a key is missing.
        :raises CanOperationError: no descriptors are left.
        """
        super().__init__(context, endpoint)

    def problem(self) -> str | None:
        """Why there is no connection, as far as is known."""
        return self._diagnosis.problem()

    @property
    def has_other_key(self) -> bool:
        """Whether the broker does not have the key that we know."""
        return self._diagnosis.trouble() is Trouble.OTHER_KEY


class RemoteKeepingLink(_DiagnosedLink, KeepingLink):
    """As the base, by a gateway: the connection may be cut, and comes back by itself."""

    def __init__(self, context: Context, endpoint: TcpAddress, size: int) -> None:
        """
        :raises CanInitializationError: a key is missing.
        :raises CanOperationError: no descriptors are left.
        """
        self._before = 0  # interruptions of earlier sockets
        super().__init__(context, endpoint, size)

    @property
    def interruptions(self) -> int:
        return self._before + self._diagnosis.interruptions

    def renew(self) -> None:
        self._before = self.interruptions
        self.close()
        self._waits = None
        self.socket = self._opened(self._context, self._endpoint, "")
