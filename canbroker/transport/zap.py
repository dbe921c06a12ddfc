"""Decides which keys may connect: the handler that ZeroMQ asks in each handshake (RFC 27)."""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Callable
from typing import Final, NamedTuple, TypeAlias

import zmq

from canbroker.model.key import KEY_BYTES, PublicKey
from canbroker.system.wake import Wake

#: Where libzmq asks, within the context of the listening socket.
_ADDRESS: Final = "inproc://zeromq.zap.01"

_VERSION: Final = b"1.0"

#: What IPv4 addresses begin with among those of IPv6 (RFC 4291, 2.5.5.2).
_MAPPED: Final = "::ffff:"

#: Returns the name of the user that a key belongs to, or ``None``. Given the key (``None`` if the
#: connection is not encrypted) and the address that it comes from.
Admit: TypeAlias = Callable[[PublicKey | None, str], str | None]

_logger = logging.getLogger(__name__)


class Peer(NamedTuple):
    """The other end of a connection, as ZeroMQ then names it with each of its messages.

    ``number`` counts handshakes, so it tells connections of one user apart. ``key`` is ``None`` if
    the connection is not encrypted.
    """

    name: str
    number: int
    key: PublicKey | None
    address: str

    @classmethod
    def parse(cls, text: str) -> Peer:
        """The peer that :meth:`__str__` stands for."""
        name, number, key, address = text.split("#", 3)
        return cls(name, int(number), PublicKey.parse(key) if key else None, address)

    def __str__(self) -> str:
        return f"{self.name}#{self.number}#{self.key or ''}#{self.address}"


class Authenticator:
    """Answers each handshake on a thread of its own. ZeroMQ names the user as a :class:`Peer`."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], admit: Admit) -> None:
        """Call it before anything listens. ``admit`` is called on the thread.

        :raises zmq.ZMQError, CanOperationError: no descriptors are left.
        """
        self._admit = admit
        self._numbers = itertools.count(1)
        self._closing = Wake()
        socket = context.socket(zmq.REP)
        try:
            socket.setsockopt(zmq.LINGER, 0)
            socket.bind(_ADDRESS)
        except zmq.ZMQError:
            socket.close()
            self._closing.close()
            raise
        self._thread = threading.Thread(target=self._serve, args=(socket,), name="authenticator")
        self._thread.start()

    def close(self) -> None:
        """Call it when nothing listens any more."""
        self._closing.set()
        self._thread.join()
        self._closing.close()

    def _serve(self, socket: zmq.Socket[bytes]) -> None:
        poller = zmq.Poller()
        poller.register(socket, zmq.POLLIN)
        poller.register(self._closing.fileno(), zmq.POLLIN)
        with socket:
            while True:
                ready = dict(poller.poll())
                if socket in ready:
                    socket.send_multipart(self._answer(socket.recv_multipart()))
                if self._closing.fileno() in ready:
                    return

    def _answer(self, request: list[bytes]) -> list[bytes]:
        _, number, _, address, _, mechanism, *credentials = request
        try:
            # An IPv4 address comes as one of IPv6, as the socket listens for both.
            peer = self._peer(mechanism, credentials, address.decode().removeprefix(_MAPPED))
        except Exception:  # the handshake is refused, and the next one must have an answer, too
            _logger.exception("cannot tell whether a key is authorized")
            peer = None
        if peer is None:
            return [_VERSION, number, b"400", b"not authorized", b"", b""]
        return [_VERSION, number, b"200", b"", str(peer).encode(), b""]

    def _peer(self, mechanism: bytes, credentials: list[bytes], address: str) -> Peer | None:
        """The peer that connects; ``None`` if its key is not that of a user."""
        key = None
        if mechanism != b"NULL":
            key = self._key(mechanism, credentials)
            if key is None:
                return None
        name = self._admit(key, address)
        return None if name is None else Peer(name, next(self._numbers), key, address)

    def _key(self, mechanism: bytes, credentials: list[bytes]) -> PublicKey | None:
        if mechanism != b"CURVE" or [len(each) for each in credentials] != [KEY_BYTES]:
            return None
        try:
            return PublicKey(credentials[0])
        except ValueError:  # anybody can have the secret key to it
            return None
