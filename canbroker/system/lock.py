"""The lock that makes a broker the only one of its runtime directory."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from canbroker.errors import CanInitializationError
from canbroker.system.descriptors import beyond_standard
from canbroker.system.endpoints import is_endpoint, listener
from canbroker.system.files import close_and_remove, lock_now

#: The broker's socket, beside the lock.
BROKER_SOCKET: Final = "broker"


class BrokerLock:
    """The lock that a live broker holds. Whoever holds it is the broker, or is about to start it.

    The lock belongs to the open file. On Linux, a client that starts a broker lets it inherit the
    descriptor, so that there is no moment at which nobody holds the lock. Elsewhere the broker
    takes it itself.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self.descriptor = descriptor

    def __repr__(self) -> str:
        return f"<BrokerLock {self._path}>"

    @classmethod
    def take(cls, path: Path) -> BrokerLock | None:
        """The lock, or ``None`` while someone else holds it. Never waits.

        Nor does anybody get it while a broker listens whose lock file was removed: that broker
        makes the file anew.

        :raises CanInitializationError: the file cannot be opened.
        """
        lock = cls._take(path)
        if lock is not None and _listens(path.with_name(BROKER_SOCKET)):
            lock.release()
            return None
        return lock

    @property
    def is_in_place(self) -> bool:
        """Whether the lock's file is still there, so that others see that it is held."""
        return _is_at(self.descriptor, self._path)

    def renew(self) -> bool:
        """Makes the lock's file anew after somebody has removed it; returns whether we hold it."""
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
                descriptor = beyond_standard(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
            except OSError as error:
                raise CanInitializationError(f"cannot lock {path}: {error.strerror}") from error
            if not lock_now(descriptor):
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
        """Removes the lock's file, unless it is another's by now, and gives up the lock."""
        if self.is_in_place:
            close_and_remove(self.descriptor, self._path)
        else:
            os.close(self.descriptor)


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except OSError:  # the file is gone, or its directory
        return False


def _listens(path: Path) -> bool:
    """Whether somebody listens at a socket."""
    return is_endpoint(path) and listener(path) is not None
