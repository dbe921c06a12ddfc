"""The native ROUTER: serves many clients by Unix sockets, without libzmq."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from typing import Final

from canbroker.system.throttle import Throttle
from canbroker.transport.address import IpcAddress
from canbroker.transport.ipc_listener import IpcListener
from canbroker.transport.ipc_peer import IpcPeer, Parts
from canbroker.transport.kept_out import KeptOut
from canbroker.transport.zmtp import ZmtpError, encode
from canbroker.wire import MAX_MESSAGE_BYTES

_KINDS: Final = frozenset({b"DEALER", b"REQ", b"ROUTER"})

#: What routing ids begin with that peers are given; no peer may choose such a one.
_GIVEN: Final = b"\0"
_NUMBER_BYTES: Final = 4


class IpcRouter(IpcListener):
    """As :class:`canbroker.transport.routers.Router`."""

    def __init__(
        self, endpoint: IpcAddress, kept_out: KeptOut, limit: int, refused: Throttle, unread: int
    ) -> None:
        """
        :param limit: the cost of rejected messages that a connection may have within a second.
        :param refused: the account of rejected messages.
        :param unread: the most replies that wait for a peer that does not read them.
        :raises CanInitializationError: cannot listen on ``endpoint``.
        """
        self._limit = limit
        self._refused = refused
        self._unread = unread
        self._known: dict[bytes, IpcPeer] = {}  # by routing id
        # Not from 1: an id is not to mean somebody else in the next life of this process.
        self._numbers = itertools.count(int.from_bytes(os.urandom(_NUMBER_BYTES), "big"))
        self._last: tuple[IpcPeer, Parts] | None = None
        super().__init__(endpoint, "ROUTER", _KINDS, kept_out, MAX_MESSAGE_BYTES)

    def receive(self) -> tuple[bytes, Sequence[bytes]] | None:
        self._last = taken = self.take()
        return None if taken is None else (taken[0].routing_id, taken[1])

    def refuse(self) -> None:
        if self._last is not None:
            peer, parts = self._last
            self.reject(peer, sum(map(len, parts)), self._limit, self._refused)

    def reply(self, routing_id: bytes, body: bytes) -> None:
        peer = self._known.get(routing_id)
        if peer is not None:
            self.send(peer, encode(body), self._unread)

    def is_connected(self, routing_id: bytes) -> bool:
        peer = self._known.get(routing_id)
        return peer is not None and not peer.has_ended

    def _opened(self, peer: IpcPeer) -> None:
        """A peer that connects again keeps its id; its former connection ends."""
        peer.routing_id = peer.incoming.routing_id or self._given()
        if peer.incoming.routing_id.startswith(_GIVEN):
            raise ZmtpError("a routing id that begins with a zero")
        former = self._known.get(peer.routing_id)
        self._known[peer.routing_id] = peer
        if former is not None:
            self.end(former)

    def _ended(self, peer: IpcPeer) -> None:
        if self._known.get(peer.routing_id) is peer:
            del self._known[peer.routing_id]

    def _given(self) -> bytes:
        number = next(self._numbers) % (1 << 8 * _NUMBER_BYTES)
        return _GIVEN + number.to_bytes(_NUMBER_BYTES, "big")
