"""A listening Unix socket with its connections, without a thread of libzmq's between."""

from __future__ import annotations

import _socket
import errno
import logging
from collections import deque
from collections.abc import Container
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final, NamedTuple

from canbroker.errors import CanInitializationError
from canbroker.system import clock
from canbroker.system.descriptors import share, wait_writable
from canbroker.system.poll_set import poll_set
from canbroker.system.pollers import AT_ONCE, WRITE
from canbroker.system.throttle import Throttle
from canbroker.system.unix_sockets import accepted, credentials, listening
from canbroker.system.wake import Wake
from canbroker.transport import zmtp
from canbroker.transport.address import IpcAddress
from canbroker.transport.ipc_peer import IpcPeer, Parts
from canbroker.transport.kept_out import KEPT_OUT_S, KeptOut
from canbroker.transport.listening import LOOK_NS
from canbroker.transport.waiter import Waiter

#: A connection has this long to say who it is, as with libzmq.
_HANDSHAKE_NS: Final = 30 * clock.SECOND

#: Connections that wait to be accepted, and those that are accepted at a time.
_BACKLOG: Final = 100
_ACCEPTED: Final = 16

#: How often to look for a message.
_LOOKS: Final = 4

#: Messages of peers that have more, until others get turns, too.
_UNTIL_LOOK: Final = 64

#: The most connections that wait until their processes are not kept out any more. Others are ended.
_MAX_HELD: Final = 1024

#: How long to wait at the end for peers to read what waits for them.
_LINGER_NS: Final = 200 * clock.MILLISECOND

_NO_DESCRIPTORS: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})

_logger = logging.getLogger(__name__)


class _Held(NamedTuple):
    """A connection of a process that is kept out; it is not spoken with."""

    connection: _socket.socket
    process: int


