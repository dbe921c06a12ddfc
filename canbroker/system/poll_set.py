"""A set of descriptors that can be waited for as one. Only Linux has such sets."""

from __future__ import annotations

import select
import sys
from typing import Protocol

from canbroker.errors import CanOperationError
from canbroker.system import handles
from canbroker.system.pollers import READ, WRITE


class PollSet(Protocol):
    """Readable while one of its descriptors is. Those that are closed leave it, once
    no other process has a copy."""

    def add(self, descriptor: int) -> None:
        """Of interest is when it can be read."""

    def change(self, descriptor: int, *, writable: bool) -> None:
        """``writable``: it is also of interest when it can be written."""

    def remove(self, descriptor: int) -> None: ...

    def happened(self, at_most: int) -> list[tuple[int, int]]:
        """Those of interest now, with what they are of :data:`WRITE` and others. After more than
        ``at_most``, the next ones come next time."""

    def fileno(self) -> int: ...

    def close(self) -> None:
        """Idempotent."""


if sys.platform == "linux":

    class _Epoll:
        def __init__(self) -> None:
            try:
                self._epoll = select.epoll()
            except OSError as error:
                raise CanOperationError(f"no descriptor: {handles.explained(error)}") from error
            self._poll = self._epoll.poll
            self.remove = self._epoll.unregister
            self.fileno = self._epoll.fileno
            self.close = self._epoll.close

        def add(self, descriptor: int) -> None:
            self._epoll.register(descriptor, READ)

        def change(self, descriptor: int, *, writable: bool) -> None:
            self._epoll.modify(descriptor, READ | WRITE if writable else READ)

        def happened(self, at_most: int) -> list[tuple[int, int]]:
            return self._poll(0, at_most)

    def poll_set() -> PollSet:
        """An empty set.

        :raises CanOperationError: no descriptor is left.
        """
        return _Epoll()

else:

    def poll_set() -> PollSet:
        raise NotImplementedError("only Linux polls a set of descriptors as one")
