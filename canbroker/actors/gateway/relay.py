"""Passes messages between remote clients and the sockets of the broker's side."""

from __future__ import annotations

import logging
import re
from collections import Counter
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from canbroker.actors.gateway.session import RETRY_NS, UNKNOWN, Session
from canbroker.actors.gateway.upstream import RefusedError, TransmitUpstream, opener
from canbroker.errors import CanInitializationError
from canbroker.system import clock
from canbroker.system.descriptors import share
from canbroker.system.throttle import Throttle
from canbroker.transport.address import IpcAddress
from canbroker.transport.front import Arrival, Front
from canbroker.transport.selector import SocketSelector
from canbroker.transport.sockets import Context

#: The most sessions; each has two descriptors.
MAX_SESSIONS: Final = 4_096

#: The name of a socket in the runtime directory, and the secret of the client's socket.
_PEER: Final = re.compile(rb"([A-Za-z0-9_.-]{1,64})/([0-9a-f]{32})")

#: Messages of clients that are passed on before messages to them have their turn.
_AT_ONCE: Final = 256

#: How often sessions are looked at, and connections that have ended are followed up.
_LOOK_NS: Final = clock.SECOND // 4

_logger = logging.getLogger(__name__)


class Verdict(NamedTuple):
    """What becomes of a client's message. ``answer``: what the client is told instead of passing
    the message on. ``close``: the session ends. Neither: the message is passed on."""

    answer: bytes | None = None
    close: bool = False


class Policy(Protocol):
    """Decides about each message of a client, before it is passed on."""

    def judge(self, user: str, socket: str, body: bytes) -> Verdict:
        """
        :param user: the user's name.
        :param socket: the name of the socket that the message is for.
        """


