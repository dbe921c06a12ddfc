"""The commands for a simulated adapter, one a line."""

from __future__ import annotations

import os
import threading
from _socket import socket
from socket import SHUT_WR
from typing import Final, TextIO

from canbroker.system.handles import SocketPair
from canbroker.system.portable import PORTABLE

_CHUNK: Final = 65_536


class ControlStream:
    """A stream of commands that can be waited for.

    Windows cannot wait for pipes and consoles, so a thread hands them over there.
    """

    def __init__(self, stream: TextIO) -> None:
        self.is_terminal = stream.isatty()
        self._descriptor = stream.fileno()
        self._unread = b""
        self._pair = SocketPair() if PORTABLE else None
        if self._pair is not None:
            target = self._pair.ends[1]
            target.setblocking(True)
            threading.Thread(target=self._relay, args=(target,), daemon=True).start()

    def fileno(self) -> int:
        """Readable while :meth:`lines` does not wait."""
        return self._descriptor if self._pair is None else self._pair.fileno()

    def lines(self) -> list[bytes] | None:
        """The commands that have arrived; ``None`` at the end of the stream."""
        if self._pair is None:
            data = os.read(self._descriptor, _CHUNK)
        else:
            data = self._pair.ends[0].recv(_CHUNK)
        if not data:
            return None
        *lines, self._unread = (self._unread + data).split(b"\n")
        return lines

    def close(self) -> None:
        """Leaves the stream open."""
        if self._pair is not None:
            self._pair.close()

    def _relay(self, target: socket) -> None:
        """Unbuffered: the interpreter cannot exit while a thread waits inside a buffered read."""
        try:
            while data := os.read(self._descriptor, _CHUNK):
                target.sendall(data)
            target.shutdown(SHUT_WR)
        except OSError:  # the simulation has ended
            return
