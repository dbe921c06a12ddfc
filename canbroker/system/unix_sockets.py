"""Which process is at the other end of a Unix socket."""

from __future__ import annotations

import socket
import struct
import sys
from pathlib import Path
from typing import Final

_PEER: Final = struct.Struct("3i")


def credentials(connection: socket.socket) -> tuple[int, int, int]:
    """Process, user and group of the other end of a connection. Linux.

    :raises OSError: it is not a connection any more.
    """
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
    process, user, group = _PEER.unpack(raw)
    return process, user, group


def peer_of(connection: socket.socket) -> int:
    """The process id of the other end of a connection; 0 where the system does not tell (any but
    Linux), or if the process is in another container.

    :raises OSError: it is not a connection any more.
    """
    return credentials(connection)[0] if sys.platform == "linux" else 0


def listener(path: Path) -> int | None:
    """The id of the process that listens at a socket; ``None`` if there is none, 0 as
    :func:`peer_of` says."""
    with socket.socket(socket.AF_UNIX) as asking:
        asking.setblocking(False)
        try:
            asking.connect(str(path))
        except BlockingIOError:  # the queue of connections is full, and we would have to wait
            return 0
        except OSError:
            return None
        return peer_of(asking)
