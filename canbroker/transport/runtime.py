"""Where a broker lives: runtime directory, addresses, and the lock that makes it the only one."""

from __future__ import annotations

import os
import re
import socket
import stat
import struct
import sys
from pathlib import Path
from typing import Final

from canbroker.errors import CanInitializationError
from canbroker.system.descriptors import beyond_standard

#: sun_path of a Unix socket holds 108 bytes, the last of them 0.
MAX_SOCKET_PATH = 107

#: The environment variable that chooses a broker for a program and those that it starts.
ADDRESS_VARIABLE = "CANBROKER_ADDRESS"
_SESSION_VARIABLE: Final = "XDG_RUNTIME_DIR"

_SCHEME = "ipc://"
_PEER: Final = struct.Struct("3i")  # process, user, group
_SOCKET: Final = "broker"
#: Names that files of the runtime directory have, or begin with.
_RESERVED = {"broker", "lock", "processes", "scheduler", "tasks"}
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_.-]{1,32}")


class Runtime:
    """A broker's runtime directory. Making one touches nothing; :meth:`prepare` does.

    The directory holds the broker's socket ``broker``, three sockets for each channel, the lock,
    the log of a broker that was started in the background, and flight records.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def __repr__(self) -> str:
        return f"<Runtime {self.directory}>"

    @classmethod
    def at(cls, address: str | None = None) -> Runtime:
        """The runtime directory of a broker's address.

        :param address: ``None`` is what the variable ``CANBROKER_ADDRESS`` says; where it says
            nothing, this user's default one: in ``XDG_RUNTIME_DIR`` if that is not another user's,
            else in the directory of temporary files.
        :raises CanInitializationError: the address is not ``ipc://<absolute path>/broker``, or
            ``XDG_RUNTIME_DIR`` is no absolute path.
        """
        if address is None:
            address = os.environ.get(ADDRESS_VARIABLE) or None
        if address is None:
            return cls(_default_directory())
        path = Path(address.removeprefix(_SCHEME))
        is_path = address.startswith(_SCHEME) and address.isprintable()
        if not is_path or not path.is_absolute() or path.name != _SOCKET:
            raise CanInitializationError(
                f"broker address {address!r} is not ipc://<absolute path>/broker"
            )
        return cls(path.parent)

    @property
    def address(self) -> str:
        """Where the broker listens; what ``broker=`` and ``--broker`` take."""
        return self._endpoint(_SOCKET)

    @property
    def lock_path(self) -> Path:
        return self.directory / "lock"

    @property
    def log_path(self) -> Path:
        return self.directory / "broker.log"

    @property
    def records_path(self) -> Path:
        """The directory of what was on channels when something went wrong."""
        return self.directory / "records"

    @property
    def processes_path(self) -> Path:
        """What a broker has started, for its successor in case it is killed."""
        return self.directory / "processes"

    @property
    def leases_path(self) -> Path:
        """Which channels are leased, for the broker's successor in case it is killed."""
        return self.directory / "leases"

    @property
    def channels_path(self) -> Path:
        """Which channels have clients, for the broker's successor in case it is killed."""
        return self.directory / "channels"

    @property
    def scheduler_endpoint(self) -> str:
        """Where the scheduler of periodic tasks listens."""
        return self._endpoint("scheduler.ctl")

    @property
    def journal_path(self) -> Path:
        """What tasks there are, for a scheduler that takes over from one that was killed."""
        return self.directory / "tasks.db"

    def channel_endpoint(self, name: str, kind: str) -> str:
        """Address of a channel's socket; ``kind`` is ``rx``, ``tx`` or ``ctl``.

        Plain names can be guessed by subscribers in any language; others are hashed, because a
        device path is often longer than a socket's path may be.
        """
        plain = _PLAIN_NAME.fullmatch(name) and name not in _RESERVED
        return self._endpoint(f"{name if plain else _digest(name)}.{kind}")

    def broker(self) -> int | None:
        """The number of the process that listens here, 0 where the system does not tell it;
        ``None`` if nobody does."""
        return _listener(self.directory / _SOCKET)

    def describe_broker(self) -> str:
        """What to call the broker that listens here, with the number of its process, if known;
        whatever version it is of, and if it does nothing but listen."""
        pid = self.broker()
        process = f" (process {pid}; 'kill {pid}' ends it)" if pid else ""
        return f"the broker at {self.address}{process}"

    def has_channel(self, name: str) -> bool:
        """Whether there is a socket of a channel. It may be that of a process that was killed.

        :raises CanInitializationError: as :meth:`channel_endpoint`.
        """
        return Path(self.channel_endpoint(name, "rx").removeprefix(_SCHEME)).exists()

    def prepare(self) -> None:
        """Makes the directory, for this user alone.

        :raises CanInitializationError: it, or where it would be made, belongs to someone else, or
            others may enter it.
        """
        try:
            if not self.directory.exists():
                self._check_place()
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            status = self.directory.stat(follow_symlinks=False)
        except OSError as error:
            raise CanInitializationError(
                f"cannot use runtime directory {self.directory}: {error.strerror}"
            ) from error
        if hasattr(os, "getuid"):  # Windows keeps a user's temporary directory to itself
            if status.st_uid != os.getuid():
                raise CanInitializationError(
                    f"runtime directory {self.directory} belongs to user {status.st_uid}"
                )
            if status.st_mode & 0o077:
                raise CanInitializationError(
                    f"runtime directory {self.directory} is open to other users "
                    f"(mode {status.st_mode & 0o777:o}, must be 700)"
                )

    def touch(self) -> None:
        """Marks what is in the directory as used, for cleaners of temporary files: the directory
        specification of freedesktop.org wants that every 6 hours."""
        try:
            names = os.listdir(self.directory)  # noqa: PTH208 - read at once: others remove some
        except OSError:  # it has just been removed
            return
        for path in (self.directory, *(self.directory / name for name in names)):
            try:
                os.utime(path)
            except OSError:  # as above
                continue

    def _check_place(self) -> None:
        """:raises CanInitializationError: the directory would be made in another user's, where it
        would be in that user's way: a directory of root's, say, in that of a user's session."""
        place = next(path for path in self.directory.parents if path.exists())
        status = place.stat()
        is_for_all = status.st_mode & stat.S_ISVTX and status.st_mode & stat.S_IWOTH  # as /tmp
        if hasattr(os, "getuid") and status.st_uid not in {0, os.getuid()} and not is_for_all:
            raise CanInitializationError(
                f"cannot make runtime directory {self.directory}: "
                f"{place} belongs to user {status.st_uid}"
            )

    def _endpoint(self, filename: str) -> str:
        path = str(self.directory / filename)
        if len(os.fsencode(path)) > MAX_SOCKET_PATH:
            raise CanInitializationError(
                f"runtime directory {self.directory} is too long: the socket {filename!r} in it "
                f"would have more than {MAX_SOCKET_PATH} bytes"
            )
        return _SCHEME + path


