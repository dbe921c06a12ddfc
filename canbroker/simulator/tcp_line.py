"""A line over TCP on this host, where there are no pseudo-terminals: ``socket://127.0.0.1:PORT``.

pyserial opens that everywhere. One program has it open at a time, as a serial port of Windows.
"""

from __future__ import annotations

import contextlib
import select
import socket
from collections.abc import Sequence
from typing import Final

from canbroker.errors import CanInitializationError

_HOST: Final = "127.0.0.1"
_CHUNK: Final = 65_536


class TcpLine:
    """Listens while it is plugged in, at the same port again after a replug."""

    def __init__(self) -> None:
        self.path = ""
        self._port = 0
        self._listening: socket.socket | None = None
        self._host: socket.socket | None = None
        self._was_opened = False

    @property
    def closed(self) -> bool:
        return self._listening is None

    def open(self) -> None:
        """See :class:`Line`."""
        try:
            listening = socket.create_server((_HOST, self._port))
        except OSError as error:
            raise CanInitializationError(
                f"cannot listen at {_HOST}:{self._port}: {error.strerror}"
            ) from error
        listening.setblocking(False)
        self._listening = listening
        self._port = listening.getsockname()[1]
        self.path = f"socket://{_HOST}:{self._port}"

    def close(self) -> None:
        """See :class:`Line`."""
        self._hang_up()
        if self._listening is not None:
            self._listening.close()
            self._listening = None

    def sources(self, wants_data: bool) -> Sequence[int]:
        """See :class:`Line`."""
        found = [self._listening] if self._listening is not None else []
        if wants_data and self._host is not None:
            found.append(self._host)
        return [each.fileno() for each in found]

    def targets(self) -> Sequence[int]:
        """See :class:`Line`."""
        return [] if self._host is None else [self._host.fileno()]

    def was_opened(self) -> bool:
        """See :class:`Line`."""
        self._accept()
        was_opened, self._was_opened = self._was_opened, False
        return was_opened

    def has_data(self) -> bool:
        """See :class:`Line`."""
        return self._host is not None and bool(select.select([self._host], [], [], 0)[0])

    def read(self) -> bytes:
        """See :class:`Line`."""
        data = b""
        while self._host is not None and self.has_data() and len(data) < _CHUNK:
            try:
                received = self._host.recv(_CHUNK)
            except OSError:  # the host has ended without closing
                received = b""
            if not received:
                self._hang_up()
            data += received
        return data

    def write(self, data: bytes) -> int:
        """See :class:`Line`."""
        if self._host is None:
            return 0
        try:
            return self._host.send(data)
        except BlockingIOError:
            return 0
        except OSError:  # the host has ended without closing
            self._hang_up()
            return 0

    def _accept(self) -> None:
        while self._listening is not None:
            try:
                host, _ = self._listening.accept()
            except BlockingIOError:
                return
            if self._host is not None and not self._has_ended():
                host.close()  # another program has it open
                continue
            self._hang_up()
            host.setblocking(False)
            with contextlib.suppress(OSError):  # it has closed its end already
                host.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._host, self._was_opened = host, True

    def _has_ended(self) -> bool:
        """Whether the host has closed its end, and all that it had written was read."""
        if self._host is None or not select.select([self._host], [], [], 0)[0]:
            return False
        try:
            return not self._host.recv(1, socket.MSG_PEEK)
        except OSError:
            return True

    def _hang_up(self) -> None:
        if self._host is not None:
            self._host.close()
            self._host = None
