"""The owners of tasks, and which of these clients are gone."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator
from typing import Final

from canbroker.actors.scheduler.journal import Journal
from canbroker.actors.scheduler.schedule import Task
from canbroker.system import clock
from canbroker.system.processes import end_of, is_alive, start_of
from canbroker.transport.waiter import Waiter

#: A client has this long to reconnect to a restarted scheduler. A client that was not seen on its
#: channel is looked for as often.
RETURN_NS: Final = 10 * clock.SECOND


class Owner:
    """A client that has tasks. ``seen``: for each channel, the epoch in which it was last seen."""

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

    def __init__(self, client_id: str, pid: int, seen: dict[str, int], now_ns: int) -> None:
        self.client_id = client_id
        self.pid = pid
        self.identity = client_id.encode()  # of its connection, also after a reconnect
        self.tasks: dict[int, Task] = {}
        self.seen = seen
        self.process = end_of(pid)  # readable when it has ended
        self.started = start_of(pid)
        self.ended = self.process is None and not is_alive(pid)
        self.look_ns = now_ns + RETURN_NS


class Owners:
    """The clients that have tasks, by their ids. One thread.

    A client is gone when its process has ended, even if children live on that have inherited its
    connections, and when it has left its channel. If scheduler or channel were restarted meanwhile
    and could not see it go, it is gone when it is not connected any more.
    """

    def __init__(
        self, waiter: Waiter, journal: Journal, is_connected: Callable[[bytes], bool]
    ) -> None:
        """``is_connected``: whether a client is, by the identity of its connection."""
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

    def of(self, client_id: str, pid: int, now_ns: int) -> Owner:
        """The client of that id; it is added if it has no tasks yet."""
        owner = self._owners.get(client_id)
        if owner is None:
            owner = Owner(client_id, pid, self._journal.seen(client_id), now_ns)
            self._owners[client_id] = owner
            if owner.process is not None:
                self._waiter.add(owner.process)
        return owner

    def remove(self, owner: Owner) -> None:
        """Forgets a client that has no tasks any more."""
        del self._owners[owner.client_id]
        self._journal.forget(owner.client_id)
        self._unwatch(owner)

    def close(self) -> None:
        for owner in self:
            self._unwatch(owner)

    def see(self, channel: str, epoch: int, present: Collection[str]) -> None:
        """Notes that these clients are on a channel."""
        for client_id in present:
            owner = self._owners.get(client_id)
            if owner is not None and owner.seen.get(channel) != epoch:
                owner.seen[channel] = epoch
                self._journal.saw(client_id, channel, epoch)

    def ended(self, ready: set[object]) -> list[Owner]:
        """The clients whose process has ended; ``ready``: the readable descriptors."""
        ended = [owner for owner in self if owner.process in ready]
        for owner in ended:
            owner.ended = True
            self._unwatch(owner)
        return ended

    def last_seen(self, channel: str) -> tuple[int, set[str]]:
        """The last epoch of a channel in which any client was seen there, and these clients."""
        seen = {o.client_id: o.seen[channel] for o in self if channel in o.seen}
        epoch = max(seen.values(), default=0)
        return epoch, {client_id for client_id, at in seen.items() if at == epoch}

    def is_gone(self, owner: Owner, now_ns: int) -> bool:
        """Whether a client is gone that was not seen on its channel in the channel's epoch."""
        if owner.ended:
            return True
        if now_ns < owner.look_ns:
            return False
        owner.look_ns = now_ns + RETURN_NS
        return not self._is_connected(owner.identity)

    def use(self, journal: Journal) -> None:
        """Writes all of them to another journal; see :meth:`TaskBook.use`."""
        self._journal = journal
        for owner in self:
            for channel, epoch in owner.seen.items():
                journal.saw(owner.client_id, channel, epoch)

    def _unwatch(self, owner: Owner) -> None:
        process, owner.process = owner.process, None
        if process is not None:
            self._waiter.remove(process)
            os.close(process)
