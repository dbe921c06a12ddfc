"""A set of descriptors that can be waited for as one. Only Linux has such sets."""

from __future__ import annotations

import select
import sys
from typing import Protocol

from canbroker.errors import CanOperationError
from canbroker.system import handles


class PollSet(Protocol):
    """Readable while one of its descriptors is. Those that are closed leave it."""

    def add(self, descriptor: int) -> None: ...

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
            self.fileno = self._epoll.fileno
            self.close = self._epoll.close

        def add(self, descriptor: int) -> None:
            self._epoll.register(descriptor, select.EPOLLIN)

    def poll_set() -> PollSet:
        """An empty set.

        :raises CanOperationError: no descriptor is left.
        """
        return _Epoll()

else:

    def poll_set() -> PollSet:
        raise NotImplementedError("only Linux polls a set of descriptors as one")
