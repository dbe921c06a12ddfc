"""What all listening sockets have: they stay where they are found, and bound their connections."""

from __future__ import annotations

import errno
import socket as sockets
from collections.abc import Container
from typing import Final, Protocol

from canbroker.errors import CanInitializationError
from canbroker.system import clock
from canbroker.transport.address import TcpAddress

#: How often the socket's file is checked.
LOOK_NS: Final = clock.SECOND

#: How libzmq takes a port. On Windows, the option of POSIX would take that of another program.
_AS_LIBZMQ: Final[int] = getattr(sockets, "SO_EXCLUSIVEADDRUSE", sockets.SO_REUSEADDR)


class Listening(Protocol):
    """Keeps a bound socket reachable at its path, with no more than :attr:`at_most` connections.
    Used on the socket's thread."""

    at_most: int

    def __len__(self) -> int: ...

    def peers(self) -> list[int]:
        """Ids of the connected processes, each once; 0 is a process of another container. Empty
        where the system does not tell."""

    def attend(self, ready: Container[object] = ()) -> None:
        """Counts connections, and makes sure that the socket is found where it should be. Call it
        every :data:`LOOK_NS`, and when a waiter reports something.

        :param ready: what the waiter has found readable.
        """


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