class Relay:
    """The sessions of all clients' sockets. One thread.

    ``refused`` counts what was refused, by its reason.
    """

    def __init__(
        self, front: Front, directory: Path, policy: Policy, selector: SocketSelector[object]
    ) -> None:
        """
        :param directory: the broker's runtime directory.
        :param selector: reports sessions, and ``front`` for its socket and its monitor.
        """
        self.sessions: dict[bytes, Session] = {}
        self.refused: Counter[str] = Counter()
        self._front = front
        self._directory = directory
        self._policy = policy
        self._selector = selector
        self._context = Context()
        self._stalled: dict[bytes, Session] = {}
        self._ended: set[int] = set()  # connections
        self._look_ns = 0
        self._noted = Throttle(_logger)

    def __repr__(self) -> str:
        return f"<Relay sessions={len(self.sessions)} stalled={len(self._stalled)}>"

    def step(self, now_ns: int) -> int:
        """Does what is due at ``now_ns``; returns when to call it again (monotonic ns)."""
        for session in list(self._stalled.values()):
            session.retry(self._front.send, now_ns)
            self._settle(session, now_ns)
        if now_ns >= self._look_ns:
            self._look_ns = now_ns + _LOOK_NS
            self._look(now_ns)
        return min(self._look_ns, now_ns + RETRY_NS) if self._stalled else self._look_ns

    def ended(self, connections: list[int]) -> None:
        """These connections have ended: their sessions are looked at."""
        self._ended.update(connections)

    def receive(self) -> None:
        """Passes on what clients have sent."""
        for _ in range(_AT_ONCE):
            arrival = self._front.receive()
            if arrival is None:
                break
            self._arrived(arrival)
        self._selector.used(self._front.socket)

    def relay(self, session: Session, now_ns: int) -> None:
        """Passes on what has arrived for a client's socket."""
        if session.peer not in self.sessions or session.stalled:
            return
        session.relay(self._front.send, now_ns)
        self._settle(session, now_ns)
        self._selector.used(self._front.socket)

    def end_user(self, name: str) -> None:
        """Ends the sessions of a user, and their connections."""
        for session in [s for s in self.sessions.values() if s.name == name]:
            self._front.hang_up(session.connection)
            self._close(session)

    def close(self) -> None:
        for session in list(self.sessions.values()):
            self._close(session)
        self._context.close()

    # ------------------------------------------------------------------------------ from clients

    def _arrived(self, arrival: Arrival) -> None:
        session = self.sessions.get(arrival.peer)
        if session is None:
            session = self._open(arrival)
            if session is None:
                return
        elif session.user != arrival.user and not self._reconnected(session, arrival):
            return
        session.connection = arrival.connection
        if arrival.body is None:
            self._refuse(session, "a message with several parts")
            return
        self._forward(session, arrival.body)

    def _forward(self, session: Session, body: bytes) -> None:
        verdict = self._policy.judge(session.name, session.socket, body)
        if verdict.close:
            self._refuse(session, "a message that is not allowed")
        elif verdict.answer is not None:
            self._front.send(session.peer, [verdict.answer])
        else:
            try:
                session.upstream.forward(body)
            except RefusedError as error:
                self._refuse(session, str(error))
                return
            self._selector.used(session.upstream.socket)

    def _open(self, arrival: Arrival) -> Session | None:
        """The session of a socket that has not sent anything before; ``None`` if it is refused."""
        named = _PEER.fullmatch(arrival.peer)
        socket = named[1].decode() if named else ""
        open_it = opener(socket)
        if open_it is None:
            self._turn_away(arrival, "a socket that is not there")
            return None
        if len(self.sessions) >= min(MAX_SESSIONS, share()):
            self._turn_away(arrival, f"more than {len(self.sessions)} sockets")
            return None
        try:
            upstream = open_it(self._context, self._at(socket), arrival.peer)
        except CanInitializationError as error:
            self._turn_away(arrival, str(error))
            return None
        session = Session(arrival.peer, socket, arrival.user, upstream)
        self.sessions[arrival.peer] = session
        self._selector.add(upstream.socket, session)
        return session

    def _reconnected(self, session: Session, arrival: Arrival) -> bool:
        """The session's socket has connected again, or another one has its secret; whether the
        session goes on."""
        if session.name != arrival.user.partition("#")[0]:
            _logger.warning(
                "user %r has used the secret of a socket of %r: both are disconnected",
                arrival.user.partition("#")[0],
                session.name,
            )
            self._turn_away(arrival, "a socket of another user")
            self._close(session)
            return False
        session.user = arrival.user
        if not session.socket.endswith(".tx"):
            return True
        # What was under way is lost. By a new connection, the channel answers for it itself;
        # otherwise its OK for a later request would confirm the lost ones.
        try:
            upstream = TransmitUpstream(self._context, self._at(session.socket))
        except CanInitializationError as error:
            self._refuse(session, str(error))
            return False
        self._selector.remove(session.upstream.socket)
        self._stalled.pop(session.peer, None)
        session.replace(upstream)
        self._selector.add(upstream.socket, session)
        return True

    def _at(self, socket: str) -> IpcAddress:
        return IpcAddress(self._directory / socket)

    def _refuse(self, session: Session, why: str) -> None:
        """Ends a session for what it has sent, and its connection."""
        self.refused[why] += 1
        self._noted.note("session ended", f"{session!r}: {why}")
        self._front.hang_up(session.connection)
        self._close(session)

    def _turn_away(self, arrival: Arrival, why: str) -> None:
        self.refused[why] += 1
        self._noted.note("connection ended", f"of {arrival.user}: {why}")
        self._front.hang_up(arrival.connection)

    # -------------------------------------------------------------------------------- to clients

    def _settle(self, session: Session, now_ns: int) -> None:
        """Begins or ends the wait for a client's socket."""
        if session.is_gone(now_ns):
            self._close(session)
        elif session.stalled and session.peer not in self._stalled:
            self._stalled[session.peer] = session
            self._selector.pause(session.upstream.socket)
        elif not session.stalled and self._stalled.pop(session.peer, None) is not None:
            self._selector.resume(session.upstream.socket)

    def _look(self, now_ns: int) -> None:
        for session in list(self.sessions.values()):
            try:
                session.upstream.step(now_ns)
            except RefusedError as error:
                self._refuse(session, str(error))
                continue
            if session.connection in self._ended or (self._ended and session.connection == UNKNOWN):
                session.look(self._front.send, now_ns)
                self._settle(session, now_ns)
        self._ended.clear()

    def _close(self, session: Session) -> None:
        if self.sessions.pop(session.peer, None) is not None:
            self._stalled.pop(session.peer, None)
            self._selector.remove(session.upstream.socket)
            session.close()
