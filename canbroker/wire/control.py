"""Control requests ``[version, id, method, params]`` and replies ``[version, id, ok, result]``.

Each listening process has one table of its methods and the types of their parameters. Unknown
methods and fields are rejected by name before anything is done.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, Final, TypeVar

import msgspec

from canbroker.errors import CanError, CanInterfaceNotImplementedError, CanPermissionError
from canbroker.wire import DECODE_ERRORS, VERSION, ClientId, WireError, decode
from canbroker.wire.forbidden import Forbidden

MAX_TEXT = 4096
_Text = Annotated[str, msgspec.Meta(max_length=MAX_TEXT)]
_Scalar = _Text | int | float | bool | None

_T = TypeVar("_T")


class Params(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Parameters of a method. This class itself has none."""


class Viewed(Params, kw_only=True, omit_defaults=True):
    """Parameters of a method whose answer tells of channels.

    ``channels``: the only ones that the caller may know of, which a gateway adds; ``None``: all.
    """

    channels: list[_Text] | None = None


#: Of a caller that may know of all channels.
EVERYTHING: Final = Viewed()


def is_visible(channel: str, request: Viewed) -> bool:
    """Whether the caller may know of that channel."""
    return request.channels is None or channel in request.channels


class Attach(Viewed, kw_only=True):
    """Join a channel: one of the configuration (``channel`` alone), or any (with ``interface``).

    ``as_it_is``: the caller may not change the parameters of a channel, which a gateway adds.
    """

    client_id: ClientId
    pid: int
    program: _Text
    channel: _Text
    interface: _Text | None = None
    parameters: dict[_Text, _Scalar] = {}
    as_it_is: bool = False


class Detach(Params):
    client_id: ClientId


class TakeLease(Viewed, kw_only=True):
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
    """End a lease, or a request that waits for one. An unknown id is not an error."""

    lease_id: ClientId


class StartRecording(Params):
    """Record channels to files. ``options``: as in a table ``[record.NAME]``."""

    name: _Text
    options: dict[_Text, Any]


class StopRecording(Params):
    """End a recording. The reply comes when its files are complete."""

    name: _Text


class SetState(Params):
    """``state`` is ``active`` or ``passive``."""

    state: _Text


class Discard(Params, omit_defaults=True):
    """Drop the frames of a client that the driver has not accepted, up to request ``token``.

    Transmit requests travel on another connection: the answer waits until that request has arrived.
    With ``through`` it also waits until the frames that the driver has accepted are sent, or have
    failed.
    """

    client_id: ClientId
    token: Annotated[int, msgspec.Meta(ge=0)]
    through: bool = False


class GetDatabase(Params):
    """A part of a database of a channel: of its compressed content, from ``offset``."""

    channel: _Text
    number: Annotated[int, msgspec.Meta(ge=0)] = 0
    offset: Annotated[int, msgspec.Meta(ge=0)] = 0


class Attached(msgspec.Struct, kw_only=True):
    """A channel: its interface, and the addresses of its sockets."""

    name: str
    interface: str
    parameters: dict[str, Any]
    stream: str
    transmit: str
    control: str


class SchedulerAt(msgspec.Struct, kw_only=True):
    """The address of the scheduler of periodic tasks, which is running."""

    control: str


class Leased(msgspec.Struct, kw_only=True):
    """The name of the leased channel."""

    channel: str


class HelloResult(msgspec.Struct, kw_only=True, omit_defaults=True):
    """``monotonic_ns`` and ``wall_ns``: the broker's clocks now; 0 from brokers without them."""

    version: str
    pid: int
    address: str
    autostarted: bool
    monotonic_ns: int = 0
    wall_ns: int = 0


class Discarded(msgspec.Struct):
    count: int


class Nothing(msgspec.Struct):
    """The result of a method that returns nothing."""


class ErrorResult(msgspec.Struct):
    """``code`` is a word to act on, ``message`` a sentence for people.

    ``details`` is empty, except with the code :data:`FORBIDDEN`: the fields of a
    :class:`~canbroker.wire.forbidden.Forbidden`.
    """

    code: str
    message: str
    details: dict[str, Any] = {}


#: The code of what a gateway refuses because a key does not have the right.
FORBIDDEN: Final = "forbidden"


def forbidding(sentence: str, forbidden: Forbidden) -> ErrorResult:
    """The answer to a call that the key does not have the right to make."""
    return ErrorResult(FORBIDDEN, sentence, msgspec.to_builtins(forbidden))


def forbidden(answer: ErrorResult) -> CanPermissionError:
    """What a call raises that was answered with :func:`forbidding`.

    :raises WireError: the details are not those of a refusal.
    """
    try:
        details = msgspec.convert(answer.details, Forbidden)
    except DECODE_ERRORS as error:
        raise WireError(f"refusal {answer.message!r}: {error}") from error
    return details.error(answer.message)


def error_code(error: CanError) -> str:
    """The ``code`` of the error for a channel that cannot be opened."""
    is_interface = isinstance(error, CanInterfaceNotImplementedError)
    return "interface" if is_interface else "initialization"


BROKER_METHODS: Final[Mapping[str, type[Params]]] = {
    "hello": Params,
    "attach": Attach,
    "detach": Detach,
    "status": Viewed,
    "database": GetDatabase,
    "scheduler": Params,
    "lease": TakeLease,
    "release": Release,
    "record_start": StartRecording,
    "record_stop": StopRecording,
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
_reply_decoder = msgspec.msgpack.Decoder(Reply)


def encode_request(request_id: int, method: str, params: Params) -> bytes:
    return _encoder.encode((VERSION, request_id, method, params))


def encode_reply(request_id: int, result: msgspec.Struct) -> bytes:
    return _encoder.encode((VERSION, request_id, not isinstance(result, ErrorResult), result))


#: A reply to no request, which peers ignore.
NOTHING: Final = encode_reply(2**63 - 1, Nothing())


@cache  # clients need none
def _request_decoder() -> msgspec.msgpack.Decoder[Request]:
    return msgspec.msgpack.Decoder(Request)


def decode_request(body: bytes) -> Request:
    """:raises WireError: it has another version, or is not a request. Parameters stay raw."""
    return decode("control request", _request_decoder(), body)


def decode_params(request: Request, methods: Mapping[str, type[Params]]) -> Params:
    """The parameters of a request to a process with these ``methods``.

    :raises WireError: names the unknown method, or the wrong field.
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
    """:raises WireError: it has another version, or is not a reply."""
    return decode("control reply", _reply_decoder, body)


def decode_result(reply: Reply, result: type[_T], method: str) -> _T | ErrorResult:
    """The result of ``method`` in its reply, or the error.

    :raises WireError: neither.
    """
    try:
        if reply.ok:
            return msgspec.msgpack.decode(reply.result, type=result)
        return msgspec.msgpack.decode(reply.result, type=ErrorResult)
    except DECODE_ERRORS as error:
        raise WireError(f"reply to {method!r}: {error}") from error