class BrokerLock:
    """The lock that a live broker holds. Whoever holds it is, or is about to start, the broker.

    It belongs to the open file, so a starter hands it to the broker it starts by letting it
    inherit the descriptor, and there is no moment at which nobody holds it.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self.descriptor = descriptor

    def __repr__(self) -> str:
        return f"<BrokerLock {self._path}>"

    @classmethod
    def take(cls, path: Path) -> BrokerLock | None:
        """The lock, or ``None`` while someone else holds it. Never waits.

        Somebody may have removed the file of a broker that serves: that one makes it anew.

        :raises CanInitializationError: the file cannot be opened.
        """
        lock = cls._take(path)
        if lock is not None and _listens(path.with_name(_SOCKET)):
            lock.release()
            return None
        return lock

    @property
    def is_in_place(self) -> bool:
        """Whether others find that it is held."""
        return _is_at(self.descriptor, self._path)

    def renew(self) -> bool:
        """Makes the lock's file anew that somebody has removed; whether we hold it."""
        fresh = self._take(self._path)
        if fresh is None:
            return False
        os.close(self.descriptor)
        self.descriptor = fresh.descriptor
        return True

    @classmethod
    def _take(cls, path: Path) -> BrokerLock | None:
        while True:
            try:
                descriptor = beyond_standard(
                    os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                )
            except OSError as error:
                raise CanInitializationError(f"cannot lock {path}: {error.strerror}") from error
            if not _lock_now(descriptor):
                os.close(descriptor)
                return None
            # A broker that stopped in between has removed the file that we have just locked.
            if _is_at(descriptor, path):
                return cls(path, descriptor)
            os.close(descriptor)

    def hand_over(self) -> None:
        """Forgets the lock without releasing it: a child that inherited it holds it now."""
        os.close(self.descriptor)

    def release(self) -> None:
        """Removes the lock's file, unless it is another's by now, then lets go."""
        if self.is_in_place:
            self._path.unlink(missing_ok=True)
        os.close(self.descriptor)


def _digest(name: str) -> str:
    import hashlib  # noqa: PLC0415 - imports much, and most names are plain

    return hashlib.sha256(name.encode()).hexdigest()[:16]


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except OSError:  # it is gone, or its directory
        return False


def _listens(path: Path) -> bool:
    """Whether somebody listens at a socket."""
    return path.is_socket() and _listener(path) is not None


def _listener(path: Path) -> int | None:
    """The number of the process that listens at a socket, 0 where the system does not tell it (any
    but Linux); ``None`` if nobody does."""
    with socket.socket(socket.AF_UNIX) as asking:
        asking.setblocking(False)
        try:
            asking.connect(str(path))
        except BlockingIOError:  # so many want to connect that we would have to wait
            return 0
        except OSError:
            return None
        if sys.platform != "linux":
            return 0
        peer = asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
        return int(_PEER.unpack(peer)[0])


def _lock_now(descriptor: int) -> bool:
    import fcntl  # noqa: PLC0415 - POSIX only; Windows would lock with msvcrt.locking here

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _default_directory() -> Path:
    base = os.environ.get(_SESSION_VARIABLE)
    if base:
        if not Path(base).is_absolute():
            raise CanInitializationError(f"{_SESSION_VARIABLE} is {base!r}, no absolute path")
        if _is_ours(Path(base)):
            return Path(base) / "canbroker"
    user = os.getuid() if hasattr(os, "getuid") else os.environ.get("USERNAME", "user")
    import tempfile  # noqa: PLC0415 - imports much; most systems have XDG_RUNTIME_DIR

    return Path(tempfile.gettempdir()) / f"canbroker-{user}"


def _is_ours(directory: Path) -> bool:
    """Whether a directory does not belong to another user: in a shell of root's the variable may
    be that of the user who has opened it."""
    try:
        return not hasattr(os, "getuid") or directory.stat().st_uid == os.getuid()
    except FileNotFoundError:
        return True
    except OSError:  # it is in a directory that is closed to us
        return False
