"""File descriptors of a process: the standard ones, and how many there may be."""

from __future__ import annotations

import os
import sys
from typing import IO, Final

#: Standard input, output and error.
_STANDARD: Final = 3

#: A limit as high as this is never reached, so it counts as none.
_MANY: Final = 1 << 20

#: With less nothing works.
_FEWEST: Final = 8


def open_standard() -> None:
    """Opens those of standard input, output and error that are closed, on the null device.

    Call it first of all: otherwise the next thing that this process opens becomes its standard
    output, and what somebody prints goes there.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) < _STANDARD:
        os.set_inheritable(descriptor, True)  # as the others are
    os.close(descriptor)
    sys.stdin = sys.stdin or _stream(0, "r")
    sys.stdout = sys.stdout or _stream(1, "w")
    sys.stderr = sys.stderr or _stream(2, "w")


def beyond_standard(descriptor: int) -> int:
    """``descriptor``, or a duplicate above 2 if it is below; then ``descriptor`` is closed.

    What a child inherits under a number below 3 is overwritten by its standard streams.

    :raises OSError: no descriptors are left. ``descriptor`` is closed, too.
    """
    if descriptor >= _STANDARD:
        return descriptor
    import fcntl  # noqa: PLC0415 - POSIX only

    try:
        return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _STANDARD)
    finally:
        os.close(descriptor)


def pipe() -> tuple[int, int]:
    """A pipe's ends, for reading and for writing, both above 2.

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


def raise_limit() -> None:
    """Raises the soft limit of open descriptors to the hard one."""
    import resource  # noqa: PLC0415 - POSIX only

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):  # macOS takes no more than OPEN_MAX, whatever it says
        return


def limit() -> int:
    """How many descriptors this process may have open."""
    import resource  # noqa: PLC0415 - as above

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MANY if soft == resource.RLIM_INFINITY else min(soft, _MANY)


def share() -> int:
    """How many descriptors each kind of use may take: connections of a listening socket, what a
    broker has for its channels, what a scheduler has for owners of tasks and for channels.

    A channel actor has three listening sockets, a broker and a scheduler less and something else;
    a quarter is for what everything else needs.
    """
    return max(_FEWEST, limit() // 4)


def _stream(descriptor: int, mode: str) -> IO[str]:
    return open(descriptor, mode, closefd=False)
