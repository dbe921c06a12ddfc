"""Whose the tasks are, and which of these clients are gone."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator
from typing import Final

from canbroker.actors.scheduler.journal import Journal
from canbroker.actors.scheduler.schedule import Task
from canbroker.system import clock
from canbroker.system.processes import end_of, is_alive, start_of
from canbroker.transport.waiter import Waiter

#: A client has this long to connect to a scheduler that was started again. So often one that was
#: not seen on its channel is looked for.
_RETURN_NS: Final = 10 * clock.SECOND


class Owner:
    """A client that has tasks. ``seen``: the epoch in which it was last seen on each channel."""

    __slots__ = (
        "client_id",
        "ended",
        "identity",
        "look_ns",
        "pid",
        "process",
        "seen",
        "started",
        "tasks",
    )

    def __init__(self, client_id: str, pid: int, seen: dict[str, int]) -> None:
        self.client_id = client_id
        self.pid = pid
        self.identity = client_id.encode()  # of its connection: that of one that comes back, too
        self.tasks: dict[int, Task] = {}
        self.seen = seen
        self.process = end_of(pid)  # readable when it has ended
        self.started = start_of(pid)
        self.ended = self.process is None and not is_alive(pid)
        self.look_ns = clock.monotonic_ns() + _RETURN_NS


class Owners:
    """The clients that have tasks, by their ids. One thread.

    A client is gone when its process has ended, also if it has children that live on with its
    connections; when it has left its channel; and when neither a scheduler nor its channel has
    seen it go, because they were started again meanwhile: if it is not connected any more.
    """

    def __init__(
        self, waiter: Waiter, journal: Journal, is_connected: Callable[[bytes], bool]
    ) -> None:
        """``is_connected`` tells of the identity of a client's connection."""
        self._owners: dict[str, Owner] = {}
        self._waiter = waiter
        self._journal = journal
        self._is_connected = is_connected

    def __len__(self) -> int:
        return len(self._owners)

    def __iter__(self) -> Iterator[Owner]:
        return iter(list(self._owners.values()))

    def find(self, client_id: str) -> Owner | None:
        return self._owners.get(client_id)

    def of(self, client_id: str, pid: int) -> Owner:
        """The client of that id, a new one if it has no tasks yet."""
        owner = self._owners.get(client_id)
        if owner is None:
            owner = Owner(client_id, pid, self._journal.seen(client_id))
            self._owners[client_id] = owner
            if owner.process is not None:
                self._waiter.add(owner.process)
        return owner

    def remove(self, owner: Owner) -> None:
        """Forgets one that has no tasks."""
        del self._owners[owner.client_id]
        self._journal.forget(owner.client_id)
        self._unwatch(owner)

    def close(self) -> None:
        for owner in self:
            self._unwatch(owner)

    def see(self, channel: str, epoch: int, present: Collection[str]) -> None:
        """These clients are on a channel."""
        for client_id in present:
            owner = self._owners.get(client_id)
            if owner is not None and owner.seen.get(channel) != epoch:
                owner.seen[channel] = epoch
                self._journal.saw(client_id, channel, epoch)

    def ended(self, ready: set[object]) -> list[Owner]:
        """Those whose process has ended; ``ready``: what is readable."""
        ended = [owner for owner in self if owner.process in ready]
        for owner in ended:
            owner.ended = True
            self._unwatch(owner)
        return ended

    def last_seen(self, channel: str) -> tuple[int, set[str]]:
        """The last epoch in which any of them was seen on a channel, and who was in that."""
        seen = {o.client_id: o.seen[channel] for o in self if channel in o.seen}
        epoch = max(seen.values(), default=0)
        return epoch, {client_id for client_id, at in seen.items() if at == epoch}

    def is_gone(self, owner: Owner, now_ns: int) -> bool:
        """Whether one is gone that was not seen on its channel since the channel's epoch began."""
        if owner.ended:
            return True
        if now_ns < owner.look_ns:
            return False
        owner.look_ns = now_ns + _RETURN_NS
        return not self._is_connected(owner.identity)

    def use(self, journal: Journal) -> None:
        """As of :meth:`TaskBook.use`."""
        self._journal = journal
        for owner in self:
            for channel, epoch in owner.seen.items():
                journal.saw(owner.client_id, channel, epoch)

    def _unwatch(self, owner: Owner) -> None:
        process, owner.process = owner.process, None
        if process is not None:
            self._waiter.remove(process)
            os.close(process)
