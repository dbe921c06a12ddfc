"""Has processes wait that want to connect too soon."""

from __future__ import annotations

import threading
from typing import Final, TypeAlias

import zmq

from canbroker import clock
from canbroker.wake import Wake

#: So long a process is kept out. libzmq gives up on a connection that is not made within 30 s.
KEPT_OUT_S: Final = 10

#: Where libzmq asks whether a connection may be made, if somebody is there (ZAP, ZeroMQ's RFC 27).
_ADDRESS: Final = "inproc://zeromq.zap.01"

_Request: TypeAlias = list[bytes]


class Gate:
    """Of all listening sockets of a context. Who is hung up on would be back at once, with all
    that it had subscribed to: libzmq does so by itself. Any thread.

    Nobody stands there, and each connection is made at once, before the first is kept out.
    """

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]]) -> None:
        self._context = context
        self._until: dict[str, int] = {}  # by the peer's address, monotonic ns
        self._lock = threading.Lock()
        self._closing: Wake | None = None
        self._thread: threading.Thread | None = None

    def keep_out(self, peer: str) -> None:
        """Has new connections wait of the peer with this address, as libzmq spells it."""
        now = clock.monotonic_ns()
        with self._lock:
            kept = {other: until for other, until in self._until.items() if until > now}
            self._until = kept | {peer: now + KEPT_OUT_S * clock.SECOND}
            if self._thread is None:
                self._closing = Wake()
                socket = self._context.socket(zmq.ROUTER)
                socket.setsockopt(zmq.LINGER, 0)
                socket.bind(_ADDRESS)
                serving = socket, self._closing.fileno()
                self._thread = threading.Thread(target=self._serve, args=serving, name="gate")
                self._thread.start()

    def close(self) -> None:
        """Before the context is."""
        if self._closing is not None and self._thread is not None:
            self._closing.set()
            self._thread.join()
            self._closing.close()

    def _serve(self, socket: zmq.Socket[bytes], closing: int) -> None:
        waiting: list[tuple[int, _Request]] = []
        poller = zmq.Poller()
        poller.register(socket, zmq.POLLIN)
        poller.register(closing, zmq.POLLIN)
        with socket:
            while True:
                now = clock.monotonic_ns()
                for until, request in waiting:
                    if until <= now:
                        _let_in(socket, request)
                waiting = [entry for entry in waiting if entry[0] > now]
                due_ns = min((until for until, _ in waiting), default=None)
                patience = None if due_ns is None else (due_ns - now) // clock.MILLISECOND + 1
                ready = dict(poller.poll(patience))
                if closing in ready:
                    return
                if socket in ready:
                    request = socket.recv_multipart()
                    *_, address, _, _ = request  # then its identity, and the mechanism NULL
                    waiting.append((self._until.get(address.decode(), 0), request))


def _let_in(socket: zmq.Socket[bytes], request: _Request) -> None:
    back, empty, version, number, *_ = request
    socket.send_multipart([back, empty, version, number, b"200", b"", b"", b""])
