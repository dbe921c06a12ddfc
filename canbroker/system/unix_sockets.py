"""Unix sockets: connections that do not wait, and which process is at the other end."""

from __future__ import annotations

import _socket
import errno
import select
import struct
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

_PEER: Final = struct.Struct("3i")


def credentials(connection: _socket.socket) -> tuple[int, int, int]:
    """Process, user and group of the other end of a connection; zeros where the system does not
    tell (any but Linux).

    :raises OSError: it is not a connection any more.
    """
    if sys.platform != "linux":
        return 0, 0, 0
    raw = connection.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, _PEER.size)
    process, user, group = _PEER.unpack(raw)
    return process, user, group


def peer_of(connection: _socket.socket) -> int:
    """The process id of the other end of a connection; 0 where the system does not tell (any but
    Linux), or if the process is in another container.

    :raises OSError: it is not a connection any more.
    """
    return credentials(connection)[0]


def connected(path: str, first: bytes) -> _socket.socket:
    """A connection to the socket at ``path`` that never waits, and has sent its ``first`` bytes.

    :raises OSError: there is none.
    """
    if sys.platform == "win32":
        raise OSError(errno.EAFNOSUPPORT, "no Unix sockets")
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        connection.setblocking(False)
        connection.connect(path)
        connection.send(first)
    except BaseException:
        connection.close()
        raise
    return connection


def has_ended(connection: _socket.socket) -> bool:
    """Whether the other end has closed a connection, whatever is left to read."""
    if sys.platform == "win32":
        return False
    poll = select.poll()
    poll.register(connection, 0)
    return bool(poll.poll(0))


def listening(path: Path, backlog: int) -> _socket.socket:
    """A socket that listens at ``path``, in place of whatever was there; accepting never waits.

    :raises OSError: it cannot.
    """
    if sys.platform == "win32":
        raise OSError(errno.EAFNOSUPPORT, "no Unix sockets")
    ours = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        ours.setblocking(False)
        path.unlink(missing_ok=True)
        ours.bind(str(path))
        ours.listen(backlog)
    except BaseException:
        ours.close()
        raise
    return ours


def accepted(ours: _socket.socket) -> _socket.socket:
    """The next connection to a socket that listens, which never waits.

    :raises OSError: there is none (:class:`BlockingIOError`), or no descriptors are left.
    """
    number, _ = ours._accept()  # type: ignore[attr-defined] # as socket.accept() does
    connection = _socket.socket(fileno=number)
    connection.setblocking(False)
    return connection


def written(connection: _socket.socket, buffers: Sequence[bytes | memoryview]) -> int:
    """Writes several buffers at once; returns how many bytes of them.

    :raises OSError: the connection is gone, or takes nothing now (:class:`BlockingIOError`).
    """
    if sys.platform == "win32":
        raise OSError(errno.EAFNOSUPPORT, "no Unix sockets")
    return connection.sendmsg(buffers)


def listener(path: Path) -> int | None:
    """The id of the process that listens at a socket; ``None`` if there is none, 0 as
    :func:`peer_of` says."""
    if sys.platform == "win32":
        return None
    with closing(_socket.socket(_socket.AF_UNIX)) as asking:
        asking.setblocking(False)
        try:
            asking.connect(str(path))
        except BlockingIOError:  # the queue of connections is full, and we would have to wait
            return 0
        except OSError:
            return None
        return peer_of(asking)
