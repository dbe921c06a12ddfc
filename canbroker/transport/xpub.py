"""The publishing socket of a channel: sends topics, and reports subscriptions to them."""

from __future__ import annotations

from typing import Final, Protocol

from canbroker.system.portable import PORTABLE
from canbroker.system.throttle import Throttle
from canbroker.transport.address import IpcAddress
from canbroker.transport.listening import Listening
from canbroker.transport.sockets import Context
from canbroker.transport.subscriptions import Subscription
from canbroker.transport.waiter import SharedWaiter, Waiter

#: The cost of a connection's subscriptions that may be refused within a second.
MAX_REFUSED: Final = 128


class Xpub(Protocol):
    """An XPUB that disconnects peers that keep sending rejected messages, where peers are known.

    One thread at a time; never waits.
    """

    @property
    def socket(self) -> object:
        """What a waiter reports when there may be :meth:`events`."""

    @property
    def listening(self) -> Listening: ...

    def watch(self, waiter: Waiter) -> None:
        """Has a waiter report it."""

    def events(self, at_most: int) -> list[Subscription]:
        """The events of at most so many messages that have arrived; others are rejected."""

    @property
    def has_more(self) -> bool:
        """Whether another message has arrived."""

    def is_ended(self, subscription: Subscription) -> bool:
        """Whether its connection was ended meanwhile, for what it had sent before."""

    def refuse(self, subscription: Subscription) -> None:
        """Counts a subscription that is rejected against its connection."""

    def publish(self, topic: bytes, body: bytes) -> None:
        """Never waits: a subscriber for which too much waits does not get it."""

    def look(self, waiter: SharedWaiter) -> bool:
        """As of :meth:`Router.look`."""

    def close(self) -> None: ...


def xpub(context: Context, endpoint: IpcAddress, refused: Throttle) -> Xpub:
    """``refused``: the account of what is rejected.

    :raises CanInitializationError: cannot listen on ``endpoint``.
    """
    if PORTABLE:
        from canbroker.transport.loopback_xpub import (  # noqa: PLC0415 - not loaded natively
            LoopbackXpub,
        )

        return LoopbackXpub(context, endpoint, refused)
    from canbroker.transport.ipc_xpub import IpcXpub  # noqa: PLC0415 - likewise

    return IpcXpub(endpoint, context.kept_out, MAX_REFUSED, refused)
