"""Control requests ``[version, id, method, params]`` and replies ``[version, id, ok, result]``.

One table per listening process names its methods and the types of their parameters; unknown
methods and fields are refused by name before anything acts on them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, TypeVar

import msgspec

from canbroker.errors import CanError, CanInterfaceNotImplementedError
from canbroker.wire import DECODE_ERRORS, VERSION, ClientId, WireError, decode
from canbroker.wire.stream import StateEvent

MAX_TEXT = 4096
_Text = Annotated[str, msgspec.Meta(max_length=MAX_TEXT)]
_Scalar = _Text | int | float | bool | None

_T = TypeVar("_T")


class Params(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Parameters of a method; a method without any has exactly these."""


class Attach(Params):
    """Join a channel: one of the configuration (``channel`` alone), or any (with ``interface``)."""

    client_id: ClientId
    pid: int
    program: _Text
    channel: _Text
    interface: _Text | None = None
    parameters: dict[_Text, _Scalar] = {}


class Detach(Params):
    client_id: ClientId


class TakeLease(Params, kw_only=True):
    """Lease a free channel of ``pool`` to process ``pid``, or wait for one. May be repeated.

    ``started`` is the start of the process, in clock ticks since boot (proc_pid_stat(5)). Without
    ``pid`` the lease belongs to the connection that the request came by. ``timeout_ns``: how long
    to wait; ``None``: for ever.
    """

    lease_id: ClientId
    pid: Annotated[int, msgspec.Meta(ge=1)] | None = None
    started: Annotated[int, msgspec.Meta(ge=0)] = 0
    program: _Text
    pool: _Text
    timeout_ns: Annotated[int, msgspec.Meta(ge=0)] | None = None


class Release(Params):
    """Give a channel back, or wait for none any more; one that is not known is no error."""

    lease_id: ClientId


class SetState(Params):
    """``state`` is ``active`` or ``passive``."""

    state: _Text


class Discard(Params, omit_defaults=True):
    """Forget what this client has queued and the driver has not taken, up to request ``token``.

    Requests travel on another connection: the answer waits until that one has arrived; with
    ``through`` also until what the driver has taken of the client's is on the bus, or failed.
    """

    client_id: ClientId
    token: Annotated[int, msgspec.Meta(ge=0)]
    through: bool = False


class Attached(msgspec.Struct, kw_only=True):
    """Where the channel's sockets are, and what it is."""

    name: str
    interface: str
    parameters: dict[str, Any]
    stream: str
    transmit: str
    control: str


class SchedulerAt(msgspec.Struct, kw_only=True):
    """Where the scheduler of periodic tasks listens; it runs."""

    control: str


class Leased(msgspec.Struct, kw_only=True):
    """The name of the channel that was taken."""

    channel: str


class HelloResult(msgspec.Struct, kw_only=True):
    version: str
    pid: int
    address: str
    autostarted: bool


class ClientStatus(msgspec.Struct, kw_only=True):
    """``replayed`` and ``gone`` as the channel's state says, since its process began."""

    client_id: str
    pid: int
    program: str
    filters: str = ""
    replayed: int = 0
    gone: int = 0


class ChannelStatus(msgspec.Struct, kw_only=True):
    """``phase``: stopped, starting, running, or backing off (restarting), failed; ``record``: path
    of the newest flight record."""

    name: str
    interface: str
    parameters: dict[str, Any]
    configured: bool
    phase: str
    reason: str
    pid: int | None
    restarts: int
    stream: str
    transmit: str
    control: str
    state: StateEvent | None
    clients: list[ClientStatus]
    record: str = ""


class SchedulerStatus(msgspec.Struct, kw_only=True):
    """``phase`` as that of a channel; stopped until a client has asked for it."""

    phase: str
    reason: str
    pid: int | None
    restarts: int
    control: str


class LeaseStatus(msgspec.Struct, kw_only=True):
    """A lease, or, without a channel, a request that waits for one; ``since_s`` seconds.

    ``pid`` is ``None`` if it belongs to a connection.
    """

    lease_id: str
    pool: str
    channel: str | None
    pid: int | None
    program: str
    since_s: float


