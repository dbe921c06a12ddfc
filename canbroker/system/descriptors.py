"""File descriptors of a process: the standard ones, and how many there may be."""

from __future__ import annotations

import errno
import itertools
import os
import select
import sys
from collections.abc import Callable, Iterable
from typing import IO, TYPE_CHECKING, Any, Final

from canbroker.system.portable import PORTABLE

if TYPE_CHECKING:
    import socket

#: Standard input, output and error.
_STANDARD: Final = 3

#: A limit as high as this is never reached, so it counts as unlimited.
_MANY: Final = 1 << 20

#: The files that a C library of Windows may have open. It limits sockets by memory only.
_WINDOWS_FILES: Final = 8_192

#: select() of POSIX accepts only descriptors below this number; that of Windows, as Python uses it,
#: this many.
_SELECTABLE: Final = 1_024
_SELECTED_AT_ONCE: Final = 512

#: Has :class:`socket.socket` ask the system for the family and the type of a descriptor.
_FOUND_OUT: Final = -1

#: Makes what waits for any descriptors, of however many; ``None`` on Windows.
POLL: Final[Callable[[], Any] | None] = getattr(select, "poll", None)

#: Whether to wait by select() where that is possible. ``poll()`` of macOS waits for no devices.
BY_SELECT: Final = PORTABLE and POLL is not None

#: With fewer nothing works.
_FEWEST: Final = 8


def open_standard() -> None:
    """Opens standard input, output and error on the null device if they are closed.

    Call it first of all: otherwise the next file that this process opens becomes its standard
    output, and print() writes to it.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) < _STANDARD:
        os.set_inheritable(descriptor, True)  # as the others are
    os.close(descriptor)
    sys.stdin = sys.stdin or _stream(0, "r")
    sys.stdout = sys.stdout or _stream(1, "w")
    sys.stderr = sys.stderr or _stream(2, "w")


def beyond_standard(descriptor: int) -> int:
    """``descriptor``, or a duplicate above 2 if it is lower; then ``descriptor`` is closed.

    A child's standard streams replace descriptors below 3 that it inherits.

    :raises OSError: no descriptors are left. ``descriptor`` is closed, too.
    """
    low: list[int] = []
    try:
        while descriptor < _STANDARD:
            low.append(descriptor)
            descriptor = os.dup(descriptor)
    finally:
        for number in low:
            os.close(number)
    return descriptor


def duplicated_socket(descriptor: int) -> socket.socket | None:
    """A duplicate of the socket with this descriptor, which a library owns and may have closed.

    ``None`` if it is not a socket any more, or no descriptors are left. It may be another socket.
    """
    import socket  # noqa: PLC0415 - a client needs nothing of it, and it loads much

    if sys.platform == "win32":  # os.dup() there is for files alone
        try:
            return socket.fromfd(descriptor, _FOUND_OUT, _FOUND_OUT)
        except OSError:
            return None
    try:
        duplicate = os.dup(descriptor)
    except OSError:
        return None
    try:
        return socket.socket(fileno=duplicate)
    except OSError:
        os.close(duplicate)
        return None


def pipe() -> tuple[int, int]:
    """A pipe's two ends, for reading and for writing, both above 2.

    :raises OSError: no descriptors are left.
    """
    reading, writing = os.pipe()
    try:
        reading = beyond_standard(reading)
    except OSError:
        os.close(writing)
        raise
    try:
        return reading, beyond_standard(writing)
    except OSError:
        os.close(reading)
        raise


def is_closed_pipe(error: OSError) -> bool:
    """Whether writing to a pipe failed because nobody reads it any more. The C library of Windows
    calls that an invalid argument; errors of its sockets have a number of Windows', too."""
    if sys.platform == "win32" and error.errno == errno.EINVAL:
        return not getattr(error, "winerror", None)
    return error.errno == errno.EPIPE


def never_wait(descriptor: int) -> None:
    """Has reads from and writes to a pipe fail instead of wait. Windows: nothing, as only sockets
    can do that there."""
    if sys.platform != "win32":
        os.set_blocking(descriptor, False)


def wait_readable(descriptor: int) -> None:
    """Waits until something can be read, or the other end is closed. Not on Windows."""
    if sys.platform != "win32":
        ended = select.poll()
        ended.register(descriptor)
        ended.poll()


def wait_writable(descriptors: Iterable[int], patience_ms: float) -> bool:
    """Waits until one of these has room to write; whether one has. Not on Windows."""
    if sys.platform == "win32":
        return False
    room = select.poll()
    for descriptor in descriptors:
        room.register(descriptor, select.POLLOUT)
    return bool(room.poll(patience_ms))


def selectable(descriptors: Iterable[int]) -> list[int]:
    """Those that select() can watch: POSIX limits their numbers, Windows how many they are."""
    if sys.platform == "win32":
        return list(itertools.islice(descriptors, _SELECTED_AT_ONCE))
    return [number for number in descriptors if number < _SELECTABLE]


def is_waited_for(device: int) -> bool:
    """Whether a serial device can be waited for together with sockets.

    :param device: its descriptor, where the system has such.
    """
    return POLL is not None and (not BY_SELECT or device < _SELECTABLE)


def raise_limit() -> None:
    """Raises the soft limit of open descriptors to the hard one. Windows has no such limits."""
    if sys.platform == "win32":
        return
    import resource  # noqa: PLC0415 - POSIX only

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):  # macOS accepts OPEN_MAX at most, whatever its limit says
        return


def limit() -> int:
    """The number of descriptors that this process may have open."""
    if sys.platform == "win32":
        return _WINDOWS_FILES
    import resource  # noqa: PLC0415 - as above

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MANY if soft == resource.RLIM_INFINITY else min(soft, _MANY)


def share() -> int:
    """The number of descriptors that each use may have: the connections of a listening socket, a
    broker's channels, a scheduler's owners of tasks, and its channels.

    It is a quarter: a channel actor has three listening sockets, a broker and a scheduler have
    fewer, and other uses; a quarter is left for everything else.
    """
    return max(_FEWEST, limit() // 4)


def _stream(descriptor: int, mode: str) -> IO[str]:
    return open(descriptor, mode, closefd=False)
