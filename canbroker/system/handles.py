"""File descriptors with an owner: closed exactly once, and never kept open by a forked child.

A descriptor that a child inherits keeps a connection open that its parent has ended, the broker's
lock, or the end of a pipe that somebody waits for. So a forked child closes them first of all.

A signal handler may raise an exception when any call returns, even if the call has just made a
descriptor that nobody holds yet. So one call here makes a descriptor and stores it, and one call
forgets and closes it.
"""

from __future__ import annotations

import _socket
import errno
import itertools
import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final, Protocol
from weakref import WeakSet

from canbroker.errors import CanOperationError
from canbroker.system import locks
from canbroker.system.locks import Rank

if sys.platform != "win32":
    import resource  # now: later there may be no descriptor left to load it from its file
if TYPE_CHECKING or sys.platform == "win32":
    import socket  # it loads much, of which others need nothing

#: Keeps other threads from forking. Hold it for moments only. Reentrant: a signal handler or a
#: finalizer may interrupt the thread that holds it.
fork_lock = locks.make(Rank.PROCESS)


class Descriptor(Protocol):
    """What has a descriptor, and closes it."""

    def fileno(self) -> int:
        """The number, or -1 if it is closed."""

    def close(self) -> None:
        """Idempotent."""


class Handle:
    """A descriptor. Any thread. It closes, at the latest, together with this object."""

    def __init__(self, make: Callable[..., int], *arguments: Any, count: int = 1) -> None:
        """Makes the descriptor with ``make(*arguments)``, which must not be a Python function.

        :param count: how often; all of the descriptors close together.
        :raises CanOperationError: no descriptors are left, or another error of the system.
        """
        self._numbers: list[int] = []
        register()
        with fork_lock:
            _handles.add(self)
            try:
                self._numbers.extend(map(make, *(itertools.repeat(a, count) for a in arguments)))
            except OSError as error:
                self.close()
                raise CanOperationError(f"no descriptor: {explained(error)}") from error

    def fileno(self) -> int:
        """The number, or -1 if it is closed."""
        numbers = self._numbers
        return numbers[0] if numbers else -1

    def close(self) -> None:
        """Idempotent."""
        with fork_lock:
            _close_all(self._numbers)
            _handles.discard(self)  # here, not in a callback when it is collected

    def give_up(self) -> None:
        """Forgets the descriptor without closing it: somebody else does."""
        with fork_lock:
            self._numbers.clear()
            _handles.discard(self)

    def __del__(self) -> None:
        if getattr(self, "_numbers", None):
            self.close()


def adopted(number: int) -> Handle:
    """A handle for an existing descriptor. Hold :data:`fork_lock` from before it is made."""
    return Handle(int, number)


def duplicated(descriptor: int) -> Descriptor:
    """A duplicate of a descriptor that others may close; on Windows it is that of a socket.

    :raises CanOperationError: no descriptors are left, or another error of the system.
    """
    if sys.platform != "win32":
        return Handle(os.dup, descriptor)
    try:
        return _Socket(socket.fromfd(descriptor, socket.AF_INET, socket.SOCK_STREAM))
    except OSError as error:
        raise CanOperationError(f"no descriptor: {explained(error)}") from error


class _Socket:
    """A socket of Windows, where no children inherit descriptors that they were not given."""

    def __init__(self, owned: socket.socket) -> None:
        self._owned = owned

    def fileno(self) -> int:
        return self._owned.fileno()

    def close(self) -> None:
        self._owned.close()


class SocketPair:
    """Two connected sockets that do not block. Any thread. They close, at the latest, together with
    this object. On Windows they are two of TCP's."""

    def __init__(self) -> None:
        """:raises CanOperationError: no descriptors are left, or another error of the system."""
        #: The receiving end and the sending end; empty when they are closed.
        self.ends: list[_socket.socket] = []
        register()
        with fork_lock:
            _handles.add(self)
            try:
                # One call makes and stores both; on Windows, a function of Python's does.
                self.ends.extend(itertools.chain.from_iterable(itertools.starmap(_pair, [()])))
                for end in self.ends:
                    end.setblocking(False)
                    if (
                        end.family == _socket.AF_INET
                    ):  # a byte would wait for the last one's receipt
                        end.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
            except OSError as error:
                self.close()
                raise CanOperationError(f"no descriptor: {explained(error)}") from error

    def fileno(self) -> int:
        """The number of the receiving end, or -1 if it is closed."""
        ends = self.ends
        return ends[0].fileno() if ends else -1

    def close(self) -> None:
        """Idempotent."""
        with fork_lock:
            taken = map(self.ends.pop, itertools.repeat(-1, len(self.ends)))
            _exhaust(map(_socket.socket.close, taken))
            _handles.discard(self)

    def __del__(self) -> None:
        if getattr(self, "ends", None):
            self.close()


def require(count: int, what: str) -> None:
    """Makes sure that ``count`` descriptors can be opened now.

    Without descriptors libzmq ends the process, or keeps trying without an error.

    :raises CanOperationError: they cannot be opened; says that ``what`` needs them, and the limit.
    """
    try:
        opened = Handle(os.open, os.devnull, os.O_RDONLY, count=count)
    except CanOperationError as error:
        cause = error.__cause__ or error
        raise CanOperationError(f"{what} needs {count} descriptors: {explained(cause)}") from cause
    opened.close()


def shortage() -> str:
    """Why no descriptor can be opened at this moment; empty if one can."""
    try:
        require(1, "")
    except CanOperationError as error:
        return str(error.__cause__ and explained(error.__cause__))
    return ""


def explained(error: BaseException) -> str:
    """The system's error, with the limit if it is the limit of this process."""
    if not isinstance(error, OSError):
        return str(error)
    text = error.strerror or str(error)
    if sys.platform != "win32" and error.errno == errno.EMFILE:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        more = f", which may be raised to {hard:,}" if hard > soft else ""
        return f"{text}: the limit of this process is {soft:,} (ulimit -n){more}"
    return text


def _close_all(numbers: list[int]) -> None:
    """Closes and forgets them, in one call that no signal handler interrupts."""
    _exhaust(map(os.close, map(numbers.pop, itertools.repeat(-1, len(numbers)))))


_pair: Final[Callable[[], Iterable[_socket.socket]]] = (
    getattr(_socket, "socketpair", None) or socket.socketpair
)
_exhaust: Final[Callable[[Iterator[object]], None]] = deque[object](maxlen=0).extend
_handles: WeakSet[Descriptor] = WeakSet()

# ---------------------------------------------------------------------------------------- forks

_registered: list[bool] = []
_before_fork: list[Callable[[], None]] = []
_in_child: list[Callable[[], None]] = []


def register(
    before: Callable[[], None] | None = None, in_child: Callable[[], None] | None = None
) -> None:
    """Registers the handling of forks, and these functions, to be called with it.

    Importing this module registers nothing, so whoever needs it calls this first.
    """
    if not _registered and hasattr(os, "register_at_fork"):
        _registered.append(True)
        os.register_at_fork(
            before=_prepare_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork
        )
    if before is not None and before not in _before_fork:
        _before_fork.append(before)
    if in_child is not None and in_child not in _in_child:
        _in_child.append(in_child)


def _prepare_fork() -> None:
    fork_lock.acquire()
    for job in _before_fork:
        job()


def _after_fork_in_parent() -> None:
    fork_lock.release()


def _after_fork() -> None:
    """[forked child]"""
    fork_lock.release()
    for handle in list(_handles):
        handle.close()
    for job in _in_child:
        job()