class BrokerStatus(msgspec.Struct, kw_only=True):
    """``pools``: the channels of each; ``leases``: those that are held, then those that wait;
    ``waiting``: requests for a channel or the scheduler that are not answered yet;
    ``turned_away``: how many clients, requests and channels there was no room for."""

    version: str
    pid: int
    address: str
    autostarted: bool
    uptime_s: float
    refused: int
    channels: list[ChannelStatus]
    scheduler: SchedulerStatus
    pools: dict[str, list[str]] = {}
    leases: list[LeaseStatus] = []
    waiting: int = 0
    turned_away: dict[str, int] = {}


class Discarded(msgspec.Struct):
    count: int


class Nothing(msgspec.Struct):
    """The result of a method that has none."""


class ErrorResult(msgspec.Struct):
    """``code`` is a word to act on, ``message`` a sentence to show.

    ``details`` is empty; protocol version 1 has it.
    """

    code: str
    message: str
    details: dict[str, Any] = {}


def error_code(error: CanError) -> str:
    """The ``code`` for an error of a channel that cannot be opened."""
    is_interface = isinstance(error, CanInterfaceNotImplementedError)
    return "interface" if is_interface else "initialization"


BROKER_METHODS: Final[Mapping[str, type[Params]]] = {
    "hello": Params,
    "attach": Attach,
    "detach": Detach,
    "status": Params,
    "scheduler": Params,
    "lease": TakeLease,
    "release": Release,
    "shutdown": Params,
}

CHANNEL_METHODS: Final[Mapping[str, type[Params]]] = {
    "set_state": SetState,
    "discard": Discard,
}


class Request(msgspec.Struct, array_like=True):
    version: int
    id: Annotated[int, msgspec.Meta(ge=0)]
    method: _Text
    params: msgspec.Raw


class Reply(msgspec.Struct, array_like=True):
    version: int
    id: int
    ok: bool
    result: msgspec.Raw


_encoder = msgspec.msgpack.Encoder()
_request_decoder = msgspec.msgpack.Decoder(Request)
_reply_decoder = msgspec.msgpack.Decoder(Reply)


def encode_request(request_id: int, method: str, params: Params) -> bytes:
    return _encoder.encode((VERSION, request_id, method, params))


def encode_reply(request_id: int, result: msgspec.Struct) -> bytes:
    return _encoder.encode((VERSION, request_id, not isinstance(result, ErrorResult), result))


#: A reply to a request that nobody has made.
NOTHING: Final = encode_reply(2**63 - 1, Nothing())


def decode_request(body: bytes) -> Request:
    """:raises WireError: another version, or not a request. The parameters are still raw."""
    return decode("control request", _request_decoder, body)


def decode_params(request: Request, methods: Mapping[str, type[Params]]) -> Params:
    """The typed parameters of a request to a process that has ``methods``.

    :raises WireError: names the unknown method, or the field that is wrong.
    """
    params = methods.get(request.method)
    if params is None:
        known = ", ".join(methods)
        raise WireError(f"unknown method {request.method!r}; there are: {known}")
    try:
        return msgspec.msgpack.decode(request.params, type=params)
    except DECODE_ERRORS as error:
        raise WireError(f"method {request.method!r}: {error}") from error


def decode_reply(body: bytes) -> Reply:
    """:raises WireError: another version, or not a reply."""
    return decode("control reply", _reply_decoder, body)


def decode_result(reply: Reply, result: type[_T], method: str) -> _T | ErrorResult:
    """What a reply to ``method`` carries: its result, or an error.

    :raises WireError: neither.
    """
    try:
        if reply.ok:
            return msgspec.msgpack.decode(reply.result, type=result)
        return msgspec.msgpack.decode(reply.result, type=ErrorResult)
    except DECODE_ERRORS as error:
        raise WireError(f"reply to {method!r}: {error}") from error
