"""The owners of tasks, and which of these clients are gone."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

from canbroker.actors.scheduler.journal import Journal
from canbroker.actors.scheduler.schedule import Task
from canbroker.system.processes import Process, is_alive, start_of
from canbroker.transport.ownership import RETURN_NS, ProcessWatch
from canbroker.transport.waiter import Waiter


class Owner:
    """A client that has tasks.

    ``process`` is ``None`` if the client named none: then it is there while it is connected.
    ``seen``: for each channel, the epoch in which it was last seen.
    """

    __slots__ = (
        "client_id",
        "ended",
        "identity",
        "look_ns",
        "process",
        "seen",
        "tasks",
    )

    def __init__(self, client_id: str, pid: int | None, seen: dict[str, int], now_ns: int) -> None:
        self.client_id = client_id
        self.identity = client_id.encode()  # of its connection, also after a reconnect
        self.tasks: dict[int, Task] = {}
        self.seen = seen
        self.process = Process(pid, start_of(pid) or 0) if pid is not None else None
        self.ended = pid is not None and not is_alive(pid)
        self.look_ns = now_ns + RETURN_NS

    @property
    def started(self) -> int | None:
        """When its process started, as :func:`start_of` says; ``None`` if that is not known."""
        return self.process.started or None if self.process is not None else None


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
        self._processes = ProcessWatch(waiter)
        self._journal = journal
        self._is_connected = is_connected

    def __len__(self) -> int:
        return len(self._owners)

    def __iter__(self) -> Iterator[Owner]:
        return iter(list(self._owners.values()))

    def find(self, client_id: str) -> Owner | None:
        return self._owners.get(client_id)

    def of(self, client_id: str, pid: int | None, now_ns: int) -> Owner:
        """The client of that id; it is added if it has no tasks yet."""
        owner = self._owners.get(client_id)
        if owner is None:
            owner = Owner(client_id, pid, self._journal.seen(client_id), now_ns)
            self._owners[client_id] = owner
            self._watch()
        return owner

    def remove(self, owner: Owner) -> None:
        """Forgets a client that has no tasks any more."""
        del self._owners[owner.client_id]
        self._journal.forget(owner.client_id)
        self._watch()

    def close(self) -> None:
        self._processes.watch(set())

    def see(self, channel: str, epoch: int, present: Collection[str]) -> None:
        """Notes that these clients are on a channel."""
        for client_id in present:
            owner = self._owners.get(client_id)
            if owner is not None and owner.seen.get(channel) != epoch:
                owner.seen[channel] = epoch
                self._journal.saw(client_id, channel, epoch)

    def ended(self, ready: set[object], now_ns: int) -> list[Owner]:
        """The clients whose process has ended; ``ready``: the readable descriptors."""
        processes = self._processes.ended(ready, now_ns)
        if not processes:
            return []
        ended = [owner for owner in self if owner.process in processes]
        for owner in ended:
            owner.ended = True
        self._watch()
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

    def _watch(self) -> None:
        """Watches the processes of all that may still have one."""
        running = (owner.process for owner in self if not owner.ended)
        self._processes.watch({process for process in running if process is not None})
