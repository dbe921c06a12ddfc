"""One connection to a listening Unix socket: its messages, and what waits to be sent."""

from __future__ import annotations

import _socket
import itertools
from collections import deque
from typing import Final, TypeAlias

from canbroker.system import clock
from canbroker.system.unix_sockets import has_ended, written
from canbroker.transport import zmtp

#: Of a message.
Parts: TypeAlias = list[bytes]

#: Read at a time.
_CHUNK: Final = 65_536

#: The most messages that are written together, of those that wait.
_TOGETHER: Final = 64

#: The most parts of a message. Ours have two; others are answered, too.
_MAX_PARTS: Final = 64

#: Rejected messages within this time count together. Each costs 1, and 1 more for each 256 bytes of
#: its first 8 KiB.
_WINDOW_NS: Final = clock.SECOND
_MAX_COST: Final = 33


class IpcPeer:
    """The other end of a connection. One thread at a time; never waits.

    ``process``: its id; 0 is a process of another container. ``routing_id``: what a ROUTER calls
    it. ``topics``: to which it has subscribed.
    """

    def __init__(
        self, connection: _socket.socket, process: int, max_bytes: int, now_ns: int
    ) -> None:
        """``connection`` never waits; ``max_bytes``: of a message; ``now_ns``: monotonic."""
        self.number = connection.fileno()
        self.process = process
        self.since_ns = now_ns
        self.routing_id = b""
        self.topics: dict[bytes, None] = {}
        self.is_open = True
        self.has_turn = False  # of those that a listener gives
        self.incoming = zmtp.Incoming(_MAX_PARTS, max_bytes)
        self._connection = connection
        self._recv, self._send = connection.recv, connection.send
        self._has_more = True  # than was read
        self._waiting: deque[bytes] = deque()  # encoded messages
        self._written = 0  # bytes of the first one
        self._is_deaf = False  # does not read any more
        self._cost = self._cost_since_ns = 0

    @property
    def has_waiting(self) -> bool:
        """Whether something waits to be written."""
        return bool(self._waiting)

    @property
    def is_drained(self) -> bool:
        """Whether nothing was left when it was read, and all of that has been received."""
        return self.incoming.is_empty and not self._has_more

    @property
    def has_ended(self) -> bool:
        """Whether the other end is gone, whatever is left to read."""
        return has_ended(self._connection)

    def receive(self) -> Parts | None:
        """Its next message; reads once.

        :raises zmtp.ZmtpError: it does not speak the protocol.
        :raises OSError: the connection has ended.
        """
        incoming = self.incoming
        if incoming.is_empty or (message := incoming.next()) is None:
            try:
                data = self._recv(_CHUNK)
            except BlockingIOError:
                self._has_more = False
                return None
            if not data:
                raise ConnectionResetError
            self._has_more = len(data) == _CHUNK
            incoming.feed(data)
            message = incoming.next()
        return message

    def send(self, message: bytes, at_most: int) -> bool:
        """Sends an encoded message, or queues it unless ``at_most`` wait; whether it is the first
        one that waits now: call :meth:`flush` when there is room."""
        waiting = self._waiting
        if waiting:
            if len(waiting) < at_most:
                waiting.append(message)
            return False
        if self._is_deaf:
            return False
        try:
            self._written = self._send(message)
        except BlockingIOError:
            self._written = 0
        except OSError:
            self._give_up()
            return False
        if self._written == len(message):
            return False
        waiting.append(message)
        return True

    def flush(self) -> None:
        """Writes some of what waits, as far as there is room."""
        waiting = self._waiting
        if not waiting:
            return
        first = memoryview(waiting[0])[self._written :]
        try:
            count = written(self._connection, [first, *itertools.islice(waiting, 1, _TOGETHER)])
        except BlockingIOError:
            return
        except OSError:
            self._give_up()
            return
        count += self._written
        while waiting and count >= len(waiting[0]):
            count -= len(waiting.popleft())
        self._written = count

    def reject(self, size: int, now_ns: int) -> int:
        """Counts a rejected message of ``size`` bytes; what those of a second have cost."""
        if now_ns - self._cost_since_ns > _WINDOW_NS:
            self._cost_since_ns, self._cost = now_ns, 0
        self._cost += min(1 + size // 256, _MAX_COST)
        return self._cost

    def close(self) -> None:
        self.is_open = False
        self._is_deaf = True
        self._waiting.clear()
        self._connection.close()

    def _give_up(self) -> None:
        """The other end reads no more. What it has written may still be there."""
        self._is_deaf = True
        self._waiting.clear()
        self._written = 0
