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

from canbroker import clock
from canbroker.fabric.gate import KEPT_OUT_S, Gate
from canbroker.throttle import Throttle

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
        self._costs: Counter[_Connection] = Counter()
        self._since_ns = 0
        self._ended: dict[_Connection, int] = {}  # until when no other one can be the same

    def has_ended(self, message: zmq.Frame) -> bool:
        """Whether it is left over from a connection that was ended: pass over it."""
        if not self._ended:
            return False
        now = clock.monotonic_ns()
        self._ended = {which: until for which, until in self._ended.items() if until > now}
        return _Connection.of(message) in self._ended

    def refuse(self, message: zmq.Frame) -> None:
        """Counts a message that is refused, and ends its connection if that were too many."""
        connection = _Connection.of(message)
        if connection is None:
            return
        now = clock.monotonic_ns()
        if now - self._since_ns > _WINDOW_NS:
            self._since_ns = now
            self._costs.clear()
        self._costs[connection] += min(1 + len(message) // 256, _MAX_COST)
        if self._costs[connection] <= self._limit:
            return
        del self._costs[connection]
        until = ""
        if connection.process:
            self._gate.keep_out(connection.peer)  # first: it comes back at once
            self._ended[connection] = now + KEPT_OUT_S * clock.SECOND
            until = f"; it is kept out for {KEPT_OUT_S} s"
        connection.hang_up()
        self._refused.note(
            "connection ended",
            f"too much of what process {connection.process} sent was refused{until}",
        )


class _Connection(NamedTuple):
    """What a message has come by: the number of a descriptor, which may be another connection's
    by now, and who was at its other end, ``localhost:user:group:process`` of a Unix socket."""

    descriptor: int
    peer: str

    @classmethod
    def of(cls, message: zmq.Frame) -> _Connection | None:
        """``None``: nobody tells."""
        if sys.platform != "linux":
            return None
        try:
            return cls(message.get(zmq.SRCFD), cast("str", message.get("Peer-Address")))
        except zmq.ZMQError:
            return None

    @property
    def process(self) -> int:
        """0 if it is of a container that has other numbers."""
        return int(self.peer.rpartition(":")[2])

    def hang_up(self) -> None:
        """Ends it, if that process still has it: libzmq cannot be told to."""
        try:
            ours = sockets.socket(fileno=os.dup(self.descriptor))
        except OSError:  # it is closed
            return
        with ours:
            if ours.family != sockets.AF_UNIX:
                return
            raw = ours.getsockopt(sockets.SOL_SOCKET, sockets.SO_PEERCRED, _PEER.size)
            process, user, group = _PEER.unpack(raw)
            if self.peer.endswith(f":{user}:{group}:{process}"):
                ours.shutdown(sockets.SHUT_RDWR)
                # What is on its way would be read before the end: thousands of messages.
                with suppress(BlockingIOError):
                    while ours.recv(_CHUNK, sockets.MSG_DONTWAIT):
                        pass
