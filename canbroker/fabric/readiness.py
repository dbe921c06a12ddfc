"""A descriptor for event loops, made of ZeroMQ sockets and what is already decoded."""

from __future__ import annotations

import select
from collections.abc import Iterable
from typing import cast

import zmq

from canbroker.fabric.sockets import Socket
from canbroker.wake import Wake


class Readiness:
    """Readable when a socket may have something, and for as long as it was told that one has.

    The descriptor of a ZeroMQ socket is edge-triggered: it is readable once when the first
    message comes, and silent while more are waiting. So the receiver says after each message
    whether there is more, with :meth:`update`.
    """

    def __init__(self, sockets: Iterable[Socket]) -> None:
        self._more = Wake()
        self._epoll = select.epoll() if hasattr(select, "epoll") else None
        if self._epoll is not None:
            for socket in sockets:
                self._epoll.register(cast(int, socket.getsockopt(zmq.FD)), select.EPOLLIN)
            self._epoll.register(self._more.fileno(), select.EPOLLIN)

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
        self._more.close()
