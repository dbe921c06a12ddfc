"""The directory of keys: who may read and write its files, and how they are replaced."""

from __future__ import annotations

import os
import shlex
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from canbroker.errors import CanInitializationError
from canbroker.system.files import NONBLOCK, effective_user, lock_now, move
from canbroker.system.toml_file import MAX_FILE_BYTES

#: How long a command waits for another one that changes files, and how often it looks.
_LOCK_S: Final = 10.0
_LOCK_INTERVAL_S: Final = 0.02

#: Rights that other users may not have: to files that name trusted keys, and to secret ones.
_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH
_ANY: Final = stat.S_IRWXG | stat.S_IRWXO


def directory() -> Path:
    """Where keys are: ``canbroker`` in ``$XDG_CONFIG_HOME``, else in ``~/.config``.

    :raises CanInitializationError: this user has no home directory.
    """
    configured = Path(os.environ.get("XDG_CONFIG_HOME", ""))
    if configured.is_absolute():  # the directory specification ignores others
        return configured / "canbroker"
    try:
        return Path.home() / ".config" / "canbroker"
    except RuntimeError:
        raise CanInitializationError(
            "this user has no home directory for keys: set XDG_CONFIG_HOME or CANBROKER_KEY"
        ) from None


def read_secret(path: Path) -> bytes | None:
    """The content of a file that only this user may read; ``None`` if there is none.

    :raises CanInitializationError: it cannot be read; others may read or replace it; it belongs to
        another user. Names the mode and the command that mends it.
    """
    return _read(path, _ANY)


def read_trusted(path: Path) -> bytes | None:
    """The content of a file that only this user, or root, may write; ``None`` if there is none.

    :raises CanInitializationError: it cannot be read; others may write or replace it; it belongs
        to another user. Names the mode and the command that mends it.
    """
    return _read(path, _WRITE)


def signature(path: Path) -> tuple[int, ...] | None:
    """Differs whenever the file's content, mode or owner may; ``None`` if it is not there."""
    try:
        found = path.stat()
    except OSError:
        return None
    return (
        *(found.st_dev, found.st_ino, found.st_mode, found.st_uid, found.st_size),
        *(found.st_mtime_ns, found.st_ctime_ns),
    )


def create(path: Path, text: str) -> None:
    """Writes the new file ``path``, for this user alone; makes its directory, too.

    :raises CanInitializationError: it is there already, or cannot be written; then it is not there.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise CanInitializationError(f"cannot make {path.parent}: {error.strerror}") from error
    try:
        descriptor = os.open(path, flags, 0o600)
    except FileExistsError:
        raise CanInitializationError(f"{path} is there already, and is not overwritten") from None
    except OSError as error:
        raise CanInitializationError(f"cannot write {path}: {error.strerror}") from error
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(descriptor)
    except OSError as error:
        path.unlink()
        raise CanInitializationError(f"cannot write {path}: {error.strerror}") from error


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Makes the directory of ``path``, and keeps other commands from writing there meanwhile.

    :raises CanInitializationError: the directory cannot be made or written, others may write it,
        or another command has been writing for 10 s.
    """
    folder = path.parent
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_directory(folder)
        descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise CanInitializationError(f"cannot write to {folder}: {error.strerror}") from error
    try:
        deadline = time.monotonic() + _LOCK_S
        while not lock_now(descriptor):
            if time.monotonic() > deadline:
                raise CanInitializationError(
                    f"another command has been changing the keys in {folder} for {_LOCK_S:.0f} s"
                )
            time.sleep(_LOCK_INTERVAL_S)
        yield
    finally:
        os.close(descriptor)


def replace(path: Path, text: str) -> None:
    """Writes the file ``path``, for this user alone; a reader sees all of it, or the content
    before. A link stays one, and the mode of a file that is there stays, too.

    :raises CanInitializationError: it cannot be written; then it is as before.
    """
    target = Path(os.path.realpath(path))
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    except OSError as error:
        raise CanInitializationError(f"cannot write {path}: {error.strerror}") from error
    written = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            if target.exists():
                written.chmod(stat.S_IMODE(target.stat().st_mode))
            os.fsync(file.fileno())
        move(written, target)
    except OSError as error:
        raise CanInitializationError(f"cannot write {path}: {error.strerror}") from error
    finally:
        written.unlink(missing_ok=True)


def _read(path: Path, forbidden: int) -> bytes | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise CanInitializationError(f"cannot read {path}: {error.strerror}") from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise CanInitializationError(f"{path} is not a file")
        _check(path, status, forbidden)
        for folder in {path.parent, Path(os.path.realpath(path)).parent}:  # of a link, and its end
            _check_directory(folder)
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise CanInitializationError(f"cannot read {path}: {error.strerror}") from error
    finally:
        os.close(descriptor)


def _check_directory(path: Path) -> None:
    """:raises CanInitializationError: another user could replace the files in it.
    :raises OSError: it is not there.
    """
    status = path.stat()
    if not (status.st_mode & stat.S_ISVTX and status.st_uid == 0):  # in /tmp, only its owner can
        _check(path, status, _WRITE)


def _check(path: Path, status: os.stat_result, forbidden: int) -> None:
    """:raises CanInitializationError: it is another user's, or others have ``forbidden`` rights."""
    user = effective_user()
    if user is None:  # Windows keeps a user's profile to itself
        return
    owners = {user} if forbidden == _ANY else {user, 0}
    if status.st_uid not in owners:
        raise CanInitializationError(
            f"{path} belongs to user {status.st_uid}, and this is user {user}: "
            "keys of another user are not used"
        )
    mode = stat.S_IMODE(status.st_mode)
    if mode & forbidden:
        may = "write" if mode & _WRITE else "read"
        right = f"{mode & ~forbidden:o}"
        raise CanInitializationError(
            f"other users may {may} {path} (mode {mode:o}, must be {right}): "
            f"chmod {right} {shlex.quote(str(path))}"
        )
