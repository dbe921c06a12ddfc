"""The threads of an actor exchange messages in queues that a Waiter can watch."""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

from canbroker.system.wake import Wake

_T = TypeVar("_T")


class Mailbox(Generic[_T]):
    """Messages for one thread, from any thread, in order.

    It has no limit of its own: credit limits the transmits, the number of clients and threads
    limits all other messages.
    """

    def __init__(self) -> None:
        self._messages: deque[_T] = deque()
        self._wake = Wake()

    def fileno(self) -> int:
        return self._wake.fileno()

    def put(self, message: _T) -> None:
        self._messages.append(message)
        self._wake.set()

    def wake(self) -> None:
        """Wakes its thread without a message."""
        self._wake.set()

    def take(self) -> list[_T]:
        """All messages that wait; the descriptor becomes readable again with the next one."""
        self._wake.clear()  # first: a message that comes from here on sets it again
        taken = []
        while self._messages:
            taken.append(self._messages.popleft())
        return taken

    def close(self) -> None:
        self._wake.close()
