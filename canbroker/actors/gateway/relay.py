"""Passes messages between remote clients and the sockets of the broker's side."""

from __future__ import annotations

import logging
import os
import re
from collections import Counter
from pathlib import Path
from typing import Final

from canbroker.actors.gateway.methods import Serves, User
from canbroker.actors.gateway.policy import (
    Answer,
    Close,
    Pass,
    Refused,
    RemoteSocket,
    Verdict,
    judge,
    loses,
    no_room,
)
from canbroker.actors.gateway.session import RETRY_NS, UNKNOWN, Session
from canbroker.actors.gateway.shares import NoRoomError, Shares
from canbroker.actors.gateway.upstream import RefusedError, TransmitUpstream, open_upstream
from canbroker.actors.gateway.users import Users
from canbroker.errors import CanInitializationError
from canbroker.system import clock
from canbroker.system.descriptors import share
from canbroker.system.throttle import Throttle
from canbroker.transport.address import IpcAddress
from canbroker.transport.front import Arrival, Front
from canbroker.transport.lines import Lines
from canbroker.transport.selector import SocketSelector
from canbroker.transport.zap import Peer

#: The most sessions; each has a descriptor, and two where sockets are portable.
MAX_SESSIONS: Final = 4_096

#: The name of a socket in the runtime directory, and the secret of the client's socket.
_PEER: Final = re.compile(rb"([A-Za-z0-9_.-]{1,64})/([0-9a-f]{32})")

#: Messages of clients that are passed on before messages to them have their turn.
_AT_ONCE: Final = 256

_ANEW_BYTES: Final = 8

#: How often sessions are looked at, and connections that have ended are followed up.
_LOOK_NS: Final = clock.SECOND // 4

_logger = logging.getLogger(__name__)


