"""A line as a pseudo-terminal, and the link to it. POSIX."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Sequence
from pathlib import Path

from canbroker.errors import CanInitializationError
from canbroker.simulator.opens import OpenWatch

_CHUNK = 65_536

if sys.platform != "win32":
    import tty

    class Terminal:
        """The pseudo-terminal that a host opens, and the link to it.

        Its slave end stays open here too: else the last host that closes it would hang up the
        master.
        """

        def __init__(self, link: str | None, watched: bool) -> None:
            self.path = ""
            self.descriptor = -1
            self.watch: OpenWatch | None = None
            self._watched = watched
            self._slave = -1
            self._link = Path(link) if link else None
            if self._link and self._link.exists() and not self._link.is_symlink():
                raise CanInitializationError(f"{link} exists and is not a symbolic link")

        @property
        def closed(self) -> bool:
            return self.descriptor < 0

        def open(self) -> None:
            """See :class:`.Line`."""
            self.descriptor, self._slave = os.openpty()
            tty.setraw(self._slave)
            os.set_blocking(self.descriptor, False)
            self.path = os.ttyname(self._slave)
            if self._watched:
                try:
                    self.watch = OpenWatch(self.path)
                except OSError as error:
                    self.close()
                    raise CanInitializationError(
                        f"cannot see when a program opens {self.path}: {error.strerror}"
                    ) from error
            if self._link:
                try:
                    self._point(self._link)
                except OSError as error:
                    self.close()
                    raise CanInitializationError(
                        f"cannot link {self._link}: {error.strerror}"
                    ) from error

        def close(self) -> None:
            """See :class:`.Line`."""
            if self.closed:
                return
            if self.watch is not None:
                self.watch.close()
                self.watch = None
            os.close(self.descriptor)
            os.close(self._slave)
            self.descriptor = self._slave = -1
            if self._link:
                self._link.unlink(missing_ok=True)

        def sources(self, wants_data: bool) -> Sequence[int]:
            """See :class:`.Line`."""
            found = [self.descriptor] if wants_data else []
            return found if self.watch is None else [*found, self.watch.fileno()]

        def targets(self) -> Sequence[int]:
            """See :class:`.Line`."""
            return [self.descriptor]

        def was_opened(self) -> bool:
            """See :class:`.Line`."""
            return self.watch is not None and self.watch.seen()

        def has_data(self) -> bool:
            """See :class:`.Line`."""
            return bool(select.select([self.descriptor], [], [], 0)[0])

        def read(self) -> bytes:
            """All that the host has written; a system hands out some thousand bytes at a time."""
            data = os.read(self.descriptor, _CHUNK)
            while len(data) < _CHUNK and self.has_data():
                data += os.read(self.descriptor, _CHUNK)
            return data

        def write(self, data: bytes) -> int:
            """See :class:`.Line`."""
            try:
                return os.write(self.descriptor, data)
            except BlockingIOError:
                return 0

        def _point(self, link: Path) -> None:
            fresh = link.with_name(f".{link.name}.{os.getpid()}")
            fresh.symlink_to(self.path)
            fresh.replace(link)  # at no moment without a target
