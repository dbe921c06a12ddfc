"""Connections to the broker's sockets without a thread of libzmq's between.

Such a thread is woken for each message, and wakes the one that relays it. Where a process passes
messages on, these hand-overs are most of what it costs.
"""

from __future__ import annotations

import _socket
import errno
import logging
from collections import deque
from typing import Final, Protocol, TypeAlias

from canbroker.errors import CanInitializationError
from canbroker.system import clock, handles
from canbroker.system.throttle import Throttle
from canbroker.system.unix_sockets import connected, has_ended
from canbroker.transport import zmtp
from canbroker.transport.address import IpcAddress
from canbroker.transport.selector import SocketSelector
from canbroker.transport.sockets import REQUEST_HIGH_WATER

#: Read at a time.
_CHUNK: Final = 65_536

#: The most bytes that wait for the other end. Clients wait for answers long before.
_MAX_WAITING: Final = 1 << 21

#: When to try again to connect, as libzmq does: soon, then at growing intervals.
_AGAIN_NS: Final = 10 * clock.MILLISECOND
_AGAIN_MAX_NS: Final = 100 * clock.MILLISECOND

_NO_DESCRIPTORS: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})

_SUBSCRIBE: Final = b"\x01"
_UNSUBSCRIBE: Final = b"\x00"

#: Of a message: one, or topic and body of a stream.
Parts: TypeAlias = list[bytes]

_logger = logging.getLogger(__name__)


class Away(Protocol):
    """Where a line waits for its time to connect again."""

    def wait_for(self, line: IpcLine, until_ns: int) -> None: ...

    def forget(self, line: IpcLine) -> None: ...