class Relay:
    """The sessions of all clients' sockets. One thread.

    ``refused`` counts what was refused, by its reason.
    """

    def __init__(
        self, front: Front, directory: Path, users: Users, selector: SocketSelector[object]
    ) -> None:
        """
        :param directory: the broker's runtime directory.
        :param selector: reports sessions, and ``front`` for its socket and its monitor.
        """
        self.sessions: dict[bytes, Session] = {}
        self.refused: Counter[str] = Counter()
        self._front = front
        self._directory = directory
        self._users = users
        self._selector = selector
        self._shares = Shares()
        self._lines = Lines(selector, MAX_SESSIONS)
        self._stalled: dict[bytes, Session] = {}
        self._ended: set[int] = set()  # connections
        self._anew: dict[bytes, bytes] = {}  # sockets whose users have lost rights
        self._look_ns = 0
        self._noted = Throttle(_logger)

    def __repr__(self) -> str:
        return f"<Relay sessions={len(self.sessions)} stalled={len(self._stalled)}>"

    @property
    def waits(self) -> bool:
        """Whether :meth:`step` may have something to do sooner than it has returned."""
        return bool(self._stalled) or self._lines.waits

    def step(self, now_ns: int) -> int:
        """Does what is due at ``now_ns``; returns when to call it again (monotonic ns)."""
        for session in list(self._stalled.values()):
            session.retry(self._front.send, now_ns)
            self._settle(session, now_ns)
        if now_ns >= self._look_ns:
            self._look_ns = now_ns + _LOOK_NS
            self._look(now_ns)
        self._selector.used(self._front.socket)  # else what arrives meanwhile would be overlooked
        due = self._lines.step(now_ns)
        due = self._look_ns if due is None else min(due, self._look_ns)
        return min(due, now_ns + RETRY_NS) if self._stalled else due

    def ended(self, connections: list[int]) -> None:
        """These connections have ended: their sessions are looked at."""
        self._ended.update(connections)

    def receive(self) -> None:
        """Passes on what clients have sent. Call it when the front's socket is reported."""
        is_reported = True
        for _ in range(_AT_ONCE):
            arrival = self._front.receive(is_reported=is_reported)
            if arrival is None:
                self._selector.seen(self._front.socket)
                return
            self._arrived(arrival)
            is_reported = False
        self._selector.used(self._front.socket)

    def relay(self, session: Session, now_ns: int) -> None:
        """Passes on messages that have arrived for a client's socket."""
        if session.stalled or self.sessions.get(session.secret) is not session:
            return
        self._selector.used(self._front.socket)
        try:
            if not session.relay(self._front.send, now_ns):
                self._settle(session, now_ns)
        except RefusedError as error:
            self._refuse(session, str(error))

    def follow_rights(self) -> None:
        """Rights have changed: ends the sessions of users that have lost some, and their
        connections. With them end the tasks, leases and queued frames that those rights allowed."""
        for session in list(self.sessions.values()):
            user = self._users.of(session.peer)
            if user is not None and not loses(session.user, user):
                session.user = user
                continue
            self._front.hang_up(session.connection)
            self._close(session)
            # If it comes back, it is another peer upstream: leases belong to the one before.
            self._anew[session.secret] = os.urandom(_ANEW_BYTES)
            if len(self._anew) > MAX_SESSIONS:
                del self._anew[next(iter(self._anew))]

    def close(self) -> None:
        for session in list(self.sessions.values()):
            self._close(session)
        self._lines.close()

    # ------------------------------------------------------------------------------ from clients

    def _arrived(self, arrival: Arrival) -> None:
        session = self.sessions.get(arrival.peer)
        if session is None:
            session = self._open(arrival)
            if session is None:
                return
        elif session.sender != arrival.user and not self._reconnected(session, arrival):
            return
        session.connection = arrival.connection
        if arrival.body is None:
            self._refuse(session, "a message with several parts")
            return
        self._judge(session, arrival.body)

    def _judge(self, session: Session, body: bytes) -> None:
        """Passes a message on, or answers it, or ends the session."""
        verdict = judge(session.user, session.socket, body)
        if type(verdict) is Pass and not (verdict.refused or verdict.noted):  # most of them
            self._forward(session, verdict.body)
        else:
            self._judged(session, verdict)

    def _judged(self, session: Session, verdict: Verdict) -> None:
        if verdict.refused is not None:
            self._users.refuse(session.name, verdict.refused, str(session.socket))
            if session.is_flooding(clock.monotonic_ns()):
                self._refuse(session, "too many messages that were refused")
                return
        match verdict:
            case Pass(body, _, noted):
                if noted is not None:
                    self._users.note(noted.event, session.name, what=noted.what)
                self._forward(session, body)
            case Answer(parts):
                now = clock.monotonic_ns()
                if parts and not session.answer(parts, self._front.send, now):
                    self._refuse(session, "answers that are not read")
                    return
                self._settle(session, now)
            case Close(refused):
                self._refuse(session, refused.sentence)

    def _forward(self, session: Session, body: bytes) -> None:
        try:
            session.upstream.forward(body)
        except RefusedError as error:
            self._refuse(session, str(error))
        except NoRoomError as error:
            self._judged(session, no_room(body, str(error)))

    def _open(self, arrival: Arrival) -> Session | None:
        """The session of a socket that has not sent anything before; ``None`` if it is refused."""
        named = _PEER.fullmatch(arrival.peer)
        socket = RemoteSocket.parse(named[1].decode()) if named else None
        if socket is None:
            self._turn_away(arrival, "a socket that is not there")
            return None
        peer = Peer.parse(arrival.user)
        user = self._users.of(peer)
        if user is None:
            self._turn_away(arrival, "a key that was revoked")
            return None
        if not self._has_room(user):
            self._turn_away(arrival, f"too many sockets ({len(self.sessions)} are open)")
            return None
        try:
            known_as = arrival.peer + self._anew.get(arrival.peer, b"")
            share = self._shares.of(user.grant.name, socket.stem)
            where = self._at(socket)
            upstream = open_upstream(self._lines, socket.serves, where, known_as, share)
        except CanInitializationError as error:
            self._turn_away(arrival, str(error))
            return None
        session = Session(arrival.peer, socket, arrival.user, user, upstream)
        self.sessions[arrival.peer] = session
        upstream.line.report_to(session)
        key, address = str(peer.key or ""), peer.address
        kind = str(socket.serves.value)
        self._users.note("connect", peer.name, kind, socket=str(socket), key=key, address=address)
        return session

    def _has_room(self, user: User) -> bool:
        """Whether the user may have another session: no user may have more than half of them."""
        most = min(MAX_SESSIONS, share())
        if len(self.sessions) < most // 2:
            return True
        name = user.grant.name
        theirs = sum(session.name == name for session in self.sessions.values())
        return len(self.sessions) < most and theirs < most // 2

    def _reconnected(self, session: Session, arrival: Arrival) -> bool:
        """The session's socket has connected again, or another one has its secret; whether the
        session goes on."""
        peer = Peer.parse(arrival.user)
        user = self._users.of(peer)
        if user is None or peer.key != session.peer.key:
            stolen = Refused("stolen", f"{peer.name!r} has used a socket's secret of another key")
            self._users.refuse(peer.name, stolen, str(session.socket))
            _logger.warning("%s, of %r: both are disconnected", stolen.sentence, session.name)
            self._turn_away(arrival, "a socket of another user")
            self._refuse(session, "another user knows its secret")
            return False
        session.sender, session.user = arrival.user, user
        if session.socket.serves is not Serves.TRANSMIT:
            return True
        # Requests under way are lost. Over a new connection, the channel reports them itself;
        # otherwise its OK for a later request would confirm the lost ones.
        try:
            upstream = TransmitUpstream(self._lines, self._at(session.socket))
        except CanInitializationError as error:
            self._refuse(session, str(error))
            return False
        self._stalled.pop(session.secret, None)
        session.replace(upstream)
        upstream.line.report_to(session)
        return True

    def _at(self, socket: RemoteSocket) -> IpcAddress:
        return IpcAddress(self._directory / str(socket))

    def _refuse(self, session: Session, why: str) -> None:
        """Ends a session for what it has sent, and its connection."""
        self.refused[why] += 1
        self._noted.note("session ended", f"{session!r}: {why}")
        self._front.hang_up(session.connection)
        self._close(session)

    def _turn_away(self, arrival: Arrival, why: str) -> None:
        self.refused[why] += 1
        name = Peer.parse(arrival.user).name
        self._noted.note("connection ended", f"of {name!r}: {why}")
        self._front.hang_up(arrival.connection)

    # -------------------------------------------------------------------------------- to clients

    def _settle(self, session: Session, now_ns: int) -> None:
        """Begins or ends the wait for a client's socket."""
        if session.is_gone(now_ns):
            self._close(session)
        elif session.stalled and session.secret not in self._stalled:
            self._stalled[session.secret] = session
            session.upstream.line.pause()
        elif not session.stalled and self._stalled.pop(session.secret, None) is not None:
            session.upstream.line.resume()

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
        if self.sessions.pop(session.secret, None) is not None:
            self._stalled.pop(session.secret, None)
            session.close()
            kind = str(session.socket.serves.value)
            self._users.note("disconnect", session.name, kind, socket=str(session.socket))
