"""How the threads of an actor talk: a queue with a descriptor that a Waiter can watch."""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

from canbroker.system.wake import Wake

_T = TypeVar("_T")


class Mailbox(Generic[_T]):
    """Messages for one thread, from any thread, in order.

    Not bounded by itself: what is put here is bounded by what caused it (transmits by credit,
    the rest by the number of clients and threads).
    """

    def __init__(self) -> None:
        self._messages: deque[_T] = deque()
        self._wake = Wake()

    def fileno(self) -> int:
        return self._wake.fileno()

    def put(self, message: _T) -> None:
        self._messages.append(message)
        self._wake.set()

    def take(self) -> list[_T]:
        """All messages there are; the descriptor is readable again when the next one comes."""
        self._wake.clear()  # first: what is put from here on sets it again
        taken = []
        while self._messages:
            taken.append(self._messages.popleft())
        return taken

    def close(self) -> None:
        self._wake.close()
