"""Files that belong to one user or one process at a time: locks, and the rights of others.

What Windows lacks: it has no modes. A file there has the rights of its directory, and the
directories of a user's profile admit that user, the system and administrators. So nothing is
checked there: a file outside of the profile is as open as its directory is.
"""

from __future__ import annotations

import errno
import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

#: A flag for opening a file that may be a pipe: does not wait for its other end. Windows has no
#: pipes among its files.
NONBLOCK: Final[int] = getattr(os, "O_NONBLOCK", 0)

#: Numbers of errors that say that the disk, or what this user may have of it, is full.
_FULL: Final = frozenset({errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)})

#: A flag for opening a file whose bytes are meant: Windows would change ends of lines.
BINARY: Final[int] = getattr(os, "O_BINARY", 0)

#: Windows does not replace or remove a file while somebody reads it, which takes a moment.
TRIES: Final = 50
TRY_AGAIN_S: Final = 0.01

if sys.platform != "win32":
    import fcntl

    def lock_now(descriptor: int) -> bool:
        """Locks an open file for this process alone; ``False`` if another has locked it.

        The lock ends when the descriptor and all that were inherited from it are closed. Others can
        read and write the file all the same.

        :raises OSError: the file cannot be locked.
        """
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

else:
    import msvcrt

    #: A byte far behind the end: Windows lets nobody else read or write what is locked.
    _LOCKED_AT: Final = 0x7FFF_FFFE

    #: Somebody else has locked it. EDEADLK is for those that wait, but documented for all.
    _LOCKED: Final = frozenset({errno.EACCES, errno.EDEADLK})

    def lock_now(descriptor: int) -> bool:
        """As on POSIX. The descriptor must be able to write, and children inherit no locks."""
        position = os.lseek(descriptor, 0, os.SEEK_CUR)
        os.lseek(descriptor, _LOCKED_AT, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError as error:
            if error.errno in _LOCKED:
                return False
            raise
        finally:
            os.lseek(descriptor, position, os.SEEK_SET)
        return True


def is_full(error: OSError) -> bool:
    """Whether a file could not be written because the disk is full."""
    return error.errno in _FULL


def close_and_remove(descriptor: int, path: Path) -> None:
    """Removes the file ``path``, which is open as ``descriptor``, and gives up its lock."""
    if sys.platform == "win32":  # it does not remove files that are open
        os.close(descriptor)
        with suppress(PermissionError):  # somebody else has opened it by now
            path.unlink(missing_ok=True)
    else:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def sync_directory(directory: Path) -> None:
    """Makes new names in a directory certain. Windows does that itself, and opens no directory.

    :raises OSError: it cannot be opened, or the disk has failed.
    """
    if sys.platform == "win32":
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def open_private(path: str, flags: int) -> int:
    """As :func:`os.open`; the file, old or new, is for its owner alone.

    :raises OSError: it cannot be opened, or is another user's.
    """
    descriptor = os.open(path, flags, 0o600)
    if sys.platform != "win32":
        os.fchmod(descriptor, 0o600)
    return descriptor


def effective_user() -> int | None:
    """The user whose rights this process has; ``None`` where users have no numbers (Windows)."""
    if sys.platform == "win32":
        return None
    return os.geteuid()


def move(path: Path, to: Path) -> None:
    """Renames a file, also to the name of one that others may just read.

    :raises OSError: it cannot be renamed.
    """
    for left in reversed(range(TRIES)):
        try:
            path.replace(to)
        except PermissionError:
            if not left or sys.platform != "win32":
                raise
            time.sleep(TRY_AGAIN_S)
        else:
            return
