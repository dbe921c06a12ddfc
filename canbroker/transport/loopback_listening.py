"""Keeps sockets that listen on ports of this host to be found, and limits their connections."""

from __future__ import annotations

import logging
import socket as sockets
from collections.abc import Container
from contextlib import suppress
from typing import Final

import zmq

from canbroker.errors import CanInitializationError
from canbroker.system import clock
from canbroker.system.descriptors import duplicated_socket, share
from canbroker.system.endpoint_files import KEY_FILE, publish, read
from canbroker.system.throttle import Throttle
from canbroker.transport import loopback
from canbroker.transport.address import IpcAddress
from canbroker.transport.listening import LOOK_NS
from canbroker.transport.monitor import close_monitor, events_of, open_monitor
from canbroker.transport.shared import endpoint_of
from canbroker.transport.sockets import Socket

_EVENTS: Final = zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED

_logger = logging.getLogger(__name__)


class LoopbackListening:
    """A :class:`~canbroker.transport.listening.Listening` of a port.

    Connections beyond the limit are ended as soon as they are accepted, and are made again later.
    A file that was removed is written again, and so is the directory's key.
    """

    def __init__(self, socket: Socket, endpoint: IpcAddress) -> None:
        """``socket`` is bound to ``endpoint``.

        :raises CanInitializationError: no descriptors are left. The socket is closed.
        """
        self.at_most = share()
        self._socket = socket
        self._path = endpoint.path
        self._bound = endpoint_of(socket)
        self._connections: set[int] = set()  # descriptors
        self._noted = Throttle(_logger, 10.0)
        self._look_at = 0
        try:
            key = loopback.FabricKey.load(self._path.parent)
            self.monitor = open_monitor(socket, _EVENTS)
        except (zmq.ZMQError, CanInitializationError) as error:
            socket.close()
            raise CanInitializationError(f"cannot listen on {endpoint}: {error}") from error
        self._key = key

    def __repr__(self) -> str:
        return f"<LoopbackListening {self._bound} connections={len(self)} of {self.at_most}>"

    def __len__(self) -> int:
        return len(self._connections)

    def peers(self) -> list[int]:
        return []

    def attend(self, ready: Container[object] = ()) -> None:
        if self.monitor in ready:
            self._follow()
        now = clock.monotonic_ns()
        if now >= self._look_at:
            self._look_at = now + LOOK_NS
            self._be_found()

    def close(self) -> None:
        try:
            loopback.withdraw(self._path, self._bound)
        except (OSError, CanInitializationError) as error:  # the directory is gone, say
            _logger.debug("cannot withdraw %s: %s", self._path, error)
        close_monitor(self._socket, self.monitor)

    def _follow(self) -> None:
        for event, descriptor in events_of(self.monitor):
            if event != zmq.EVENT_ACCEPTED:
                self._connections.discard(descriptor)
                continue
            self._connections.add(descriptor)
            if len(self) > self.at_most:
                self._turn_away(descriptor)

    def _turn_away(self, descriptor: int) -> None:
        self._noted.note(
            f"a connection to {self._path} was ended",
            f"it has {self.at_most}, all that the limit of open files allows",
        )
        ours = duplicated_socket(descriptor)
        if ours is None:
            return
        with ours, suppress(OSError):  # the other end is gone
            if ours.family == sockets.AF_INET:
                ours.shutdown(sockets.SHUT_RDWR)

    def _be_found(self) -> None:
        """Writes the files again that somebody has removed, or replaced."""
        try:
            if self._key is not None and not (self._path.parent / KEY_FILE).exists():
                self._key.write(self._path.parent)
            if self._path.exists() and read(self._path) is not None:
                return
            publish(self._path, self._bound)
        except (OSError, CanInitializationError) as error:  # the directory is gone; it may return
            self._noted.note(f"the file {self._path} was removed", str(error))
            return
        _logger.warning("the file %s was removed; it is there again", self._path)
