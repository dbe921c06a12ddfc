"""Transmit requests and their replies.

Request ``[version, client_id, token, flags, expires_ns, frames, epoch, origins, due_ns,
refusal]``, reply ``[version, token, status, accepted, timestamp_ns, reason, failed, forbidden]``.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from functools import cache
from typing import Annotated, Final

import msgspec

from canbroker.model.frame import Frame
from canbroker.wire import VERSION, WireError, decode, is_client_id
from canbroker.wire.forbidden import Forbidden

MAX_FRAMES: Final = 1024  # of one request
MAX_REPLY_BYTES: Final = 1 << 15  # its reason has 4,096 characters at most

#: The most unanswered frames of a client; requests beyond that are refused, not queued.
CREDIT: Final = 2048

#: A flag of a request: its sender does not wait for the answer.
UNHURRIED: Final = 1

_U64 = Annotated[int, msgspec.Meta(ge=0)]


class Status(enum.IntEnum):
    """The outcome of a request. Unless it is OK, some of its frames were not sent."""

    OK = 0
    QUEUE_FULL = 1
    BUS_OFF = 2
    DEVICE_GONE = 3
    INVALID_FRAME = 4
    NOT_PERMITTED = 5
    EXPIRED = 6
    LOCKED = 7
    SHUTTING_DOWN = 8
    REFUSED = 9  # by the adapter
    DISCARDED = 10  # by the client itself
    STALE = 11  # addressed to an earlier epoch
    MALFORMED = 12
    UNKNOWN = 13  # the driver accepted it and did not report its outcome


class Refusal(msgspec.Struct, frozen=True):
    """A gateway's verdict on a request; the channel answers it in its turn.

    The channel knows then of every request of a client, sent or not: replies keep their order, and
    a client may discard up to a refused request.
    """

    reason: Annotated[str, msgspec.Meta(max_length=4096)]
    forbidden: Forbidden


class Request(msgspec.Struct, array_like=True):
    """Frames to send, in order. ``token`` grows with every request of a client.

    The frames are not handed to the driver after ``expires_ns`` (monotonic clock of the channel's
    host); 0 is never. ``epoch``: the life of the actor that the request is meant for; 0 is any.
    ``flags``: :data:`UNHURRIED`, or 0. ``origins``: for each frame the client that it belongs to;
    if empty, all belong to the sender. The frames are kept until ``due_ns`` of the same clock; 0 is
    at once. With a ``refusal`` none of them is sent.
    """

    version: int
    client_id: str  # as the origins a ClientId
    token: _U64
    flags: int
    expires_ns: _U64
    frames: Annotated[list[Frame], msgspec.Meta(min_length=1, max_length=MAX_FRAMES)]
    epoch: _U64 = 0
    origins: Annotated[list[str], msgspec.Meta(max_length=MAX_FRAMES)] = []
    due_ns: _U64 = 0
    refusal: Refusal | None = None


class Reply(msgspec.Struct, array_like=True):
    """The outcome of request ``token`` and, if OK, of all unanswered requests before it.

    The driver has accepted ``accepted`` frames of the request. It has not accepted the frames at
    the indexes ``failed``, and never will (``UNKNOWN``: they may have been sent). ``timestamp_ns``:
    when it accepted the last one, wall clock. ``forbidden``: whose key does not have the right, if
    that is why.
    """

    version: int
    token: _U64
    status: int
    accepted: _U64
    timestamp_ns: int
    reason: Annotated[str, msgspec.Meta(max_length=4096)]
    failed: Annotated[list[int], msgspec.Meta(max_length=MAX_FRAMES)] = []
    forbidden: Forbidden | None = None


_encoder = msgspec.msgpack.Encoder()
_reply_decoder = msgspec.msgpack.Decoder(Reply)


def encode_request(
    client_id: str,
    token: int,
    expires_ns: int,
    frames: Sequence[Frame],
    epoch: int,
    origins: Sequence[str] | None = None,
    due_ns: int = 0,
) -> bytes:
    request = (VERSION, client_id, token, 0, expires_ns, frames, epoch)
    return _encoder.encode(request if origins is None else (*request, origins, due_ns))


def encode_unhurried(client_id: str, token: int, frames: Sequence[Frame], epoch: int) -> bytes:
    """A request that may be answered later, and never expires."""
    return _encoder.encode((VERSION, client_id, token, UNHURRIED, 0, frames, epoch))


def encode_reply(
    token: int,
    status: Status,
    accepted: int,
    timestamp_ns: int,
    reason: str = "",
    failed: Sequence[int] = (),
    forbidden: Forbidden | None = None,
) -> bytes:
    reply = (VERSION, token, int(status), accepted, timestamp_ns, reason[:4096], failed)
    return _encoder.encode(reply if forbidden is None else (*reply, forbidden))


def encode_refused(request: Request, refusal: Refusal) -> bytes:
    """The request with a gateway's verdict."""
    return _encoder.encode(msgspec.structs.replace(request, refusal=refusal))


@cache  # clients need none
def _request_decoder() -> msgspec.msgpack.Decoder[Request]:
    return msgspec.msgpack.Decoder(Request)


def decode_request(body: bytes) -> Request:
    """:raises WireError: it has another version, or is not a request."""
    request = decode("transmit request", _request_decoder(), body)
    if not is_client_id(request.client_id):
        raise WireError(
            f"transmit request: {request.client_id[:80]!r} is not a client id - at `$[1]`"
        )
    if request.origins:
        if len(request.origins) != len(request.frames):
            counts = f"{len(request.origins)} origins for {len(request.frames)} frames"
            raise WireError(f"transmit request: {counts}")
        for index, origin in enumerate(request.origins):
            if not is_client_id(origin):
                where = f"{origin[:80]!r} is not a client id - at `$[7][{index}]`"
                raise WireError(f"transmit request: {where}")
    return request


def decode_reply(body: bytes) -> Reply:
    """:raises WireError: it has another version, or is not a reply."""
    return decode("transmit reply", _reply_decoder, body)
