"""A descriptor for event loops that covers ZeroMQ sockets and messages already decoded."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Protocol, cast

import zmq

from canbroker.system.poll_set import poll_set
from canbroker.system.portable import PORTABLE
from canbroker.system.wake import Wake
from canbroker.transport.sockets import Socket


class Watch(Protocol):
    """A thread that watches descriptors."""

    def arm(self, descriptor: int, job: Callable[[], None]) -> None:
        """Calls ``job`` once, when ``descriptor`` is readable."""

    def disarm(self, descriptor: int, job: Callable[[], None] | None = None) -> None:
        """Forgets a descriptor that was armed with ``job``."""


class WatchedReadiness:
    """Readable when a socket may have a message, and while :meth:`update` has said so.

    The descriptor of a ZeroMQ socket is edge-triggered: it becomes readable when the first message
    arrives, and not while more are waiting. So the receiver reports after each message whether
    there are more.

    Here, the system cannot poll a set of descriptors as one. The descriptor is that of a flag. A
    thread sets it when one of the others becomes readable, and watches that again when somebody
    has looked and found nothing.
    """

    def __init__(self, more: Wake, watch: Callable[[], Watch]) -> None:
        """
        :param more: also makes it readable, and may be set for other reasons.
        :param watch: finds what watches the descriptors.
        :raises CanOperationError: no descriptor is left.
        """
        self._more = more
        self._watch = watch()
        self._watched: dict[Socket, int] = {}
        self._happened = Wake()
        self._noted = self._happened.set

    def watch(self, sockets: Iterable[Socket]) -> None:
        """Also watches these sockets. Closed sockets are forgotten without a call."""
        for socket in list(self._watched):
            if socket.closed:
                self._watch.disarm(self._watched.pop(socket), self._noted)
        for socket in sockets:
            if socket not in self._watched:
                self._watched[socket] = _descriptor(socket)
        self._arm()

    def fileno(self) -> int:
        return self._happened.fileno()

    def update(self, more: bool) -> None:
        if more:
            self._more.set()
            self._happened.set()
        else:
            self._more.clear()
            self._happened.clear()
            self._arm()  # after that: what has come meanwhile is noted again

    def close(self) -> None:
        for descriptor in (*self._watched.values(), self._more.fileno()):
            self._watch.disarm(descriptor, self._noted)
        self._watched.clear()
        self._happened.close()

    def _arm(self) -> None:
        for descriptor in (*self._watched.values(), self._more.fileno()):
            self._watch.arm(descriptor, self._noted)


class PolledReadiness:
    """As :class:`WatchedReadiness`, where the system can poll a set as one, without a thread."""

    def __init__(self, more: Wake, watch: Callable[[], Watch]) -> None:
        """:raises CanOperationError: no descriptor is left."""
        del watch  # not needed here
        self._more = more
        self._watched: set[Socket] = set()
        self._set = poll_set()
        self._set.add(more.fileno())

    def watch(self, sockets: Iterable[Socket]) -> None:
        for socket in sockets:
            if socket not in self._watched:
                self._watched = {other for other in self._watched if not other.closed}
                self._watched.add(socket)
                self._set.add(_descriptor(socket))

    def fileno(self) -> int:
        return self._set.fileno()

    def update(self, more: bool) -> None:
        if more:
            self._more.set()
        else:
            self._more.clear()

    def close(self) -> None:
        self._set.close()


if TYPE_CHECKING or PORTABLE:  # noqa: SIM108 - mypy reads it
    Readiness = WatchedReadiness
else:
    Readiness = PolledReadiness


def _descriptor(socket: Socket) -> int:
    return cast(int, socket.getsockopt(zmq.FD))
