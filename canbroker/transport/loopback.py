"""Loopback TCP with CURVE, in the place of Unix sockets, for the processes of one user.

A socket at ``<directory>/can0.rx`` listens on a port of this host, and the file of that name says
on which. Anybody on this host may connect to a port, so the directory has a key: a socket accepts
only those who prove it, and proves it itself. Only the directory's owner can read either file.

Ports are kept: a process that replaces a killed one takes the port of its predecessor, and ZeroMQ
connects again. If another program has taken the port meanwhile, the socket gets another one, and
those that were connected find it by :func:`canbroker.transport.sockets.follow`.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
from functools import lru_cache
from pathlib import Path
from typing import Final, NamedTuple, cast

import msgspec
import zmq
from zmq.utils import z85

from canbroker.errors import CanError, CanInitializationError
from canbroker.model.key import PublicKey, SecretKey
from canbroker.system import clock
from canbroker.system.endpoint_files import (
    FORMER,
    KEY_FILE,
    EndpointFile,
    content_of,
    publish,
    read,
    retire,
    write_private,
)
from canbroker.transport import curve
from canbroker.transport.shared import QuietSocket, endpoint_of, shared
from canbroker.transport.zap import Authenticator

_ANY_PORT: Final = "tcp://127.0.0.1:*"

#: Bytes that the system buffers for a connection, as for one of a Unix socket. By default there are
#: megabytes, of frames that a slow client is yet to read.
_BUFFER_BYTES: Final = 212_992

_MAX_KEY_BYTES: Final = 1024

#: How often to look whether the other end of a socket listens elsewhere.
FOLLOW_NS: Final = 100 * clock.MILLISECOND

_logger = logging.getLogger(__name__)


class _KeyFile(msgspec.Struct):
    """The key as ZeroMQ's interfaces take it in any language: 40 characters of Z85 each."""

    public: str
    secret: str


class FabricKey(NamedTuple):
    """The key of a runtime directory: whoever has it belongs to its owner."""

    public: PublicKey
    secret: SecretKey

    @classmethod
    def load(cls, directory: Path) -> FabricKey | None:
        """The key of a runtime directory, if it has one.

        :raises CanInitializationError: its file contains something else, or cannot be read.
        """
        path = directory / KEY_FILE
        content = content_of(path, _MAX_KEY_BYTES)
        return None if content is None else _parsed(content, str(path))

    @classmethod
    def make(cls, directory: Path) -> FabricKey:
        """The key of a runtime directory, which gets one if it has none.

        :raises CanInitializationError: as :meth:`load`, or the file cannot be written.
        """
        key = cls.load(directory)
        if key is None:
            cls(*curve.new_pair()).write(directory)
            key = cls.load(directory)  # of several processes that write one, the last one wins
        if key is None:
            raise CanInitializationError(f"{directory / KEY_FILE} was removed")
        return key

    def write(self, directory: Path) -> None:
        """:raises CanInitializationError: the file cannot be written."""
        pair = _KeyFile(
            z85.encode(self.public.raw).decode(), z85.encode(self.secret.reveal()).decode()
        )
        try:
            write_private(directory / KEY_FILE, msgspec.json.encode(pair))
        except OSError as error:
            raise CanInitializationError(
                f"cannot write {directory / KEY_FILE}: {error.strerror}"
            ) from error


@lru_cache(maxsize=8)
def _parsed(content: bytes, path: str) -> FabricKey:
    # Nothing of the content is shown: it may be most of a secret.
    try:
        pair = msgspec.json.decode(content, type=_KeyFile)
        public = PublicKey(z85.decode(pair.public.encode()))
        secret = SecretKey(z85.decode(pair.secret.encode()))
    except (msgspec.DecodeError, ValueError, KeyError) as error:
        raise CanInitializationError(f"{path} does not contain a key of canbroker") from error
    if curve.public_of(secret) != public:
        raise CanInitializationError(f"{path}: the public key does not belong to the secret one")
    return FabricKey(public, secret)


