"""The channels that clients have opened, kept for the successor of a broker that is killed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import msgspec

from canbroker.broker import handover
from canbroker.broker.channel_slot import ChannelSlot, Client
from canbroker.system import clock
from canbroker.system.processes import same_start, start_of
from canbroker.transport.runtime import Runtime

#: Changes of clients are written this often; changes of channels at once.
_INTERVAL_NS: Final = clock.SECOND


class Member(msgspec.Struct):
    """A client. ``started`` is the start of its process, in clock ticks since boot."""

    client_id: str
    pid: int
    started: int | None
    program: str

    def lives(self) -> bool:
        """Whether its process still runs."""
        return self.started is not None and same_start(start_of(self.pid), self.started)


class Entry(msgspec.Struct):
    """A channel with clients. ``listen_only`` is the mode that a client has set."""

    name: str
    interface: str
    parameters: dict[str, Any]
    listen_only: bool | None
    clients: list[Member]

    def client_table(self) -> dict[str, Client]:
        """The clients whose processes still live, by client id, as the broker keeps them."""
        now = clock.monotonic_ns()
        return {
            member.client_id: Client(member.pid, member.program, now, member.started)
            for member in self.clients
            if member.lives()
        }


class Register:
    """The register is a file in the runtime directory. Used by the broker's one thread."""

    def __init__(self, runtime: Runtime) -> None:
        self._path = runtime.channels_path
        self._written: list[Entry] = []
        self._due_ns = 0

    def load(self) -> list[Entry]:
        """The entries that a killed broker has left."""
        return handover.read(self._path, Entry)

    def record(self, slots: Iterable[ChannelSlot], *, anew: bool = False) -> None:
        """Writes down which channels have clients.

        Only if that has changed, or ``anew``, because the file was removed.
        """
        now = clock.monotonic_ns()
        used = [slot for slot in slots if slot.clients]
        names = [entry.name for entry in self._written]
        if not anew and now < self._due_ns and [slot.name for slot in used] == names:
            return
        self._due_ns = now + _INTERVAL_NS
        entries = [_entry(slot) for slot in used]
        if entries == self._written and not anew:
            return
        self._written = entries
        handover.write(self._path, entries)


def _entry(slot: ChannelSlot) -> Entry:
    return Entry(
        slot.name,
        slot.interface,
        slot.parameters,
        slot.listen_only,
        [
            Member(client_id, client.pid, client.started, client.program)
            for client_id, client in slot.clients.items()
        ],
    )
