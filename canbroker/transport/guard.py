"""Hangs up on who sends without end what is refused."""

from __future__ import annotations

import os
import socket as sockets
import struct
import sys
from collections import Counter
from contextlib import suppress
from typing import Final, NamedTuple, cast

import zmq

from canbroker.errors import CanError
from canbroker.system import clock
from canbroker.system.throttle import Throttle
from canbroker.transport.gate import KEPT_OUT_S, Gate

#: What is refused of one connection within so long counts together: a message one, and one more
#: for each 256 bytes of its first 8 KiB.
_WINDOW_NS: Final = clock.SECOND
_MAX_COST: Final = 33

_PEER: Final = struct.Struct("3i")  # process, user, group
_CHUNK: Final = 1 << 16


class Guard:
    """Of one listening socket, and on its thread. Only Linux tells who a peer is; elsewhere this
    ends nothing."""

    def __init__(self, gate: Gate, limit: int, refused: Throttle) -> None:
        """``limit``: what may be refused of a connection within a second; ``refused``: the
        account of what is, for the log."""
        self._gate = gate
        self._limit = limit
        self._refused = refused
        self._costs: Counter[PeerConnection] = Counter()
        self._since_ns = 0
        self._ended: dict[PeerConnection, int] = {}  # until when no other one can be the same

    def has_ended(self, message: zmq.Frame) -> bool:
        """Whether it is left over from a connection that was ended: pass over it."""
        if not self._ended:
            return False
        now = clock.monotonic_ns()
        self._ended = {which: until for which, until in self._ended.items() if until > now}
        return PeerConnection.of(message) in self._ended

    def refuse(self, message: zmq.Frame, size: int) -> None:
        """Counts a message that is refused, and ends its connection if that were too many.

        ``message``: a part of it; ``size``: of all its parts, bytes.
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
            self._gate.keep_out(connection.peer)  # first: it comes back at once
        except (CanError, OSError, zmq.ZMQError) as error:  # no descriptors are left, say
            self._refused.note("connection not ended", str(error))
            return
        self._ended[connection] = now + KEPT_OUT_S * clock.SECOND
        connection.hang_up()
        self._refused.note(
            "connection ended",
            f"too much of what process {connection.process} sent was refused; "
            f"it is kept out for {KEPT_OUT_S} s",
        )


class PeerConnection(NamedTuple):
    """What a message has come by: the number of a descriptor, which may be another connection's
    by now, and who was at its other end, ``localhost:user:group:process`` of a Unix socket."""

    descriptor: int
    peer: str

    @classmethod
    def of(cls, message: zmq.Frame) -> PeerConnection | None:
        """``None``: nobody tells who it is; 0 stands for all processes of other containers."""
        if sys.platform != "linux":
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
        """Ends it, if that process still has it: libzmq cannot be told to."""
        try:
            descriptor = os.dup(self.descriptor)
        except OSError:  # it is closed
            return
        try:
            ours = sockets.socket(fileno=descriptor)
        except OSError:  # it is something else by now
            os.close(descriptor)
            return
        with ours:
            if ours.family != sockets.AF_UNIX:
                return
            raw = ours.getsockopt(sockets.SOL_SOCKET, sockets.SO_PEERCRED, _PEER.size)
            process, user, group = _PEER.unpack(raw)
            if not self.peer.endswith(f":{user}:{group}:{process}"):
                return
            # Errors: there is no more, or the other end is gone and has not read all of ours.
            with suppress(OSError):
                ours.shutdown(sockets.SHUT_RDWR)
            with suppress(OSError):
                # What is on its way would be read before the end: thousands of messages.
                while ours.recv(_CHUNK, sockets.MSG_DONTWAIT):
                    pass
