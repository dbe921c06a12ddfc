"""The gateway actor: one process, one port, and the sessions of all remote clients."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from typing import Any, Final

from canbroker.actors.gateway.audit import Audit
from canbroker.actors.gateway.relay import Relay
from canbroker.actors.gateway.session import Session
from canbroker.actors.gateway.users import Users
from canbroker.actors.kinds import Beat
from canbroker.actors.lifelines import Lifelines
from canbroker.actors.specs import GatewaySpec
from canbroker.errors import CanInitializationError
from canbroker.keys.authorized import AuthorizedFile, authorized_path
from canbroker.keys.broker_key import load_broker_key
from canbroker.keys.offer import KeyOffer
from canbroker.model.key import PublicKey, SecretKey
from canbroker.system import clock
from canbroker.transport.address import parse_listen
from canbroker.transport.curve import public_of
from canbroker.transport.front import Front
from canbroker.transport.runtime import Runtime
from canbroker.transport.selector import SocketSelector

#: How often the file of users is looked at.
_POLL_NS: Final = clock.SECOND // 5

#: Users, and characters of a fault, that the broker is told of: a report is short.
_SHOWN: Final = 64
_SHOWN_TEXT: Final = 1_024

_logger = logging.getLogger(__name__)


class GatewayActor:
    """Once made, it listens.

    :raises CanInitializationError: the broker's key cannot be read, or the port is taken.
    """

    def __init__(self, spec: GatewaySpec) -> None:
        address = parse_listen(spec.listen)
        secret: SecretKey | None = load_broker_key() if address.encrypted else None
        runtime = Runtime.at(spec.address)
        self._users = Users(
            AuthorizedFile(authorized_path()),
            Audit(runtime.audit_path),
            encrypted=address.encrypted,
        )
        self._selector = SocketSelector[object]()
        self._poll_ns = 0
        self._beat_ns = 0
        self._offer: KeyOffer | None = None
        with ExitStack() as on_error:
            on_error.callback(self._selector.close)
            self._front = Front(address, secret, self._users.admit)
            on_error.callback(self._front.close)
            self.address = self._front.address
            self.key = None if secret is None else public_of(secret)
            if self.key is not None:
                self._offer = self._offered(self.key)
            on_error.pop_all()
        self._relay = Relay(self._front, runtime.directory, self._users, self._selector)
        self._selector.add(self._front.socket, self._front)
        self._selector.add(self._front.monitor, self._front.monitor)
        _logger.info("remote clients are served at %s, key %s", self.address.endpoint, self.key)

    def __repr__(self) -> str:
        return f"<GatewayActor {self.address.endpoint} sessions={len(self._relay.sessions)}>"

    def run(self, lifelines: Lifelines, beat: Beat) -> None:
        """Serves until one of ``lifelines`` becomes readable; calls ``beat`` every second."""
        for lifeline in lifelines.descriptors:
            self._selector.watch(lifeline, lifeline)
        now = due = clock.monotonic_ns()
        try:
            while True:
                if now >= due or self._relay.waits:  # not for every message
                    due = self.step(now)
                    if now >= self._beat_ns:
                        self._users.step(now)
                        beat(self.report())
                        self._beat_ns = now + clock.SECOND
                ready = self._selector.wait(due - now)
                now = clock.monotonic_ns()
                if not self._serve(ready, now):
                    return
        finally:
            self._end()

    def step(self, now_ns: int) -> int:
        """Does what is due at ``now_ns``; returns when to call it again (monotonic)."""
        if now_ns >= self._poll_ns:
            self._poll_ns = now_ns + _POLL_NS
            if self._users.follow():
                self._relay.follow_rights()
            if self._offer is not None:  # not sooner: a flood of questions takes no more time
                self._offer.answer()
        return min(self._poll_ns, self._relay.step(now_ns))

    def report(self) -> dict[str, Any]:
        """What the broker shows of the gateway."""
        sessions = self._relay.sessions.values()
        return {
            "listen": str(self.address),
            "key": "" if self.key is None else str(self.key),
            "connections": len(self._front),
            "sessions": len(sessions),
            "users": sorted({session.name for session in sessions})[:_SHOWN],
            "turned_away": self._front.turned_away,
            "refused": self._relay.refused.total(),
            "refusals": self._users.refusals(),
            "fault": self._users.fault[:_SHOWN_TEXT],
        }

    def _offered(self, key: PublicKey) -> KeyOffer | None:
        """Tells clients the broker's key that use it for the first time, if that is possible."""
        try:
            return KeyOffer(self.address.host, self.address.port, key)
        except CanInitializationError as error:
            _logger.warning("%s", error)
            return None

    def _serve(self, ready: list[object], now_ns: int) -> bool:
        """Passes on what has arrived; ``False`` if a lifeline has ended."""
        for item in ready:
            if item is self._front:
                self._relay.receive()
            elif isinstance(item, Session):
                self._relay.relay(item, now_ns)
            elif item is self._front.monitor:
                self._relay.ended(self._front.follow(now_ns))
            else:
                return False
        return True

    def _end(self) -> None:
        self._relay.close()
        if self._offer is not None:
            self._offer.close()
        self._front.close()
        self._selector.close()
        self._users.close()