class IpcListener:
    """Takes messages from its peers in turn. One thread at a time; never waits.

    Its descriptor is readable as long as there is something to :meth:`take`, so any thread may
    wait for it. It has no more than :attr:`at_most` connections; others wait until one ends.
    """

    def __init__(
        self,
        endpoint: IpcAddress,
        socket_type: str,
        kinds: Container[bytes],
        kept_out: KeptOut,
        max_bytes: int,
    ) -> None:
        """
        :param kinds: the types of sockets that may connect.
        :param kept_out: processes that may not.
        :param max_bytes: of a message.
        :raises CanInitializationError: cannot listen on ``endpoint``.
        """
        self.at_most = share()
        self._path = endpoint.path
        self._aside = self._path.with_name(f"{self._path.name}~")
        self._opening = zmtp.opening(socket_type)
        self._kinds = kinds
        self._kept_out = kept_out
        self._max_bytes = max_bytes
        self._peers: dict[int, IpcPeer] = {}  # by descriptor
        self._turns: deque[IpcPeer] = deque()  # those that may have messages
        self._until_look = 0
        self._strangers: dict[IpcPeer, None] = {}  # have not said who they are; the oldest first
        self._held: deque[_Held] = deque()
        self._is_paused = False  # takes no new connections
        self._is_closed = False
        self._look_at = 0
        self._noted = Throttle(_logger, 10.0)
        with ExitStack() as on_error:
            self._set = poll_set()
            on_error.callback(self._set.close)
            self._more = Wake()  # set while there are turns
            on_error.callback(self._more.close)
            self._set.add(self._more.fileno())
            try:
                self._listening = listening(self._path, self._backlog())
            except OSError as error:
                raise CanInitializationError(f"cannot listen on {endpoint}: {error}") from error
            on_error.pop_all()
        self._file = _identity(self._path)
        self._set.add(self._listening.fileno())
        self.fileno = self._set.fileno
        self.socket = self.listening = self
        self._happened = self._set.happened

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._path} connections={len(self)} of {self.at_most}>"

    def __len__(self) -> int:
        return len(self._peers) + len(self._held)

    def peers(self) -> list[int]:
        """As of :class:`canbroker.transport.listening.Listening`."""
        return sorted({peer.process for peer in self._peers.values()})

    def watch(self, waiter: Waiter) -> None:
        """As of :class:`canbroker.transport.routers.Router`."""
        waiter.add(self)

    def look(self, waiter: Waiter) -> bool:
        """As of :class:`~canbroker.transport.routers.Router`. The descriptor tells, natively."""
        del waiter
        return False

    @property
    def has_more(self) -> bool:
        """Whether more has been read than was taken."""
        return bool(self._turns)

    # ---------------------------------------------------------------------------------- messages

    def take(self) -> tuple[IpcPeer, Parts] | None:
        """The next message, of peers in turn. After ``None``, the descriptor tells when to look
        again."""
        turns = self._turns
        for _ in range(_LOOKS):
            if not (turns and self._until_look) and not self._look():
                break
            while turns:
                peer = turns[0]
                message = self._received(peer)
                if message is None or peer.is_drained:
                    turns.popleft()
                    peer.has_turn = False
                elif len(turns) > 1:
                    turns.rotate(-1)
                if message is not None:
                    if turns:
                        self._until_look -= 1
                        if not self._more.is_set:
                            self._more.set()
                    return peer, message
        if self._more.is_set and not turns:
            self._more.clear()
        return None

    def send(self, peer: IpcPeer, message: bytes, at_most: int) -> None:
        """Sends an encoded message; drops it if ``at_most`` wait already."""
        if peer.send(message, at_most):
            self._set.change(peer.number, writable=True)

    def reject(self, peer: IpcPeer, size: int, limit: int, refused: Throttle) -> None:
        """Counts a rejected message of ``size`` bytes; ends its connection, and keeps its process
        out, if those of a second cost more than ``limit``."""
        now = clock.monotonic_ns()
        if peer.reject(size, now) <= limit or not peer.process or not peer.is_open:
            return
        self._kept_out.add(peer.process, now)
        self.end(peer)
        refused.note(
            "connection ended",
            f"process {peer.process} sent too many messages that were refused; "
            f"it is kept out for {KEPT_OUT_S} s",
        )

    def end(self, peer: IpcPeer) -> None:
        """Ends a connection. Idempotent."""
        if not peer.is_open:
            return
        del self._peers[peer.number]
        self._strangers.pop(peer, None)
        self._set.remove(peer.number)  # closing does not, while a forked process has a copy
        peer.close()
        self._ended(peer)
        self._update()

    def attend(self, ready: Container[object] = ()) -> None:
        """As of :class:`canbroker.transport.listening.Listening`."""
        del ready
        now = clock.monotonic_ns()
        if now < self._look_at:
            return
        self._look_at = now + LOOK_NS
        if not (self._aside if self._is_paused else self._path).exists():
            self._bind_again()
        for peer in list(self._strangers):
            if now - peer.since_ns < _HANDSHAKE_NS:
                break
            self.end(peer)
        for _ in range(len(self._held)):
            self._welcome(*self._held.popleft(), now)
        self._update()

    def close(self) -> None:
        """Idempotent."""
        if self._is_closed:
            return
        self._is_closed = True
        where = self._aside if self._is_paused else self._path
        if _identity(where) == self._file:
            with suppress(OSError):
                where.unlink()
        self._listening.close()
        self._linger()
        for held in self._held:
            held.connection.close()
        for peer in self._peers.values():
            peer.close()
        self._set.close()
        self._more.close()

    def _opened(self, peer: IpcPeer) -> None:
        """[for subclasses] A peer has said who it is."""

    def _ended(self, peer: IpcPeer) -> None:
        """[for subclasses] The connection of a peer has ended, which may have been opened."""

    def _received(self, peer: IpcPeer) -> Parts | None:
        """The next message of a peer, of what has been read, or can be read at once."""
        if not peer.is_open:
            return None
        try:
            message = peer.receive()
            if self._strangers and peer in self._strangers:
                self._know(peer)
        except zmtp.ZmtpError as error:
            self._noted.note("connection ended", f"{self._path}: {error}")
            self.end(peer)
            return None
        except OSError:
            self.end(peer)
            return None
        if peer.incoming.answer:
            self.send(peer, peer.incoming.answer, 1)
            peer.incoming.answer = b""
        return message

    def _know(self, peer: IpcPeer) -> None:
        """Opens a peer that has said who it is.

        :raises ZmtpError: it may not connect.
        """
        if not peer.incoming.ready:
            return
        kind = peer.incoming.socket_type
        if kind not in self._kinds:
            raise zmtp.ZmtpError(f"a socket of type {kind!r}")
        del self._strangers[peer]
        self._opened(peer)

    def _look(self) -> bool:
        """Looks what has happened; whether peers may have messages."""
        self._until_look = _UNTIL_LOOK
        arrivals = False
        for number, events in self._happened(AT_ONCE):
            peer = self._peers.get(number)
            if peer is None:
                arrivals |= number == self._listening.fileno()
                continue
            if events & WRITE:
                peer.flush()
                if not peer.has_waiting:
                    self._set.change(number, writable=False)
            if events != WRITE and not peer.has_turn:
                peer.has_turn = True
                self._turns.append(peer)
        if arrivals:
            self._accept()
        return bool(self._turns)

    # ------------------------------------------------------------------------------- connections

    def _accept(self) -> None:
        now = clock.monotonic_ns()
        for _ in range(_ACCEPTED):
            if len(self) >= self.at_most:
                break
            try:
                connection = accepted(self._listening)
                process = credentials(connection)[0]
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _NO_DESCRIPTORS:
                    self._pause(str(error))
                return
            self._welcome(connection, process, now)
        self._update()

    def _welcome(self, connection: _socket.socket, process: int, now: int) -> None:
        """Begins a connection, unless its process is kept out."""
        if self._kept_out.until(process) > now:
            # It would connect again at once if it was refused.
            if len(self._held) < min(_MAX_HELD, self.at_most // 4):
                self._held.append(_Held(connection, process))
            else:
                connection.close()
            return
        peer = IpcPeer(connection, process, self._max_bytes, now)
        self._set.add(peer.number)
        self._peers[peer.number] = peer
        self._strangers[peer] = None
        self.send(peer, self._opening, 1)

    def _update(self) -> None:
        """Pauses new connections, or takes them again."""
        if self._is_closed or self._is_paused == (len(self) >= self.at_most):
            return
        if not self._is_paused:
            self._pause(f"it has {len(self)}, all that the limit of open files allows")
            return
        self._is_paused = False
        self._set.add(self._listening.fileno())
        self._rename(self._aside, self._path)

    def _pause(self, why: str) -> None:
        """Until there is room again, others do not find the file, and try again later. If they
        found it, they would wait without knowing for what."""
        self._is_paused = True
        self._set.remove(self._listening.fileno())
        self._rename(self._path, self._aside)
        self._noted.note(f"new connections to {self._path} have to wait", why)

    def _rename(self, former: Path, present: Path) -> None:
        try:
            former.rename(present)
        except OSError as error:  # it was removed: the next check makes it again
            self._noted.note(f"cannot rename {former}", str(error))

    def _bind_again(self) -> None:
        """Listens anew where the socket's file was. Its connections stay."""
        try:
            renewed = listening(self._path, self._backlog())
        except OSError as error:  # for instance, the directory is gone; it may return
            self._noted.note(f"the socket {self._path} was removed", str(error))
            return
        self._listening.close()  # which takes it out of the set
        self._listening = renewed
        self._set.add(renewed.fileno())
        self._is_paused = False
        self._file = _identity(self._path)
        _logger.warning("the socket %s was removed; it is there again", self._path)

    def _backlog(self) -> int:
        return min(_BACKLOG, self.at_most // 4)

    def _linger(self) -> None:
        """Gives peers a moment to read what waits for them."""
        until = clock.monotonic_ns() + _LINGER_NS
        while waiting := [peer for peer in self._peers.values() if peer.has_waiting]:
            left_ns = until - clock.monotonic_ns()
            numbers = [peer.number for peer in waiting]
            if left_ns <= 0 or not wait_writable(numbers, left_ns / clock.MILLISECOND):
                return
            for peer in waiting:
                peer.flush()


def _identity(path: Path) -> tuple[int, int] | None:
    """Tells the file at ``path`` from others that may come to be there."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
