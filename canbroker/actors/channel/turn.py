"""Who works: one of an actor's two threads at a time."""

from __future__ import annotations

import threading
from types import TracebackType


class Turn:
    """The right to work. While both threads want it, they get it alternately.

    Waiting is not work: a thread waits for its sockets and descriptors without it.
    """

    def __init__(self) -> None:
        self._working = threading.Lock()
        self._next = threading.Lock()  # held by the thread that gets it next

    @property
    def is_wanted(self) -> bool:
        """Whether a thread waits for it."""
        return self._next.locked()

    def begin(self) -> None:
        with self._next:
            self._working.acquire()

    def end(self) -> None:
        self._working.release()

    def give_way(self) -> None:
        """Between two pieces of work: lets the other thread work first, if it waits for that."""
        if self.is_wanted:
            self.end()
            self.begin()

    def __enter__(self) -> None:
        self.begin()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.end()
