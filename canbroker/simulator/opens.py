"""When programs open a file: inotify, without a dependency. Linux.

Source: inotify(7). A pseudo-terminal tells its master end of closing only, and that only while
nobody else has it open; a board that its port's DTR line resets must know of every opening.
"""

from __future__ import annotations

import ctypes
import os

_NONBLOCK: int = getattr(os, "O_NONBLOCK", 0)
_CLOEXEC: int = getattr(os, "O_CLOEXEC", 0)
_OPEN = 0x20
_CHUNK = 65_536


class OpenWatch:
    """Watches one path. Constructing begins.

    :raises OSError: the system cannot watch it, or is not Linux.
    """

    def __init__(self, path: str) -> None:
        library = ctypes.CDLL(None, use_errno=True)
        try:
            initialise, add = library.inotify_init1, library.inotify_add_watch
        except AttributeError:
            raise OSError(0, "this system has no inotify") from None
        self._descriptor: int = initialise(_NONBLOCK | _CLOEXEC)
        if self._descriptor < 0:
            raise _error()
        if add(self._descriptor, os.fsencode(path), _OPEN) < 0:
            error = _error()
            self.close()
            raise error

    def fileno(self) -> int:
        """Readable while :meth:`seen` has news."""
        return self._descriptor

    def seen(self) -> bool:
        """Whether the path was opened since the last call; never waits."""
        try:
            return bool(os.read(self._descriptor, _CHUNK))
        except BlockingIOError:
            return False

    def close(self) -> None:
        os.close(self._descriptor)


def _error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))
