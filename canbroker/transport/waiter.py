"""Waiting for several sockets and descriptors at once."""

from __future__ import annotations

import errno
import select
import time
from typing import Final, Protocol

import zmq

from canbroker.system import clock
from canbroker.system.descriptors import selectable
from canbroker.system.portable import PORTABLE
from canbroker.transport.sockets import FOLLOW_NS, Socket, follow

#: Shorter waits end exactly in time, to the microsecond.
_EXACT_NS: Final = 10 * clock.MILLISECOND


class Descriptor(Protocol):
    """Something with a file descriptor to poll."""

    def fileno(self) -> int: ...


class Waiter:
    """Waits until one of several sockets or descriptors is readable. One thread."""

    def __init__(self) -> None:
        self._poller = zmq.Poller()
        self._watched: dict[Socket | int, object] = {}
        self._descriptors: list[int] = []
        self._resting: dict[Socket | int, int] = {}  # monotonic ns
        self._follow_ns = 0

    def add(self, item: Socket | Descriptor | int) -> None:
        key = item if isinstance(item, (int, zmq.Socket)) else item.fileno()
        self._poller.register(key, zmq.POLLIN)
        self._watched[key] = item
        self._list_descriptors()

    def remove(self, item: Socket | Descriptor | int) -> None:
        """Forgets ``item``; call it while its descriptor is still open."""
        key = item if isinstance(item, (int, zmq.Socket)) else item.fileno()
        if self._resting.pop(key, None) is None:
            self._poller.unregister(key)
        del self._watched[key]
        self._list_descriptors()

    def rest(self, item: Socket, for_ns: int) -> None:
        """Ignores ``item`` for ``for_ns``, as handling its messages costs too much time."""
        if item not in self._resting:
            self._resting[item] = clock.monotonic_ns() + for_ns
            self._poller.unregister(item)
            self._list_descriptors()

    def wait(self, timeout_ns: int | None) -> set[object]:
        """The added items that are readable; empty after ``timeout_ns`` (``None``: never).

        :raises OSError: Windows: an item's descriptor was closed without :meth:`remove`.
        """
        return self._wait_and_follow(timeout_ns) if PORTABLE else self._wait(timeout_ns)

    def _wait_and_follow(self, timeout_ns: int | None) -> set[object]:
        """As :meth:`wait`. Looks meanwhile whether sockets have to be connected anew."""
        deadline = None if timeout_ns is None else clock.monotonic_ns() + timeout_ns
        while True:
            now = clock.monotonic_ns()
            if now >= self._follow_ns:
                self._follow_ns = now + FOLLOW_NS
                for key in self._watched:
                    if isinstance(key, zmq.Socket):
                        follow(key)
            left = None if deadline is None else max(0, deadline - now)
            patience = self._follow_ns - now
            if left is not None and left <= patience:
                return self._wait(left)
            ready = self._wait(patience)
            if ready:
                return ready

    def _wait(self, timeout_ns: int | None) -> set[object]:
        if self._resting:
            timeout_ns = self._until_rested(timeout_ns)
        if timeout_ns is None:
            return self._ready(-1)
        if timeout_ns <= 0 or timeout_ns > _EXACT_NS:
            return self._ready(max(0, timeout_ns // clock.MILLISECOND))
        # poll() counts in milliseconds, select() in microseconds. A ZeroMQ socket's descriptor is
        # readable only when something changes, so the sockets are polled before select().
        ready = self._ready(0)
        if not ready:
            if self._descriptors:
                select.select(self._descriptors, (), (), timeout_ns / clock.SECOND)
            else:  # which select() of Windows refuses
                time.sleep(timeout_ns / clock.SECOND)
            ready = self._ready(0)
        return ready

    def _until_rested(self, timeout_ns: int | None) -> int | None:
        """Watches items again that have rested long enough; returns how long to wait at most."""
        now = clock.monotonic_ns()
        rested = [item for item, until_ns in self._resting.items() if until_ns <= now]
        for item in rested:
            del self._resting[item]
            self._poller.register(item, zmq.POLLIN)
        if rested:
            self._list_descriptors()
        left = [until_ns - now for until_ns in self._resting.values()]
        return min(left if timeout_ns is None else [*left, timeout_ns], default=timeout_ns)

    def _list_descriptors(self) -> None:
        """Lists the descriptors for select(), which cannot watch all when there are many."""
        keys = self._watched.keys() - self._resting.keys()
        descriptors = (key if isinstance(key, int) else key.fileno() for key in keys)
        self._descriptors = selectable(descriptors)

    def _ready(self, milliseconds: int) -> set[object]:
        try:
            return {self._watched[key] for key, _ in self._poller.poll(milliseconds)}
        except zmq.ZMQError as error:
            if error.errno != errno.ENOTSOCK:
                raise
            raise OSError(errno.EBADF, "a descriptor was closed") from error
