"""Waiting for several sockets and descriptors at once.

The system waits for descriptors only. That of a ZeroMQ socket tells that something has happened to
the socket, which looking at it takes away again; so sockets are looked at before each wait, and
after it those that something has happened to. libzmq's own function does the same, but asks the
system twice for each wait, and looks at all sockets each time.
"""

from __future__ import annotations

import errno
import select
import time
from typing import Any, Final, Protocol, cast

import zmq
from zmq.backend import zmq_poll

from canbroker.system import clock
from canbroker.system.descriptors import BY_SELECT, POLL, selectable
from canbroker.system.portable import PORTABLE
from canbroker.transport.sockets import FOLLOW_NS, Socket, follow, has_message

#: Shorter waits always end exactly in time, to the microsecond.
_EXACT_NS: Final = 10 * clock.MILLISECOND

#: The longest wait that poll() takes: 24 days.
_MAX_MS: Final = (1 << 31) - 1

#: Waits for descriptors; both have the methods that are used here.
_POLLER: Final[Any] = POLL or zmq.Poller


class Descriptor(Protocol):
    """Something with a file descriptor to poll."""

    def fileno(self) -> int: ...


class Waiter:
    """Waits until one of several sockets or descriptors is readable. One thread."""

    def __init__(self) -> None:
        self._poller = _POLLER()
        self._numbers: dict[object, int] = {}  # descriptors of the items
        self._watched: dict[int, object] = {}  # the same the other way round, but for resting ones
        self._sockets: dict[int, Socket] = {}  # those of them that are sockets
        self._looked_at: list[tuple[Socket, int]] = []  # the same, and for what
        self._selectable: list[int] = []
        self._resting: dict[object, int] = {}  # until when, monotonic ns
        self._follow_ns = 0

    def add(self, item: Socket | Descriptor | int) -> None:
        self._numbers[item] = number = _number(item)
        self._watch(item, number)

    def remove(self, item: Socket | Descriptor | int) -> None:
        """Forgets ``item``; call it while its descriptor is still open."""
        number = self._numbers.pop(item)
        if self._resting.pop(item, 0):
            return
        if self._watched.get(number) is item:  # else it was closed before, and another has it
            self._forget(number)

    def rest(self, item: object, for_ns: int) -> None:
        """Ignores ``item`` for ``for_ns``, as handling its messages costs too much time."""
        if item not in self._resting:
            self._resting[item] = clock.monotonic_ns() + for_ns
            self._forget(self._numbers[item])

    def wait(self, timeout_ns: int | None, *, is_seen: bool = False) -> set[object]:
        """The added items that are readable; empty after ``timeout_ns`` (``None``: never).

        :param is_seen: no socket had a message when it was looked at last, and none was used since.
        :raises OSError: Windows: an item's descriptor was closed without :meth:`remove`.
        """
        wait = self._wait_and_follow if PORTABLE else self._wait
        return wait(timeout_ns, is_seen)

    def _wait_and_follow(self, timeout_ns: int | None, is_seen: bool) -> set[object]:
        """As :meth:`wait`. Looks meanwhile whether sockets have to be connected anew."""
        deadline = None if timeout_ns is None else clock.monotonic_ns() + timeout_ns
        while True:
            now = clock.monotonic_ns()
            if now >= self._follow_ns:
                self._follow_ns = now + FOLLOW_NS
                for socket in self._sockets.values():
                    follow(socket)
                is_seen = False  # a socket that was connected anew was used
            left = None if deadline is None else max(0, deadline - now)
            patience = self._follow_ns - now
            if left is not None and left <= patience:
                return self._wait(left, is_seen)
            ready = self._wait(patience, is_seen)
            if ready:
                return ready

    def _wait(self, timeout_ns: int | None, is_seen: bool) -> set[object]:
        if self._resting:
            timeout_ns = self._until_rested(timeout_ns)
        ready: set[object] = set()
        if not is_seen and self._looked_at:
            ready.update(socket for socket, _ in zmq_poll(self._looked_at, 0))
        if ready:
            timeout_ns = 0
        deadline = None if timeout_ns is None else clock.monotonic_ns() + timeout_ns
        while True:
            for number in self._happened(timeout_ns):
                socket = self._sockets.get(number)
                if socket is None or has_message(socket):
                    ready.add(self._watched[number])
            if ready or timeout_ns == 0:
                return ready
            if deadline is not None:
                timeout_ns = max(0, deadline - clock.monotonic_ns())

    def _happened(self, timeout_ns: int | None) -> list[int]:
        """The descriptors that are readable, after ``timeout_ns`` at most."""
        is_all = len(self._selectable) == len(self._watched)
        if not (is_all and BY_SELECT):
            if timeout_ns is None:
                return self._polled(-1)
            if timeout_ns <= 0:
                return self._polled(0)
            # poll() counts in milliseconds, select() in microseconds; a long wait that ends too
            # early is a wake-up more.
            if not is_all and timeout_ns > _EXACT_NS:
                return self._polled(min(timeout_ns // clock.MILLISECOND, _MAX_MS))
            if not self._selectable:  # which select() of Windows refuses
                time.sleep(timeout_ns / clock.SECOND)
                return self._polled(0)
        seconds = None if timeout_ns is None else max(0, timeout_ns) / clock.SECOND
        try:
            found, _, _ = select.select(self._selectable, (), (), seconds)
        except OSError:  # one was closed: poll() tells which, where it can
            return self._polled(0)
        return found if is_all else self._polled(0)

    def _polled(self, milliseconds: int) -> list[int]:
        try:
            return [number for number, _ in self._poller.poll(milliseconds)]
        except zmq.ZMQError as error:
            if error.errno != errno.ENOTSOCK:
                raise
            raise OSError(errno.EBADF, "a descriptor was closed") from error

    def _until_rested(self, timeout_ns: int | None) -> int | None:
        """Watches items again that have rested long enough; returns how long to wait at most."""
        now = clock.monotonic_ns()
        for item in [item for item, until_ns in self._resting.items() if until_ns <= now]:
            del self._resting[item]
            self._watch(item, self._numbers[item])
        left = [until_ns - now for until_ns in self._resting.values()]
        return min(left if timeout_ns is None else [*left, timeout_ns], default=timeout_ns)

    def _watch(self, item: object, number: int) -> None:
        self._poller.register(number, zmq.POLLIN)
        self._watched[number] = item
        self._sockets.pop(number, None)
        if isinstance(item, zmq.Socket):
            self._sockets[number] = item
        self._changed()

    def _forget(self, number: int) -> None:
        self._poller.unregister(number)
        del self._watched[number]
        self._sockets.pop(number, None)
        self._changed()

    def _changed(self) -> None:
        self._looked_at = [(socket, zmq.POLLIN) for socket in self._sockets.values()]
        self._selectable = selectable(self._watched)


class SharedWaiter(Waiter):
    """Waits for sockets that several threads use, each in its turn.

    It does not look at them itself, as it waits outside of turns. So whoever has used such a socket
    ends its turn with :meth:`look`, and what it reports may have no message. For listening sockets:
    it does not see when others connect anew elsewhere.
    """

    def __init__(self) -> None:
        super().__init__()
        self._left: set[object] = set()  # sockets that still have messages

    def remove(self, item: Socket | Descriptor | int) -> None:
        super().remove(item)
        self._left -= {item}

    def look(self, *sockets: Socket) -> bool:
        """[in a turn] The next wait reports those of ``sockets`` that have a message; whether there
        are any. If another thread waits now, it has to be woken."""
        found = False
        for socket in sockets:
            if socket not in self._resting and has_message(socket):
                self._left.add(socket)
                found = True
        return found

    def wait(self, timeout_ns: int | None, *, is_seen: bool = False) -> set[object]:
        del is_seen  # here that is known by look()
        if self._resting:
            timeout_ns = self._until_rested(timeout_ns)
        happened = self._happened(0 if self._left else timeout_ns)
        left, self._left = self._left, set()
        watched = self._watched  # another thread may have removed one of them
        ready = {watched[number] for number in happened if number in watched}
        return ready | left

    def _watch(self, item: object, number: int) -> None:
        super()._watch(item, number)
        if isinstance(item, zmq.Socket):
            self._left.add(item)


def _number(item: Socket | Descriptor | int) -> int:
    if isinstance(item, int):
        return item
    if isinstance(item, zmq.Socket):
        return cast("int", item.getsockopt(zmq.FD))
    return item.fileno()
