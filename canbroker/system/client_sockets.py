"""The stream sockets of this process that are clients of local ones: for forked children."""

from __future__ import annotations

import _socket
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

import msgspec

from canbroker.system.portable import PORTABLE

_TABLE: Final = "/proc/self/fd" if os.path.isdir("/proc/self/fd") else "/dev/fd"  # noqa: PTH112


class ClientSocket(msgspec.Struct, frozen=True):
    """A socket of this process: its descriptor, its inode, and where the peer listens.

    ``peer`` is a path, or ``<host>:<port>`` where sockets are portable; ``None``: not connected.
    """

    descriptor: int
    inode: int
    peer: str | None


def client_sockets() -> Iterator[ClientSocket]:
    """The sockets that have connected, or may be about to."""
    if sys.platform == "win32":  # nothing forks there
        return
    family = _socket.AF_INET if PORTABLE else _socket.AF_UNIX
    try:
        names = os.listdir(_TABLE)  # noqa: PTH208 - there may be thousands
    except OSError:  # no descriptor is left to list them with
        return
    for name in names:
        number = int(name)
        with suppress(OSError):
            status = os.fstat(number)
            if not stat.S_ISSOCK(status.st_mode):
                continue
            found = _socket.socket(fileno=number)
            try:
                if found.family != family or found.type != _socket.SOCK_STREAM:
                    continue
                peer: str | None = None
                with suppress(OSError):
                    peer = _spelled(found.getpeername())
                if PORTABLE:
                    is_client = peer is not None or not found.getsockname()[1]
                else:
                    is_client = not found.getsockname()
                if is_client:
                    yield ClientSocket(number, status.st_ino, peer)
            finally:
                found.detach()


def _spelled(name: object) -> str:
    """A peer's name as the one socket's interface returns it, as text."""
    if isinstance(name, tuple):
        host, port = name[:2]
        return f"{host}:{port}"
    return str(name)
