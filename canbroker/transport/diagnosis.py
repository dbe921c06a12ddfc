"""Why a connection to a gateway does not come about, from the events of its socket."""

from __future__ import annotations

import enum
from typing import Final

import zmq

from canbroker.errors import CanOperationError
from canbroker.model.key import SecretKey
from canbroker.system import clock, handles
from canbroker.transport.address import TcpAddress
from canbroker.transport.curve import public_of
from canbroker.transport.monitor import close_monitor, events_of, open_monitor
from canbroker.transport.sockets import Socket

#: A gateway that is just restarted is away for less than this; what lasts longer is told.
_PATIENCE_NS: Final = 2 * clock.SECOND

#: A handshake takes five round trips.
_SILENCE_NS: Final = 4 * clock.SECOND

_EVENTS: Final = (
    zmq.EVENT_CONNECTED
    | zmq.EVENT_CONNECT_RETRIED
    | zmq.EVENT_CLOSED
    | zmq.EVENT_DISCONNECTED
    | zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
)


class Trouble(enum.Enum):
    """What keeps a connection from being made."""

    UNAUTHORIZED = enum.auto()
    OTHER_KEY = enum.auto()
    UNENCRYPTED = enum.auto()
    NO_GATEWAY = enum.auto()
    NOBODY = enum.auto()
    UNKNOWN_NAME = enum.auto()
    SILENT = enum.auto()


class Progress:
    """How far a connection has come. Without input and output: events go in, with their times."""

    def __init__(self, now_ns: int) -> None:
        self.connected = False  # and the handshake is done
        self.interruptions = 0  # connections that were made, and lost
        self._trouble: Trouble | None = None
        self._since_ns = now_ns  # the attempts began that have not led to a connection
        self._is_greeted = False  # a TCP connection was made, and its handshake is not over
        self._failures = 0
        self._was_closed = False

    def note(self, event: int, now_ns: int) -> None:
        """The socket has reported an event of libzmq."""
        match event:
            case zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self.connected, self._is_greeted = True, False
                self._trouble, self._failures = None, 0
            case zmq.EVENT_CONNECTED:
                self._is_greeted = True
            case zmq.EVENT_HANDSHAKE_FAILED_AUTH:
                self._failed(Trouble.UNAUTHORIZED, now_ns)
            case zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL:
                self._failed(Trouble.UNENCRYPTED, now_ns)
            case zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL:
                self._failed(Trouble.OTHER_KEY, now_ns)
            case zmq.EVENT_DISCONNECTED:
                if self._is_greeted:
                    self._failed(Trouble.NO_GATEWAY, now_ns)
                elif self.connected:
                    self.interruptions += 1
                    self._since_ns = now_ns
                self.connected = False
            case zmq.EVENT_CLOSED:
                self._was_closed = True
            case zmq.EVENT_CONNECT_RETRIED:
                self._failed(Trouble.NOBODY if self._was_closed else Trouble.UNKNOWN_NAME, now_ns)
                self._was_closed = False

    def trouble(self, now_ns: int) -> Trouble | None:
        """What keeps the connection from being made; ``None``: nothing, or it is too early."""
        if self.connected:
            return None
        if self._trouble in {Trouble.UNAUTHORIZED, Trouble.UNENCRYPTED}:
            return self._trouble  # libzmq does not try again
        if self._trouble is None:
            silent = Trouble.NO_GATEWAY if self._is_greeted else Trouble.SILENT
            return silent if now_ns - self._since_ns > _SILENCE_NS else None
        is_sure = self._failures > 1 and now_ns - self._since_ns > _PATIENCE_NS
        return self._trouble if is_sure else None

    def _failed(self, trouble: Trouble, now_ns: int) -> None:
        if self.connected:
            self.interruptions += 1
            self._since_ns = now_ns
        self.connected = self._is_greeted = False
        self._failures += 1
        # Later events of the same attempt say less.
        if self._trouble in {None, Trouble.NOBODY, Trouble.UNKNOWN_NAME} or trouble in {
            Trouble.UNAUTHORIZED,
            Trouble.UNENCRYPTED,
        }:
            self._trouble = trouble


class Diagnosis:
    """Follows the events of a socket that is about to be connected. One thread at a time."""

    def __init__(self, socket: Socket, address: TcpAddress, identity: SecretKey | None) -> None:
        """
        :param identity: our key.
        :raises CanOperationError: no descriptors are left. The socket is closed.
        """
        self._socket = socket
        self._address = address
        self._our_key = "" if identity is None else str(public_of(identity))
        self._progress = Progress(clock.monotonic_ns())
        try:
            self._monitor = open_monitor(socket, _EVENTS)
        except zmq.ZMQError as error:
            socket.close()
            what = handles.explained(OSError(error.errno, str(error)))
            raise CanOperationError(f"cannot make a socket: {what}") from error

    @property
    def interruptions(self) -> int:
        """How often a connection that was made has been lost."""
        self._follow(clock.monotonic_ns())
        return self._progress.interruptions

    def problem(self) -> str | None:
        """Why there is no connection; ``None`` if there is one, or it may still be made."""
        trouble = self.trouble()
        return None if trouble is None else self._text(trouble)

    def trouble(self) -> Trouble | None:
        """As :meth:`problem`, to act on."""
        now = clock.monotonic_ns()
        self._follow(now)
        trouble = self._progress.trouble(now)
        if trouble is Trouble.OTHER_KEY and not self._address.encrypted:
            return Trouble.UNENCRYPTED  # libzmq does not always say so
        return trouble

    def close(self) -> None:
        """Before the socket is closed."""
        close_monitor(self._socket, self._monitor)

    def _follow(self, now_ns: int) -> None:
        for event, _ in events_of(self._monitor):
            self._progress.note(event, now_ns)

    def _text(self, trouble: Trouble) -> str:
        where = self._address.endpoint
        match trouble:
            case Trouble.UNAUTHORIZED:
                return (
                    f"the broker at {where} does not know this key ({self._our_key}); its admin "
                    f"runs there: canbroker keys authorize NAME {self._our_key} --role observe"
                )
            case Trouble.OTHER_KEY:
                return (
                    f"the broker at {where} does not have the key that is known for it "
                    f"({self._address.key}): the key has changed, or somebody else answers; if it "
                    f"has changed: canbroker keys trust {where} KEY"
                )
            case Trouble.UNENCRYPTED:
                return (
                    f"{where} and this program do not agree on encryption: one side is unencrypted "
                    "(key=none), or it is not a canbroker"
                )
            case Trouble.NO_GATEWAY:
                return f"something accepts connections at {where}, but it is not a canbroker"
            case Trouble.NOBODY:
                return (
                    f"nobody listens at {where}; on that machine: "
                    f"canbroker serve --listen tcp://*:{self._address.port}"
                )
            case Trouble.UNKNOWN_NAME:
                return f"the name of the host in {where} does not resolve"
            case Trouble.SILENT:
                return (
                    f"{where} does not answer: the machine is off or not reachable, "
                    "or a firewall drops the connection"
                )
