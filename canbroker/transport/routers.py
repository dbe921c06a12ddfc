"""Connections for requests, the end that serves many clients: a ROUTER."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

from canbroker.system import clock
from canbroker.system.portable import PORTABLE
from canbroker.system.throttle import Throttle
from canbroker.transport.address import IpcAddress
from canbroker.transport.listening import Listening
from canbroker.transport.sockets import REQUEST_HIGH_WATER, Context
from canbroker.transport.waiter import SharedWaiter, Waiter

#: How long a socket is not read after a malformed request. Each costs an exception, its text and a
#: reply, and other peers should not wait for that.
REST_NS: Final = clock.MILLISECOND // 5

#: Malformed requests of a connection that are answered within a second.
MAX_REFUSED: Final = 64


class Router(Protocol):
    """Receives messages with the routing ids of the peers that sent them, and answers by these.

    One thread at a time; never waits. A peer that keeps sending rejected messages is disconnected,
    where peers are known.
    """

    @property
    def socket(self) -> object:
        """What a waiter reports when there may be something to receive."""

    @property
    def listening(self) -> Listening: ...

    def watch(self, waiter: Waiter) -> None:
        """Has a waiter report it."""

    def receive(self) -> tuple[bytes, Sequence[bytes]] | None:
        """The routing id of a peer, and the parts of a message that has arrived from it."""

    @property
    def has_more(self) -> bool:
        """Whether another message is known to be there. If not, the waiter tells."""

    def refuse(self) -> None:
        """Counts the message that was received last against its peer."""

    def reply(self, routing_id: bytes, body: bytes) -> None:
        """Answers a request. The answer is lost if the connection is gone, or too many wait."""

    def is_connected(self, routing_id: bytes) -> bool:
        """Whether a peer with that routing id is connected."""

    def look(self, waiter: SharedWaiter) -> bool:
        """Ends the use of the socket in a turn: as of :meth:`SharedWaiter.look`, where that is
        needed."""

    def close(self) -> None: ...


def router(
    context: Context, endpoint: IpcAddress, refused: Throttle, unread: int = REQUEST_HIGH_WATER
) -> Router:
    """
    :param refused: counts and logs rejected messages.
    :param unread: the most replies that wait for a peer that does not read them.
    :raises CanInitializationError: cannot listen on ``endpoint``.
    """
    if PORTABLE:
        from canbroker.transport.loopback_router import (  # noqa: PLC0415 - not loaded natively
            LoopbackRouter,
        )

        return LoopbackRouter(context, endpoint, unread)
    from canbroker.transport.ipc_router import IpcRouter  # noqa: PLC0415 - likewise

    return IpcRouter(endpoint, context.kept_out, MAX_REFUSED, refused, unread)
