"""Which clients are present on a channel, and which of them alone may transmit. Recv thread."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from canbroker.delivery.publisher import Leaving, Presence
from canbroker.delivery.replayer import Served
from canbroker.model.filters import FilterSet
from canbroker.wire.stream import ClientInfo, Holder

#: Characters of a client's filters in the state, which names all clients and has to fit a message.
_SHOWN: Final = 512


class Clients:
    """The clients that are present, with their filters and claims, in the order of their arrival.

    A client is present while it has a private topic. It has two for a moment when it changes its
    filters.
    """

    def __init__(self, served: dict[str, Served]) -> None:
        """``served``: the replayer's counts by client; those of clients that leave are removed."""
        self._served = served
        self._filters: dict[str, list[FilterSet]] = {}  # by client, one for each of its topics
        self._infos: dict[str, ClientInfo] = {}
        self._claims: dict[str, str] = {}  # client -> its name; the first one is the holder
        self._awaited: set[str] = set()  # clients whose leaving somebody wants to be told of

    def __len__(self) -> int:
        return len(self._filters)

    def __contains__(self, client_id: object) -> bool:
        return client_id in self._filters

    @property
    def holder(self) -> Holder | None:
        """The only client that may transmit: the first one that claimed that; ``None``: all may."""
        return next((Holder(*claim) for claim in self._claims.items()), None)

    def note(self, changes: Iterable[Presence | Leaving]) -> tuple[list[Presence], list[str]]:
        """Notes changes; returns the topics that were joined, and the clients that have left.

        A client that leaves and comes back within ``changes`` is in both.
        """
        come: list[Presence] = []
        gone: list[str] = []
        for change in changes:
            if isinstance(change, Leaving):
                self._awaited.add(change.client_id)
            elif change.present:
                self._join(change)
                come.append(change)
            elif self._has_left(change):
                gone.append(change.client_id)
        return come, gone

    def left(self) -> list[str]:
        """The clients that are not present and somebody wanted to be told of; each one once."""
        left = [client_id for client_id in self._awaited if client_id not in self._filters]
        self._awaited.difference_update(left)
        return left

    def infos(self) -> list[ClientInfo]:
        """What the state says of each client."""
        return list(self._infos.values())

    def describe(self, client_id: str) -> None:
        """Renews what the state says of a client; for a thousand that is too slow each time."""
        shown = self._filters[client_id][-1].text[:_SHOWN]
        served = self._served.get(client_id, Served())
        self._infos[client_id] = ClientInfo(client_id, shown, *served)

    def _join(self, change: Presence) -> None:
        known = self._filters.setdefault(change.client_id, [])
        # XPUB reports every subscription to a topic, but only the end of the last one.
        if change.filters not in known:
            known.append(change.filters)
            self.describe(change.client_id)
        if change.claim is not None:
            self._claims.setdefault(change.client_id, change.claim)

    def _has_left(self, change: Presence) -> bool:
        """Notes the end of a topic; whether it was the client's last one."""
        client_id = change.client_id
        known = self._filters.setdefault(client_id, [])
        if change.filters in known:
            known.remove(change.filters)
        if known:
            self.describe(client_id)
            return False
        del self._filters[client_id]
        self._infos.pop(client_id, None)
        self._served.pop(client_id, None)
        self._claims.pop(client_id, None)
        return True