class Admission:
    """Admits to the listening sockets of one context those who have the directory's key."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]]) -> None:
        """Does nothing until something listens."""
        self._context = context
        self._lock = threading.Lock()
        self._authenticator: Authenticator | None = None

    def open(self, key: FabricKey) -> None:
        """Call it before a socket listens. Any thread.

        :raises CanInitializationError: no descriptors are left.
        """

        def admit(public: PublicKey | None, _address: str) -> str | None:
            return "owner" if public == key.public else None

        with self._lock:
            if self._authenticator is None:
                try:
                    self._authenticator = Authenticator(self._context, admit)
                except (zmq.ZMQError, CanError) as error:
                    raise CanInitializationError(f"cannot listen: {error}") from error

    def close(self) -> None:
        """Call it when nothing listens any more."""
        if self._authenticator is not None:
            self._authenticator.close()


def bind(socket: QuietSocket, path: Path, key: FabricKey) -> str:
    """Has ``socket`` listen, and publishes where at ``path``; returns the endpoint.

    :raises zmq.ZMQError, OSError: it cannot.
    """
    curve.serve(socket, key.secret)
    _limit_buffers(socket)
    former = path.with_name(path.name + FORMER)
    for before in (read(path), _last_read(former)):
        if before is not None and _is_bound(socket, before.endpoint):
            break
    else:
        socket.bind(_ANY_PORT)
    endpoint = endpoint_of(socket)
    publish(path, endpoint)
    former.unlink(missing_ok=True)
    return endpoint


def withdraw(path: Path, endpoint: str) -> None:
    """Nobody listens there any more. The port is remembered for who comes next."""
    found = read(path)
    if found is not None and found.endpoint == endpoint and found.pid == os.getpid():
        retire(path)


class Reached:
    """The path that a socket has connected to, and what was found there."""

    __slots__ = ("_endpoint", "_key", "_look_ns", "_seen", "moves", "path")

    def __init__(self, path: Path) -> None:
        self.path = path
        self.moves = 0  # times that it had to be connected elsewhere
        self._endpoint = ""  # not connected yet
        self._look_ns = 0
        self._key: FabricKey | None = None
        self._seen: tuple[int, int] | None = None  # identity and time of the file

    def look(self, socket: QuietSocket) -> None:
        """Connects the socket to what is at the path, if that is not what it is connected to.

        :raises CanInitializationError: something else is there.
        """
        try:
            status = os.stat(self.path)  # noqa: PTH116 - often, and a Path costs as much again
        except OSError:  # nobody listens now
            return
        seen = (status.st_ino, status.st_mtime_ns)
        if seen == self._seen:
            return
        try:
            found, key = read(self.path), FabricKey.load(self.path.parent)
        except CanInitializationError:
            self._seen = seen  # it is told once
            raise
        if found is None or key is None:  # one of them is being removed, or made
            return
        # A signal handler may raise between any two steps: then the next look does them again.
        if (found.endpoint, key) != (self._endpoint, self._key):
            if self._endpoint and cast("int", socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
                return  # not yet: what has arrived, the reason of an end, would be lost
            self._connect(socket, found.endpoint, key)
        self._seen = seen

    def _connect(self, socket: QuietSocket, endpoint: str, key: FabricKey) -> None:
        if self._endpoint:
            try:
                socket.disconnect(self._endpoint)
            except zmq.ZMQError as error:
                if error.errno != errno.ENOENT:  # disconnected already
                    raise
        curve.join(socket, key.public, key.secret)
        socket.connect(endpoint)  # again does nothing
        if socket.user is not None:
            shared.endpoints.add(endpoint.removeprefix("tcp://"))
        self.moves += bool(self._endpoint)
        self._endpoint, self._key = endpoint, key

    def follow(self, socket: QuietSocket) -> None:
        """As :meth:`look`, every :data:`FOLLOW_NS`. Only logs what is wrong, once for each file."""
        now = clock.monotonic_ns()
        if now < self._look_ns:
            return
        self._look_ns = now + FOLLOW_NS
        try:
            self.look(socket)
        except (CanInitializationError, zmq.ZMQError) as error:
            _logger.warning("cannot connect to %s: %s", self.path, error)


def connect(socket: QuietSocket, path: Path) -> None:
    """Connects ``socket`` to what listens at ``path``, or will listen there: see
    :func:`canbroker.transport.sockets.follow`.

    :raises CanInitializationError: something else is there.
    :raises zmq.ZMQError: it cannot connect.
    """
    _limit_buffers(socket)
    socket.reached = Reached(path)
    socket.reached.look(socket)


def _last_read(former: Path) -> EndpointFile | None:
    """As :func:`read`; ``None`` also if a process was killed while it wrote there."""
    try:
        return read(former)
    except CanInitializationError:
        return None


def _is_bound(socket: QuietSocket, endpoint: str) -> bool:
    try:
        socket.bind(endpoint)
    except zmq.ZMQError:  # another program has the port by now
        return False
    return True


def _limit_buffers(socket: QuietSocket) -> None:
    socket.setsockopt(zmq.SNDBUF, _BUFFER_BYTES)
    socket.setsockopt(zmq.RCVBUF, _BUFFER_BYTES)
