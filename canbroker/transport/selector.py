"""Waiting for many sockets, at a cost that does not grow with their number."""

from __future__ import annotations

from typing import Generic, TypeVar, cast

import zmq

from canbroker.system import clock
from canbroker.system.pollers import AT_ONCE, READ, WRITE, poller
from canbroker.system.portable import PORTABLE
from canbroker.transport.sockets import FOLLOW_NS, Socket, follow, readable
from canbroker.transport.waiter import Descriptor

_T = TypeVar("_T")


class SocketSelector(Generic[_T]):
    """Reports the owners of sockets that may have something to read. One thread.

    The descriptor of a ZeroMQ socket tells only that something has changed, and using the socket
    takes that away. So each socket is looked at again until nothing is left; call :meth:`used`
    after sending by one, and :meth:`seen` where it was looked at anyway. Other descriptors are
    reported as long as they are readable.
    """

    def __init__(self) -> None:
        self._poller = poller()
        self._plain: dict[int, tuple[int, _T]] = {}  # what is awaited of each, and its owner
        self._again: dict[_T, None] = {}
        self._sockets: dict[int, tuple[Socket, _T]] = {}
        self._numbers: dict[int, int] = {}  # descriptors of sockets, by id()
        self._changed: dict[int, None] = {}  # sockets that may have something, in order
        self._paused: set[int] = set()
        self._follow_ns = 0

    def watch(self, descriptor: Descriptor, owner: _T, *, writable: bool = False) -> None:
        """Watches something that is readable as long as there is something to read; ``writable``:
        also reports when it can be written. May be called again, to change that."""
        number = descriptor.fileno()
        events = READ | WRITE if writable else READ
        before = self._plain.get(number)
        self._plain[number] = events, owner
        if before is None:
            self._poller.register(number, events)
        elif before[0] != events:
            self._poller.modify(number, events)

    def unwatch(self, descriptor: Descriptor) -> None:
        """Forgets what was given to :meth:`watch`, if it was, before it is closed."""
        number = descriptor.fileno()
        if self._plain.pop(number, None) is not None:
            self._poller.unregister(number)

    def again(self, owner: _T) -> None:
        """Reports this owner next time, whatever is readable."""
        self._again[owner] = None

    def add(self, socket: Socket, owner: _T) -> None:
        """Watches a socket until :meth:`remove`."""
        number = self._numbers[id(socket)] = _descriptor(socket)
        self._sockets[number] = socket, owner
        self._poller.register(number, READ)
        self._changed[number] = None

    def used(self, socket: Socket) -> None:
        """The socket has sent something."""
        self._changed[self._numbers[id(socket)]] = None

    def seen(self, socket: Socket) -> None:
        """The socket has nothing to read, and was not used since it was looked at."""
        self._changed.pop(self._numbers[id(socket)], None)

    def pause(self, socket: Socket) -> None:
        """Does not report the socket until :meth:`resume`."""
        self._paused.add(_descriptor(socket))

    def resume(self, socket: Socket) -> None:
        number = _descriptor(socket)
        self._paused.discard(number)
        self._changed[number] = None

    def remove(self, socket: Socket) -> None:
        """Forgets the socket, before it is closed."""
        number = _descriptor(socket)
        if self._sockets.pop(number, None) is not None:
            self._poller.unregister(number)
            del self._numbers[id(socket)]
            self._changed.pop(number, None)
            self._paused.discard(number)

    def wait(self, timeout_ns: int) -> list[_T]:
        """The owners of what is readable; empty when ``timeout_ns`` is over."""
        if PORTABLE:
            now = clock.monotonic_ns()
            if now >= self._follow_ns:
                self._follow_ns = now + FOLLOW_NS
                for socket, _ in self._sockets.values():
                    follow(socket)
            timeout_ns = min(timeout_ns, self._follow_ns - now)
        ready = self._readable() if self._changed else []
        if self._again:
            ready += self._again
            self._again.clear()
        seconds = 0.0 if ready or timeout_ns <= 0 else timeout_ns / clock.SECOND
        for number, _ in self._poller.poll(seconds, AT_ONCE):
            plain = self._plain.get(number)
            if plain is not None:
                ready.append(plain[1])
            elif number not in self._changed:  # most likely, a message has arrived
                self._changed[number] = None
                socket, owner = self._sockets[number]
                if number in self._paused:
                    readable(socket)  # else its descriptor stays ready
                else:
                    ready.append(owner)
        return ready

    def close(self) -> None:
        self._poller.close()

    def _readable(self) -> list[_T]:
        """The owners of sockets that have something to read, of those that may have."""
        ready: list[_T] = []
        for number in list(self._changed):
            socket, owner = self._sockets[number]
            is_readable = readable(socket)  # also of a paused one, as above
            if number in self._paused:
                continue
            if is_readable:
                ready.append(owner)
            else:
                del self._changed[number]
        return ready


def _descriptor(socket: Socket) -> int:
    return cast("int", socket.getsockopt(zmq.FD))
