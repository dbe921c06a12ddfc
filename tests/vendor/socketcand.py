"""A double of a socketcand server, on the loopback, with one bus.

Written from: socketcand's doc/protocol.md and socketcand.c (a client is greeted with ``< hi >``,
opens a bus, asks for raw mode, and is told ``< ok >`` each time), and python-can's
interfaces/socketcand (what it sends, and that it takes each answer for one ``recv``).

Oddities kept: data is hexadecimal without leading zeros from python-can, and without spaces from
the server; identifiers of extended frames have eight digits.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from canbroker.model.frame import EXTENDED, Frame


class Server:
    """Listens at :attr:`port` until it is closed; may be opened again at the same one."""

    def __init__(self, port: int = 0) -> None:
        self.seen: list[str] = []  # what clients have sent, without the brackets
        self._clients: list[socket.socket] = []
        self._raw: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port = int(self._listener.getsockname()[1])
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def inject(self, frames: Sequence[Frame]) -> None:
        """Another node of the bus sends frames."""
        for frame in frames:
            digits = 8 if frame.flags & EXTENDED else 3
            data = frame.data.hex() if isinstance(frame.data, bytes) else ""
            line = f"< frame {frame.arbitration_id:0{digits}X} {time.time():.6f} {data} >"
            for client in self._raw:
                client.sendall(line.encode())

    def is_open(self) -> bool:
        """Whether somebody receives."""
        return bool(self._raw)

    def close(self) -> None:
        """The server ends, and with it every connection."""
        with contextlib.suppress(OSError):  # it may not be connected, which ends accept as well
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for client in self._clients:
            with contextlib.suppress(OSError):  # its client may have left
                client.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                client, _ = self._listener.accept()
                self._clients.append(client)
                thread = threading.Thread(target=self._serve, args=(client,))
                self._threads.append(thread)
                thread.start()

    def _serve(self, client: socket.socket) -> None:
        unread = ""
        with client, contextlib.suppress(OSError):  # either side may end it
            client.sendall(b"< hi >")
            while received := client.recv(4096):
                *lines, unread = (unread + received.decode()).split(">")
                for line in lines:
                    self._answer(client, line.strip(" <"))
        if client in self._raw:
            self._raw.remove(client)

    def _answer(self, client: socket.socket, line: str) -> None:
        if line.startswith("send "):
            self.seen.append(line)
            return
        client.sendall(b"< ok >")
        if line == "rawmode":
            self._raw.append(client)


@contextmanager
def serving(port: int = 0) -> Iterator[Server]:
    server = Server(port)
    try:
        yield server
    finally:
        server.close()
