"""Keeps listening sockets bound to their paths, and limits their connections."""

from __future__ import annotations

import errno
import logging
import socket as sockets
from collections.abc import Container
from typing import Final, Protocol

import zmq

from canbroker.errors import CanInitializationError
from canbroker.system import clock
from canbroker.system.descriptors import duplicated_socket, share
from canbroker.system.portable import PORTABLE
from canbroker.system.throttle import Throttle
from canbroker.system.unix_sockets import TELLS_PEERS, peer_of
from canbroker.transport.address import IpcAddress, TcpAddress
from canbroker.transport.monitor import close_monitor, events_of, open_monitor
from canbroker.transport.sockets import Socket

_EVENTS: Final = zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED

#: How often the socket's file is checked.
LOOK_NS: Final = clock.SECOND

#: How libzmq takes a port. On Windows, the option of POSIX would take that of another program.
_AS_LIBZMQ: Final[int] = getattr(sockets, "SO_EXCLUSIVEADDRUSE", sockets.SO_REUSEADDR)

_logger = logging.getLogger(__name__)


class Listening(Protocol):
    """Keeps a bound socket reachable at its path. Used on the socket's thread.

    libzmq aborts the process when ``accept`` runs out of descriptors, so a socket has no more
    than :attr:`at_most` connections. Watch :attr:`monitor`, and call :meth:`attend` when it is
    readable and every :data:`LOOK_NS`.
    """

    at_most: int
    monitor: Socket

    def __len__(self) -> int: ...

    def peers(self) -> list[int]:
        """Ids of the connected processes, each once; 0 is a process of another container. Empty
        where the system does not tell."""

    def attend(self, ready: Container[object] = ()) -> None:
        """Counts connections, and makes sure that the socket is found where it should be.

        :param ready: what a waiter has found readable.
        """

    def close(self) -> None:
        """Before the socket is closed."""


def listening(socket: Socket, endpoint: IpcAddress) -> Listening:
    """What keeps ``socket`` reachable, which is bound to ``endpoint``.

    :raises CanInitializationError: no descriptors are left. The socket is closed.
    """
    if PORTABLE:
        from canbroker.transport.loopback_listening import (  # noqa: PLC0415 - not loaded natively
            LoopbackListening,
        )

        return LoopbackListening(socket, endpoint)
    return UnixListening(socket, endpoint)


class UnixListening:
    """Keeps a bound Unix socket reachable at its path.

    libzmq aborts the process when ``accept`` runs out of descriptors. So while the socket has the
    most connections that it may have, its file is renamed: other peers do not find it, and try
    again later. (Unbinding the socket would end its connections.) A file that was removed is
    created again.
    """

    def __init__(self, socket: Socket, endpoint: IpcAddress) -> None:
        """``socket`` is bound to ``endpoint``.

        :raises CanInitializationError: no descriptors are left. The socket is closed.
        """
        self.at_most = share()
        self._socket = socket
        self._path = endpoint.path
        self._aside = self._path.with_name(f"{self._path.name}~")
        self._connections: dict[int, int] = {}  # descriptor -> process at the other end
        self._noted = Throttle(_logger, 10.0)
        self._look_at = 0
        self._pauses = False
        self._bound = 1  # times
        try:
            self.monitor = open_monitor(socket, _EVENTS)
        except zmq.ZMQError as error:
            socket.close()
            raise CanInitializationError(f"cannot listen on {endpoint}: {error}") from error

    def __repr__(self) -> str:
        return f"<UnixListening {self._path} connections={len(self)} of {self.at_most}>"

    def __len__(self) -> int:
        return len(self._connections)

    def peers(self) -> list[int]:
        return sorted(set(self._connections.values())) if TELLS_PEERS else []

    def attend(self, ready: Container[object] = ()) -> None:
        now = clock.monotonic_ns()
        if self.monitor in ready:
            self._follow()
        elif now < self._look_at:
            return
        if now >= self._look_at:
            self._look_at = now + LOOK_NS
            if not (self._aside if self._pauses else self._path).exists():
                self._bind_again()
        if self._pauses != (len(self) >= self.at_most):
            self._turn()

    def close(self) -> None:
        if self._pauses:
            self._turn()  # libzmq removes the file by its name
        close_monitor(self._socket, self.monitor)

    def _follow(self) -> None:
        for event, descriptor in events_of(self.monitor):
            if event == zmq.EVENT_ACCEPTED:
                self._connections[descriptor] = _peer(descriptor)
            else:
                self._connections.pop(descriptor, None)

    def _turn(self) -> None:
        """Pauses new connections, or allows them again."""
        names = (self._path, self._aside)
        try:
            names[self._pauses].rename(names[not self._pauses])
        except OSError as error:  # it was removed: the next check creates it again
            self._noted.note(f"cannot rename {names[self._pauses]}", str(error))
            return
        self._pauses = not self._pauses
        if self._pauses:
            self._noted.note(
                f"new connections to {self._path} have to wait",
                f"it has {len(self)}, all that the limit of open files allows",
            )

    def _bind_again(self) -> None:
        """Binds the socket once more. It also stays bound to the removed file, as unbinding would
        end the connections made there."""
        # Spelled differently, as libzmq considers the socket bound to the first spelling.
        spelled = f"{self._path.parent}{'/' * (self._bound + 1)}{self._path.name}"
        try:
            self._socket.bind(f"ipc://{spelled}")
        except zmq.ZMQError as error:  # for instance, the directory is gone; it may return
            self._noted.note(f"the socket {self._path} was removed", str(error))
            return
        self._bound += 1
        self._pauses = False
        _logger.warning("the socket %s was removed; it is there again", self._path)


def check_free(address: TcpAddress) -> None:
    """:raises CanInitializationError: nobody can listen at ``address`` now; says why."""
    host = None if address.host == "*" else address.host
    try:
        found = sockets.getaddrinfo(
            host, address.port, type=sockets.SOCK_STREAM, flags=sockets.AI_PASSIVE
        )
        for family, kind, protocol, _, where in found[:1]:
            with sockets.socket(family, kind, protocol) as probe:
                probe.setsockopt(sockets.SOL_SOCKET, _AS_LIBZMQ, 1)
                probe.bind(where)
                probe.listen()
    except OSError as error:
        taken = error.errno == errno.EADDRINUSE
        why = "the port is taken by another program" if taken else error.strerror
        raise CanInitializationError(f"cannot listen on {address.endpoint}: {why}") from error


def _peer(descriptor: int) -> int:
    """The id of the process at the other end of a connection, 0 if it is not known."""
    ours = duplicated_socket(descriptor)
    if ours is None:  # it has just been closed, or no descriptor is left
        return 0
    try:
        with ours:
            return peer_of(ours)
    except OSError:  # it is something else by now
        return 0
