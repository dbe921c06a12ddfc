"""The users of a gateway: their keys, their present rights, and the account of what they do."""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict, deque
from typing import Any, Final

from canbroker.actors.gateway.audit import Audit
from canbroker.actors.gateway.methods import User
from canbroker.actors.gateway.policy import Refused
from canbroker.keys.authorized import AuthorizedFile, Grant, Role
from canbroker.model.key import PublicKey
from canbroker.transport.zap import Peer

#: The only user of an unencrypted listener, which cannot tell users apart: anybody on this host.
UNENCRYPTED: Final = User(Grant("unencrypted", (), Role.ADMIN), owner=None)

#: Handshakes with unknown keys that are remembered for the audit log; others are counted.
_STRANGERS: Final = 64

#: Users whose refusals the broker is told of: a report is short.
_SHOWN: Final = 32


class Users:
    """The users of a gateway. One thread, except :meth:`admit`.

    ``refused`` counts refusals: by user, then by kind.
    """

    def __init__(self, authorized: AuthorizedFile, audit: Audit, *, encrypted: bool) -> None:
        """``encrypted``: keys tell users apart; else everybody is :data:`UNENCRYPTED`."""
        self.refused: defaultdict[str, Counter[str]] = defaultdict(Counter)  # name -> kinds
        self._authorized = authorized
        self._audit = audit
        self._encrypted = encrypted
        self._strangers: deque[tuple[PublicKey | None, str]] = deque(maxlen=_STRANGERS)

    def __repr__(self) -> str:
        return f"<Users authorized={len(self._authorized.current.grants)}>"

    @property
    def fault(self) -> str:
        """What is wrong with the file of users; empty if nothing is."""
        return self._authorized.fault or ""

    def admit(self, key: PublicKey | None, address: str) -> str | None:
        """[thread of the handshakes] The name of the user with that key, if there is one."""
        if key is None and not self._encrypted:
            return UNENCRYPTED.grant.name
        grant = None if key is None else self._authorized.current.by_key.get(key)
        if grant is None:
            self._strangers.append((key, address))
            return None
        return grant.name

    def of(self, peer: Peer) -> User | None:
        """The user of this connection, with its present rights; ``None`` if its key is revoked."""
        if peer.key is None:
            return None if self._encrypted else UNENCRYPTED
        grant = self._authorized.current.by_key.get(peer.key)
        return None if grant is None else User.of(grant, peer.key)

    def follow(self) -> bool:
        """Reads the file of users again if it has changed; returns whether rights have."""
        before = self._authorized.current.grants
        if not self._authorized.poll():
            return False
        now = self._authorized.current.grants
        for name in before.keys() | now.keys():
            if before.get(name) != now.get(name):
                self._note_change(name, now.get(name))
        return True

    def refuse(self, name: str, refused: Refused, socket: str) -> None:
        """Counts a refusal, and writes it down."""
        self.refused[name][refused.kind] += 1
        self._audit.note("refused", name, refused.kind, socket=socket, why=refused.sentence)

    def note(self, event: str, name: str, kind: str = "", **fields: str) -> None:
        """Writes down what a user has done; see :meth:`Audit.note`."""
        self._audit.note(event, name, kind, **fields)

    def step(self, now_ns: int) -> None:
        """Writes to the audit log what was put off. Call it about every second."""
        while self._strangers:
            key, address = self._strangers.popleft()
            self._audit.note("unauthorized", "", key=str(key or ""), address=address)
        self._audit.step(now_ns)

    def refusals(self) -> dict[str, dict[str, int]]:
        """The number of refusals by user and kind, of the users with the most."""
        names = heapq.nlargest(_SHOWN, self.refused, key=lambda name: self.refused[name].total())
        return {name: dict(self.refused[name]) for name in names}

    def close(self) -> None:
        self._audit.close()

    def _note_change(self, name: str, grant: Grant | None) -> None:
        fields: dict[str, Any] = {"role": "none"}
        if grant is not None:
            fields = {"role": str(grant.role), "keys": " ".join(map(str, grant.keys))}
            if grant.channels is not None:
                fields["channels"] = " ".join(grant.channels)
            if grant.transmit is not None:
                fields["transmit"] = " ".join(map(str, grant.transmit))
        self._audit.write("rights", name, **fields)
