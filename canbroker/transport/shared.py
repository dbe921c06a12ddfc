"""The ZeroMQ context that all clients of a process share, also across forks.

A context has two threads and five descriptors. It is made for the first client and ended after the
last one has closed its sockets, so that ending it does not block.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast
from weakref import WeakSet

import zmq
import zmq.backend

from canbroker.system import handles
from canbroker.system.client_sockets import client_sockets
from canbroker.system.undisturbed import signals_blocked, undisturbed

if TYPE_CHECKING:
    from canbroker.transport.loopback import Reached

#: libzmq's default is 1,023 for a context: 340 buses.
MAX_SOCKETS: Final = 16_384

#: ``ZMQ_ZERO_COPY_RECV``, of which PyZMQ does not tell. By default a message that waits keeps all
#: 8 KiB alive that libzmq has read with it.
_ZERO_COPY_RECV: Final = 10

#: Descriptors of a context: its two threads poll, and each of the three mailboxes is one.
_DESCRIPTORS: Final = 5

_Raw: TypeAlias = "zmq.Context[QuietSocket]"


class QuietSocket(zmq.Socket[bytes]):
    """A socket that closes with its object, without a warning, which might be raised instead.

    If the exception of a signal handler has lost a socket, :class:`Shared` closes it.
    """

    #: The user that it was opened for.
    user: object = None

    #: What it has connected to by loopback TCP.
    reached: Reached | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        with handles.fork_lock:
            _sockets.add(self)
        super().__init__(*args, **kwargs)

    def close(self, linger: int | None = None) -> None:
        super().close(linger)
        with (
            handles.fork_lock
        ):  # not in a callback of the garbage collector, which would run Python code
            _sockets.discard(self)

    # Not a Python function: the exception of a signal handler in it would be lost.
    __del__ = zmq.backend.Socket.close


def endpoint_of(socket: zmq.Socket[bytes]) -> str:
    """What ``socket`` was bound or connected to last, as ZeroMQ spells it; empty: nothing."""
    return cast("bytes", socket.getsockopt(zmq.LAST_ENDPOINT)).rstrip(b"\0").decode()


class _QuietContext(zmq.Context[QuietSocket]):
    """Ends like a :class:`QuietSocket`; a context that is lost has no sockets."""

    __del__ = zmq.backend.Context.term


class Shared:
    """The context, as long as it has users. Any thread."""

    def __init__(self) -> None:
        self.endpoints: set[str] = set()  # paths or ports of the connected sockets
        self._users: WeakSet[object] = WeakSet()
        self._context: _Raw | None = None
        self._of_parents: list[_Raw] = []  # [forked child] referred to, as pyzmq would end them

    def open(self, user: object, kind: int) -> QuietSocket:
        """A socket for ``user``, which calls :meth:`leave` when all of its sockets are closed.

        :raises CanOperationError: there are no descriptors left.
        :raises zmq.ZMQError: the same, or there are too many sockets.
        """
        with handles.fork_lock:
            self._users.add(user)
            context = self._context
            if context is None:
                handles.register(_note_unconnected, _forget)
                # Checked first: libzmq aborts the process if its own threads get none.
                handles.require(_DESCRIPTORS + 1, "ZeroMQ")
                context = self._context = _QuietContext(io_threads=1)
                context.set(zmq.MAX_SOCKETS, MAX_SOCKETS)
                with suppress(zmq.ZMQError):  # a libzmq without this option
                    context.set(_ZERO_COPY_RECV, 0)
            socket = context.socket(kind, socket_class=QuietSocket)
            socket.user = user
            return socket

    def leave(self, user: object) -> None:
        """Closes the sockets of a user; ends the context after its last user. Idempotent."""
        with handles.fork_lock:
            sockets_of_it = [socket for socket in _sockets if socket.user is user]
        for socket in sockets_of_it:
            socket.close()
        with handles.fork_lock:
            self._users.discard(user)
            over = not self._users and self._context is not None
        if over:
            undisturbed(self._end)

    def forget(self) -> None:
        """[forked child] Leaves the context to the parent; the next client gets another one."""
        if self._context is not None:
            self._of_parents.append(self._context)
        self._context, self._users, self.endpoints = None, WeakSet(), set()

    def _end(self) -> None:
        # A signal handled by this thread would interrupt the end, which cannot be continued: PyZMQ
        # has forgotten the context by then.
        with signals_blocked():
            with handles.fork_lock:
                if self._users or self._context is None:
                    return
                context, self._context = self._context, None
                self.endpoints.clear()
                lost = [socket for socket in _sockets if socket.context is context]
            for socket in lost:  # by an exception
                socket.close(linger=0)
            context.term()


shared: Final = Shared()
_sockets: WeakSet[QuietSocket] = WeakSet()

# ---------------------------------------------------------------------------------------- forks

#: Inodes of the sockets that were not connected just before a fork.
_unconnected: set[int] = set()


def _note_unconnected() -> None:
    """[before a fork] libzmq's thread may be connecting a socket at the same time."""
    _unconnected.clear()
    if shared.endpoints:
        _unconnected.update(each.inode for each in client_sockets() if each.peer is None)


def _forget() -> None:
    """[forked child] Closes the connections of libzmq, and the mailboxes of its sockets.

    A descriptor in the child would keep a connection open after the parent has closed it. The
    parent's descriptors are not affected: nothing is shut down, and no epoll set is changed. The
    context's own five descriptors stay open, as their numbers are not known; they have no peers.
    """
    # A socket that is not connected and did not exist just before the fork was made by a thread
    # that exists only in the parent.
    numbers = [
        each.descriptor
        for each in (client_sockets() if shared.endpoints else ())
        if each.peer in shared.endpoints or (each.peer is None and each.inode not in _unconnected)
    ]
    numbers += [
        int(socket.getsockopt(zmq.FD))
        for socket in list(_sockets)
        if socket.context is shared._context and not socket.closed
    ]
    for number in numbers:
        with suppress(OSError):
            os.close(number)
    shared.forget()
