"""A descriptor for event loops, made of ZeroMQ sockets and what is already decoded."""

from __future__ import annotations

import select
from collections.abc import Iterable
from typing import cast

import zmq

from canbroker.errors import CanOperationError
from canbroker.system import handles
from canbroker.system.wake import Wake
from canbroker.transport.sockets import Socket


class Readiness:
    """Readable when a socket may have something, and for as long as it was told that one has.

    The descriptor of a ZeroMQ socket is edge-triggered: it is readable once when the first
    message comes, and silent while more are waiting. So the receiver says after each message
    whether there is more, with :meth:`update`.
    """

    def __init__(self, more: Wake) -> None:
        """``more``: makes it readable, too, and may be set for other reasons.

        :raises CanOperationError: there is no descriptor left.
        """
        self._more = more
        self._watched: set[Socket] = set()
        self._epoll: select.epoll | None = None
        if hasattr(select, "epoll"):
            try:
                self._epoll = select.epoll()
            except OSError as error:
                raise CanOperationError(f"no descriptor: {handles.explained(error)}") from error
            self._epoll.register(more.fileno(), select.EPOLLIN)

    def watch(self, sockets: Iterable[Socket]) -> None:
        """Looks at these, too. Those that are closed are forgotten by themselves."""
        for socket in sockets:
            if socket not in self._watched and self._epoll is not None:
                self._watched = {other for other in self._watched if not other.closed}
                self._watched.add(socket)
                self._epoll.register(cast(int, socket.getsockopt(zmq.FD)), select.EPOLLIN)

    def fileno(self) -> int:
        """The descriptor; -1 where the system cannot poll a set of descriptors as one."""
        return -1 if self._epoll is None else self._epoll.fileno()

    def update(self, more: bool) -> None:
        if more:
            self._more.set()
        else:
            self._more.clear()

    def close(self) -> None:
        if self._epoll is not None:
            self._epoll.close()
