"""A flag with a file descriptor: one thread sets it, another one polls it.

Linux has eventfd for that. Elsewhere it is a pair of sockets, as Windows cannot wait for pipes.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from canbroker.system import locks
from canbroker.system.handles import Handle, SocketPair
from canbroker.system.locks import Rank
from canbroker.system.portable import PORTABLE


class PairWake:
    """A level-triggered flag with a descriptor: readable from :meth:`set` until :meth:`clear`.

    Any thread may call any method; after :meth:`close` they do nothing. If a signal handler raises
    in one of them, the flag may stay readable, but never stays unreadable when it is set.
    """

    def __init__(self) -> None:
        """:raises CanOperationError: no descriptors are left."""
        self._lock = locks.make(Rank.WAKE)
        self._set = False
        self._pair = SocketPair()

    def fileno(self) -> int:
        return self._pair.fileno()

    def sending(self) -> int:
        """The descriptor of the socket by which it is set, for :func:`signal.set_wakeup_fd`. What
        comes by it is not cleared."""
        return self._pair.ends[1].fileno()

    @property
    def is_set(self) -> bool:
        return self._set

    def set(self) -> None:
        with self._lock:
            if not self._set and self._pair.fileno() >= 0:
                self._pair.ends[1].send(b"\x01")
                self._set = True  # after sending: if that is interrupted, it can be set again

    def clear(self) -> None:
        with self._lock:
            if self._set and self._pair.fileno() >= 0:
                self._set = False  # before receiving, likewise
                self._pair.ends[0].recv(4096)

    def close(self) -> None:
        with self._lock:
            self._pair.close()


if sys.platform == "linux":

    class EventWake:
        """As :class:`PairWake`, with an eventfd."""

        def __init__(self) -> None:
            """:raises CanOperationError: no descriptors are left."""
            self._lock = locks.make(Rank.WAKE)
            self._set = False
            self._event = Handle(os.eventfd, 0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

        def fileno(self) -> int:
            return self._event.fileno()

        @property
        def is_set(self) -> bool:
            return self._set

        def set(self) -> None:
            with self._lock:
                if not self._set and (number := self._event.fileno()) >= 0:
                    os.write(number, b"\x01\0\0\0\0\0\0\0")
                    self._set = True  # after writing, as above

        def clear(self) -> None:
            with self._lock:
                if self._set and (number := self._event.fileno()) >= 0:
                    self._set = False  # before reading, likewise
                    os.read(number, 4096)

        def close(self) -> None:
            with self._lock:
                self._event.close()


if TYPE_CHECKING or PORTABLE:  # noqa: SIM108 - mypy reads it
    Wake = PairWake
else:
    Wake = EventWake
