"""A descriptor for event loops that covers ZeroMQ sockets and messages already decoded."""

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
    """Readable when a socket may have a message, and while :meth:`update` has said so.

    The descriptor of a ZeroMQ socket is edge-triggered: it becomes readable when the first message
    arrives, and not while more are waiting. So the receiver reports after each message whether
    there are more.
    """

    def __init__(self, more: Wake) -> None:
        """
        :param more: also makes it readable, and may be set for other reasons.
        :raises CanOperationError: no descriptor is left.
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
        """Also watches these sockets. Closed sockets are forgotten without a call."""
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
