"""Disconnects peers that keep sending rejected messages."""

from __future__ import annotations

from collections import Counter
from typing import Final, NamedTuple, cast

import zmq

from canbroker.errors import CanError
from canbroker.system import clock
from canbroker.system.descriptors import duplicated_socket
from canbroker.system.throttle import Throttle
from canbroker.system.unix_sockets import TELLS_PEERS, hang_up
from canbroker.transport.gate import KEPT_OUT_S, Gate

#: Rejected messages of a connection within this time count together. Each costs 1, and 1 more for
#: each 256 bytes of its first 8 KiB.
_WINDOW_NS: Final = clock.SECOND
_MAX_COST: Final = 33


class Guard:
    """Guards one listening socket, on its thread. Only Linux identifies peers; on other systems
    this disconnects nobody."""

    def __init__(self, gate: Gate, limit: int, refused: Throttle) -> None:
        """
        :param limit: the cost of rejected messages that a connection may have within a second.
        :param refused: counts and logs rejected messages.
        """
        self._gate = gate
        self._limit = limit
        self._refused = refused
        self._costs: Counter[PeerConnection] = Counter()
        self._since_ns = 0
        self._ended: dict[
            PeerConnection, int
        ] = {}  # until when no other connection can be the same

    def has_ended(self, message: zmq.Frame) -> bool:
        """Whether the message came by a connection that was ended: ignore it."""
        if not self._ended:
            return False
        now = clock.monotonic_ns()
        self._ended = {which: until for which, until in self._ended.items() if until > now}
        return PeerConnection.of(message) in self._ended

    def refuse(self, message: zmq.Frame, size: int) -> None:
        """Counts a rejected message, and ends its connection if there were too many.

        :param message: a part of it.
        :param size: of all its parts, in bytes.
        """
        connection = PeerConnection.of(message)
        if connection is None:
            return
        now = clock.monotonic_ns()
        if now - self._since_ns > _WINDOW_NS:
            self._since_ns = now
            self._costs.clear()
        self._costs[connection] += min(1 + size // 256, _MAX_COST)
        if self._costs[connection] <= self._limit:
            return
        del self._costs[connection]
        try:
            self._gate.keep_out(connection.peer)  # first, as it reconnects at once
        except (CanError, OSError, zmq.ZMQError) as error:  # no descriptors are left, say
            self._refused.note("connection not ended", str(error))
            return
        self._ended[connection] = now + KEPT_OUT_S * clock.SECOND
        connection.hang_up()
        self._refused.note(
            "connection ended",
            f"process {connection.process} sent too many messages that were refused; "
            f"it is kept out for {KEPT_OUT_S} s",
        )


class PeerConnection(NamedTuple):
    """The connection that a message came by.

    ``descriptor`` may belong to another connection by now. ``peer`` is the address of the other
    end, ``localhost:user:group:process`` for a Unix socket.
    """

    descriptor: int
    peer: str

    @classmethod
    def of(cls, message: zmq.Frame) -> PeerConnection | None:
        """``None`` if the peer is not a known process; 0 stands for all processes of other
        containers."""
        if not TELLS_PEERS:
            return None
        try:
            connection = cls(message.get(zmq.SRCFD), cast("str", message.get("Peer-Address")))
        except zmq.ZMQError:
            return None
        return connection if connection.process else None

    @property
    def process(self) -> int:
        """The number of the peer's process; 0 if it has none here, as peers on other hosts."""
        host, *numbers = self.peer.split(":")
        return int(numbers[-1]) if host == "localhost" else 0

    def hang_up(self) -> None:
        """Ends the connection, if that process still has it; libzmq has no call for this."""
        ours = duplicated_socket(self.descriptor)
        if ours is None:
            return
        with ours:
            user, group, process = map(int, self.peer.split(":")[-3:])
            hang_up(ours, process, user, group)
