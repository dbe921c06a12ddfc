"""Whether the owners of leases and periodic tasks are still there.

Ownership follows presence. A process of this host is present until it ends, even if children of it
keep its connections open. An owner that names no process, such as one on another host, is present
while it is connected.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Set
from typing import Final, NamedTuple, TypeAlias

from canbroker.system import clock
from canbroker.system.processes import Process, ProcessEnd, end_of
from canbroker.transport.waiter import Waiter

#: An owner without a process has this long to connect again, for instance to the successor of a
#: broker that was killed.
RETURN_NS: Final = 10 * clock.SECOND

#: How often owners are checked that no descriptor reports.
_LOOK_NS: Final = clock.SECOND


class RemoteOwner(NamedTuple):
    """An owner that is known by the ``identity`` of its connection alone.

    The ZeroMQ routing id that it has chosen is the same after it connects again. One that has
    chosen none has another identity then, and has lost what it owned.
    """

    identity: bytes


Owner: TypeAlias = Process | RemoteOwner


class ProcessWatch:
    """Watches processes for their end. One thread."""

    def __init__(self, waiter: Waiter) -> None:
        """``waiter`` reports what :meth:`ended` is called with."""
        self._waiter = waiter
        self._ends: dict[Process, ProcessEnd | None] = {}
        self._look_ns = 0

    def watch(self, processes: Set[Process]) -> None:
        """Watches these processes, and no others."""
        for process in self._ends.keys() - processes:
            end = self._ends.pop(process)
            if end is not None:
                self._waiter.remove(end)
                end.close()
        for process in processes - self._ends.keys():
            end = self._ends[process] = end_of(process.pid)
            if end is not None:
                self._waiter.add(end)

    def ended(self, ready: Container[object], now_ns: int) -> set[Process]:
        """The watched processes that have ended.

        :param ready: what the waiter has reported.
        :param now_ns: monotonic; processes without a descriptor are checked once per second.
        """
        looks = now_ns >= self._look_ns
        if looks:
            self._look_ns = now_ns + _LOOK_NS
        return {
            process
            for process, end in self._ends.items()
            if (looks and not process.runs if end is None else end in ready)
        }


class Ownership:
    """Watches owners of both kinds. One thread."""

    def __init__(self, waiter: Waiter, is_connected: Callable[[bytes], bool]) -> None:
        """
        :param waiter: reports what :meth:`gone` is called with.
        :param is_connected: whether a peer with this identity is connected.
        """
        self._processes = ProcessWatch(waiter)
        self._is_connected = is_connected
        self._seen_ns: dict[RemoteOwner, int] = {}  # when each was last connected, monotonic
        self._look_ns = 0

    def watch(self, owners: Set[Owner], now_ns: int) -> None:
        """Watches these owners, and no others. New ones count as present at ``now_ns``."""
        self._processes.watch({owner for owner in owners if isinstance(owner, Process)})
        self._seen_ns = {
            owner: self._seen_ns.get(owner, now_ns)
            for owner in owners
            if isinstance(owner, RemoteOwner)
        }

    def gone(self, ready: Container[object], now_ns: int) -> set[Owner]:
        """The watched owners that are not there any more.

        :param ready: what the waiter has reported.
        :param now_ns: monotonic; connections are checked once per second.
        """
        gone: set[Owner] = set(self._processes.ended(ready, now_ns))
        if now_ns >= self._look_ns:
            self._look_ns = now_ns + _LOOK_NS
            for owner, seen_ns in self._seen_ns.items():
                if self._is_connected(owner.identity):
                    self._seen_ns[owner] = now_ns
                elif now_ns - seen_ns > RETURN_NS:
                    gone.add(owner)
        return gone
