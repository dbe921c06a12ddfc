"""A broker's runtime directory: its files, and who may use it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from canbroker.errors import CanInitializationError
from canbroker.system.files import effective_user
from canbroker.transport.address import IpcAddress
from canbroker.transport.place import Place


class Runtime:
    """A runtime directory. Making the object touches nothing; :meth:`prepare` makes the directory.

    It holds the broker's lock, the log of a broker that was started in the background, flight
    records, what a killed broker leaves to its successor, and the sockets of :attr:`place`.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.place = Place(directory)

    def __repr__(self) -> str:
        return f"<Runtime {self.directory}>"

    @classmethod
    def at(cls, address: str | None = None) -> Runtime:
        """The runtime directory of the broker with this address.

        :param address: as :meth:`Place.at`.
        :raises CanInitializationError: as :meth:`Place.at`.
        """
        return cls(Place.at(address).directory)

    @property
    def address(self) -> IpcAddress:
        """Where the broker listens.

        :raises CanInitializationError: the directory's path is too long for a socket.
        """
        return self.place.broker

    @property
    def lock_path(self) -> Path:
        return self.directory / "lock"

    @property
    def starting_path(self) -> Path:
        """Locked while somebody starts a broker, where the broker does not inherit its lock."""
        return self.directory / "starting"

    @property
    def log_path(self) -> Path:
        return self.directory / "broker.log"

    @property
    def audit_path(self) -> Path:
        """What remote users have done; the gateway writes it."""
        return self.directory / "audit.log"

    @property
    def records_path(self) -> Path:
        """The directory of flight records: what was on a channel when something went wrong."""
        return self.directory / "records"

    @property
    def processes_path(self) -> Path:
        """Which processes a broker has started; its successor reads it if it is killed."""
        return self.directory / "processes"

    @property
    def leases_path(self) -> Path:
        """Which channels are leased; the broker's successor reads it if it is killed."""
        return self.directory / "leases"

    @property
    def channels_path(self) -> Path:
        """Which channels have clients; the broker's successor reads it if it is killed."""
        return self.directory / "channels"

    @property
    def recordings_path(self) -> Path:
        """Which recordings were asked for; the broker's successor reads it if it is killed."""
        return self.directory / "recordings"

    @property
    def journal_path(self) -> Path:
        """The periodic tasks; the scheduler's successor reads it if it is killed."""
        return self.directory / "tasks.db"

    def prepare(self) -> None:
        """Makes the directory, for this user alone.

        :raises CanInitializationError: it, or the directory above it, belongs to another user, or
            others may enter it.
        """
        try:
            if not self.directory.exists():
                self._check_parent()
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            status = self.directory.stat(follow_symlinks=False)
        except OSError as error:
            raise CanInitializationError(
                f"cannot use runtime directory {self.directory}: {error.strerror}"
            ) from error
        user = effective_user()
        if user is not None:  # Windows keeps a user's temporary directory to itself
            if status.st_uid != user:
                raise CanInitializationError(
                    f"runtime directory {self.directory} belongs to user {status.st_uid}"
                )
            if status.st_mode & 0o077:
                raise CanInitializationError(
                    f"runtime directory {self.directory} is open to other users "
                    f"(mode {status.st_mode & 0o777:o}, must be 700)"
                )

    def touch(self) -> None:
        """Marks the directory and its files as used, so that cleaners of temporary files leave
        them alone: the directory specification of freedesktop.org asks for this every 6 hours."""
        try:
            names = os.listdir(self.directory)  # noqa: PTH208 - read at once: others remove some
        except OSError:  # it has just been removed
            return
        for path in (self.directory, *(self.directory / name for name in names)):
            try:
                os.utime(path)
            except OSError:  # as above
                continue

    def _check_parent(self) -> None:
        """:raises CanInitializationError: the directory would be made in another user's directory,
        where that user could not remove it: one of root's, say, in that of a user's session."""
        parent = next(path for path in self.directory.parents if path.exists())
        status = parent.stat()
        is_for_all = status.st_mode & stat.S_ISVTX and status.st_mode & stat.S_IWOTH  # as /tmp
        user = effective_user()
        if user is not None and status.st_uid not in {0, user} and not is_for_all:
            raise CanInitializationError(
                f"cannot make runtime directory {self.directory}: "
                f"{parent} belongs to user {status.st_uid}"
            )
