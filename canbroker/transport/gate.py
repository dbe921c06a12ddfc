"""Delays reconnection of recently disconnected peers."""

from __future__ import annotations

import heapq
import itertools
import threading
from contextlib import ExitStack
from typing import Final, TypeAlias

import zmq

from canbroker.system import clock
from canbroker.system.wake import Wake

#: How long a process is kept out. libzmq gives up a connection that is not made within 30 s.
KEPT_OUT_S: Final = 10

#: Where libzmq asks whether to accept a connection, if somebody listens (ZAP, ZeroMQ's RFC 27).
_ADDRESS: Final = "inproc://zeromq.zap.01"

#: The most delayed connections; a process may open them without end.
_MAX_WAITING: Final = 1024

_Request: TypeAlias = list[bytes]


class Gate:
    """Decides when the listening sockets of a context accept connections. Any thread.

    Without it, libzmq reconnects a disconnected peer at once, and repeats all of its subscriptions.
    Connections are accepted without asking until the first process is kept out.
    """

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]]) -> None:
        self._context = context
        self._until: dict[str, int] = {}  # by the peer's address, monotonic ns
        self._lock = threading.Lock()
        self._closing: Wake | None = None
        self._thread: threading.Thread | None = None

    def keep_out(self, peer: str) -> None:
        """Delays new connections of a peer; ``peer``: its address, as libzmq spells it.

        :raises CanOperationError: no descriptors are left; then nothing is delayed.
        :raises zmq.ZMQError: likewise.
        """
        now = clock.monotonic_ns()
        with self._lock:
            kept = {other: until for other, until in self._until.items() if until > now}
            self._until = kept | {peer: now + KEPT_OUT_S * clock.SECOND}
            if self._thread is None:
                self._open()

    def close(self) -> None:
        """Call it before the context is closed."""
        if self._closing is not None and self._thread is not None:
            self._closing.set()
            self._thread.join()
            self._closing.close()

    def _open(self) -> None:
        with ExitStack() as on_error:
            closing = Wake()
            on_error.callback(closing.close)
            socket = self._context.socket(zmq.ROUTER)
            on_error.callback(socket.close)
            socket.setsockopt(zmq.LINGER, 0)
            socket.bind(_ADDRESS)
            serving = socket, closing.fileno()
            thread = threading.Thread(target=self._serve, args=serving, name="gate")
            thread.start()
            on_error.pop_all()
        self._closing, self._thread = closing, thread

    def _serve(self, socket: zmq.Socket[bytes], closing: int) -> None:
        waiting: list[tuple[int, int, _Request]] = []  # a heap
        number = itertools.count()
        poller = zmq.Poller()
        poller.register(socket, zmq.POLLIN)
        poller.register(closing, zmq.POLLIN)
        with socket:
            while True:
                now = clock.monotonic_ns()
                while waiting and waiting[0][0] <= now:
                    _let_in(socket, heapq.heappop(waiting)[2])
                patience = (waiting[0][0] - now) // clock.MILLISECOND + 1 if waiting else None
                ready = dict(poller.poll(patience))
                if closing in ready:
                    return
                if socket in ready:
                    request = socket.recv_multipart()
                    *_, address, _, _ = request  # then its identity, and the mechanism NULL
                    until = self._until.get(address.decode(), 0)
                    # Requests beyond the limit are not answered: libzmq ends their connections.
                    if until <= now or len(waiting) < _MAX_WAITING:
                        heapq.heappush(waiting, (until, next(number), request))


def _let_in(socket: zmq.Socket[bytes], request: _Request) -> None:
    back, empty, version, number, *_ = request
    socket.send_multipart([back, empty, version, number, b"200", b"", b"", b""])
