"""What is at the path of a local socket: a Unix socket, or a file with a port of this host.

``listener(path)`` returns the id of the process that listens there; ``None`` if there is none, 0 if
the process is in another container. ``retire(path)`` is for a path whose process is gone; it raises
:class:`OSError` if what is there cannot be removed. ``is_endpoint(path)``: something listens there,
or has.
"""

from __future__ import annotations

from pathlib import Path

from canbroker.system.portable import PORTABLE

__all__ = ["is_endpoint", "listener", "retire"]

if PORTABLE:
    from canbroker.system.endpoint_files import is_endpoint, listener, retire
else:
    from canbroker.system.unix_sockets import listener

    def retire(path: Path) -> None:
        path.unlink(missing_ok=True)

    def is_endpoint(path: Path) -> bool:
        return path.is_socket()
