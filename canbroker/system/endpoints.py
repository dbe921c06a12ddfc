"""What is at the path of a local socket: a Unix socket, or a file with a port of this host."""

from __future__ import annotations

from pathlib import Path

from canbroker.system import endpoint_files, unix_sockets
from canbroker.system.portable import PORTABLE


def listener(path: Path) -> int | None:
    """The id of the process that listens at a path; ``None`` if there is none, 0 if the process is
    in another container."""
    return endpoint_files.listener(path) if PORTABLE else unix_sockets.listener(path)


def retire(path: Path) -> None:
    """The process that listened at a path is gone, and left what is there.

    :raises OSError: it cannot be removed.
    """
    if PORTABLE:
        endpoint_files.retire(path)
    else:
        path.unlink(missing_ok=True)


def is_endpoint(path: Path) -> bool:
    """Whether something listens, or has listened, at a path."""
    return endpoint_files.is_endpoint(path) if PORTABLE else path.is_socket()