class IpcLine:
    """Sends requests to a ROUTER and receives its replies, as a DEALER. One thread; never waits.

    It connects when it is made, and again when the other end was replaced. What has not been
    written by then is sent to the successor. ``ready``: the other end takes messages.
    """

    def __init__(
        self, selector: SocketSelector[object], away: Away, endpoint: IpcAddress, opening: bytes
    ) -> None:
        """
        :param opening: as of :func:`canbroker.transport.zmtp.opening`.
        :raises CanInitializationError: no descriptors are left.
        """
        self._selector = selector
        self._away = away
        self._path = str(endpoint.path)
        self._opening = opening
        self._owner: object = None
        self._socket: _socket.socket | None = None  # None: not connected
        self.ready = False
        self._incoming = zmtp.Incoming()
        self._is_read = False  # to its end, for now
        self._received: deque[Parts] = deque()  # while paused, by a connection that has ended
        self._waiting: deque[bytes] = deque()  # encoded messages
        self._waiting_bytes = 0
        self._written = 0  # bytes of the first one that waits
        self._again_ns = _AGAIN_NS
        self._paused = False
        self._noted = Throttle(_logger)
        self._begin()

    def report_to(self, owner: object) -> None:
        """From now on, the selector reports ``owner`` when :meth:`receive` may have something."""
        self._owner = owner
        self._watch()

    def send(self, body: bytes) -> bool:
        """Sends a message, or queues it; ``False``: too much waits already."""
        message = zmtp.encode(body)
        if self.ready and not self._waiting:
            self._written = self._write(message)
            if self._written == len(message):
                self._written = 0
                return True
        elif (
            len(self._waiting) >= REQUEST_HIGH_WATER
            or self._waiting_bytes + len(message) > _MAX_WAITING
        ):
            return False
        self._waiting.append(message)
        self._waiting_bytes += len(message)
        self._watch()
        return True

    def receive(self) -> Parts | None:
        """The parts of the next message that has arrived. After ``None``, the selector reports when
        to look again."""
        if self._received:
            return self._received.popleft()
        return self._next()

    def again(self) -> None:
        """Has the owner reported once more, as it has not received everything."""
        if self._owner is not None:
            self._selector.again(self._owner)

    def pause(self) -> None:
        """The owner is not reported until :meth:`resume`."""
        self._paused = True
        if self._socket is not None:
            self._selector.unwatch(self._socket)

    def resume(self) -> None:
        self._paused = False
        self._watch()
        self.again()

    def step(self) -> None:
        """Follows the connection of a paused line, several times a second: its client has to be
        present with a successor, too."""
        if not self._paused or self._socket is None or (self.ready and not has_ended(self._socket)):
            return
        while (message := self._next()) is not None:  # what the system has buffered
            self._received.append(message)

    def connect(self, now_ns: int) -> None:
        """Tries to connect, at the time that it was to wait for."""
        try:
            self._connect()
        except OSError:  # nobody listens, too many connect at once, or no descriptors are left
            self._wait(now_ns)

    def close(self) -> None:
        self._away.forget(self)
        self._disconnect()

    # ------------------------------------------------------------------------------- connection

    def _begin(self) -> None:
        try:
            self._connect()
        except OSError as error:
            if error.errno in _NO_DESCRIPTORS:
                what = handles.explained(error)
                raise CanInitializationError(f"cannot make a socket: {what}") from error
            self._wait(clock.monotonic_ns())

    def _connect(self) -> None:
        """:raises OSError: it cannot."""
        self._socket = connected(self._path, self._opening)
        self._watch()

    def _wait(self, now_ns: int) -> None:
        self._away.wait_for(self, now_ns + self._again_ns)
        self._again_ns = min(2 * self._again_ns, _AGAIN_MAX_NS)

    def _lose(self) -> None:
        """The connection has ended. A message that was written in part was not received."""
        self._disconnect()
        self._wait(clock.monotonic_ns())

    def _disconnect(self) -> None:
        if self._socket is not None:
            self._selector.unwatch(self._socket)
            self._socket.close()
        self._socket = None
        self.ready = self._is_read = False
        self._incoming = zmtp.Incoming()
        self._written = 0

    def _opened(self) -> None:
        """The other end has become ready."""
        self.ready = True
        self._again_ns = _AGAIN_NS
        self._flush()

    def _watch(self) -> None:
        if self._socket is not None and self._owner is not None and not self._paused:
            writable = self.ready and bool(self._waiting)
            self._selector.watch(self._socket, self._owner, writable=writable)

    # ---------------------------------------------------------------------------------- messages

    def _next(self) -> Parts | None:
        """The next message of this connection."""
        if self._waiting and self.ready:
            self._flush()
        try:
            while (message := self._incoming.next()) is None:
                if self._incoming.ready and not self.ready:
                    self._opened()
                if self._is_read:  # what comes from now on is reported
                    self._is_read = False
                    return None
                if not self._read():
                    return None
        except zmtp.ZmtpError as error:
            self._noted.note("connection ended", f"{self._path}: {error}")
            self._lose()
            return None
        return message

    def _read(self) -> bool:
        """Reads what has arrived, if anything has."""
        if self._socket is None:
            return False
        try:
            data = self._socket.recv(_CHUNK)
        except BlockingIOError:
            return False
        except OSError:  # it was reset
            data = b""
        if not data:
            self._lose()
            return False
        self._is_read = len(data) < _CHUNK
        self._incoming.feed(data)
        return True

    def _flush(self) -> None:
        """Writes what waits, as far as there is room."""
        while self._waiting:
            message = self._waiting[0]
            self._written += self._write(message[self._written :])
            if self._written < len(message):
                break
            self._waiting.popleft()
            self._waiting_bytes -= len(message)
            self._written = 0
        self._watch()

    def _write(self, data: bytes) -> int:
        """How many bytes were written. If the connection has ended, receiving tells."""
        if self._socket is None:
            return 0
        try:
            return self._socket.send(data)
        except OSError:
            return 0


class IpcStream(IpcLine):
    """Subscribes to topics of an XPUB, as a SUB; again after it has connected again."""

    def __init__(
        self, selector: SocketSelector[object], away: Away, endpoint: IpcAddress, opening: bytes
    ) -> None:
        """As the base."""
        self._topics: dict[bytes, None] = {}  # in the order of subscription
        super().__init__(selector, away, endpoint, opening)

    def subscribe(self, topic: bytes) -> bool:
        """``False``: too much waits already."""
        self._topics[topic] = None
        return not self.ready or self.send(_SUBSCRIBE + topic)

    def unsubscribe(self, topic: bytes) -> bool:
        """As :meth:`subscribe`."""
        self._topics.pop(topic, None)
        return not self.ready or self.send(_UNSUBSCRIBE + topic)

    def _disconnect(self) -> None:
        super()._disconnect()
        self._waiting.clear()
        self._waiting_bytes = 0

    def _opened(self) -> None:
        for topic in self._topics:
            self.send(_SUBSCRIBE + topic)
        super()._opened()
