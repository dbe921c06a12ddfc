"""Processes whose connections were ended: they may not come back at once."""

from __future__ import annotations

from typing import Final

from canbroker.system import clock

#: How long a process is kept out. libzmq gives up a connection that is not made within 30 s.
KEPT_OUT_S: Final = 10


class KeptOut:
    """Shared by the sockets of a process, whose threads use it one at a time."""

    def __init__(self) -> None:
        self._until: dict[int, int] = {}  # by process, monotonic ns

    def add(self, process: int, now_ns: int) -> None:
        """Keeps this process out from now on."""
        self._until = {other: until for other, until in self._until.items() if until > now_ns}
        self._until[process] = now_ns + KEPT_OUT_S * clock.SECOND

    def until(self, process: int) -> int:
        """When this process may connect (monotonic); 0: it is not kept out."""
        return self._until.get(process, 0)
