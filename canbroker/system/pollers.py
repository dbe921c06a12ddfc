"""Waits for any number of descriptors, at a cost that does not grow with them where that is known.

Linux's own is used as it is: :mod:`selectors` looks up what was registered for each event, which
takes longer than the system call.
"""

from __future__ import annotations

import select
import selectors
import sys
from typing import Final, Protocol

from canbroker.system.portable import PORTABLE

#: Something can be read; it can be written. As Linux has them.
READ: Final = 1
WRITE: Final = 4

#: Descriptors that are reported at once; the others come next.
AT_ONCE: Final = 64


class Poller(Protocol):
    """What is used of :class:`select.epoll`."""

    def register(self, descriptor: int, events: int, /) -> None: ...

    def modify(self, descriptor: int, events: int, /) -> None: ...

    def unregister(self, descriptor: int, /) -> None: ...

    def poll(self, seconds: float, at_most: int, /) -> list[tuple[int, int]]: ...

    def close(self) -> None: ...


class PortablePoller:
    """The best that this system has."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self.close = self._selector.close

    def register(self, descriptor: int, events: int) -> None:
        self._selector.register(descriptor, _named(events))

    def modify(self, descriptor: int, events: int) -> None:
        self._selector.modify(descriptor, _named(events))

    def unregister(self, descriptor: int) -> None:
        self._selector.unregister(descriptor)

    def poll(self, seconds: float, at_most: int) -> list[tuple[int, int]]:
        del at_most  # all are reported
        return [(key.fd, events) for key, events in self._selector.select(seconds)]


def poller() -> Poller:
    """Waits for nothing yet."""
    if sys.platform == "linux" and not PORTABLE:
        return select.epoll()
    return PortablePoller()


def _named(events: int) -> int:
    """As :mod:`selectors` has them."""
    reading = selectors.EVENT_READ if events & READ else 0
    return reading | (selectors.EVENT_WRITE if events & WRITE else 0)
