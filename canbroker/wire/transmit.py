"""Transmit requests and their replies.

Request ``[version, client_id, token, flags, expires_ns, frames, epoch, origins, due_ns]``, reply
``[version, token, status, accepted, timestamp_ns, reason, failed]``.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Annotated, Final

import msgspec

from canbroker.model.frame import Frame
from canbroker.wire import VERSION, WireError, decode, is_client_id

MAX_FRAMES: Final = 1024  # of one request
MAX_REPLY_BYTES: Final = 1 << 15  # its reason has 4,096 characters at most

#: Frames that a client may have unanswered; requests beyond that are refused, not queued.
CREDIT: Final = 2048

_U64 = Annotated[int, msgspec.Meta(ge=0)]


class Status(enum.IntEnum):
    """What became of a request. Anything but OK: some of its frames were not sent."""

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
    UNKNOWN = 13  # the driver took it and did not say what became of it


class Request(msgspec.Struct, array_like=True):
    """Frames to send, in order. ``token`` grows with every request of a client.

    ``expires_ns`` is a time of the host's monotonic clock after which the frames must not be
    handed to the driver; 0 is never. ``epoch`` is the life of the actor that the request is
    meant for; 0 is any. ``flags`` is reserved and 0. ``origins`` names the client whose frame it
    is, for each frame; none: all are the sender's own. The frames are kept until ``due_ns`` of the
    monotonic clock; 0 is at once.
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


class Reply(msgspec.Struct, array_like=True):
    """What became of request ``token`` and, if OK, of all unanswered ones before it.

    ``accepted`` frames of the request were taken by the driver; those at the indexes ``failed``
    were not and never will be (``UNKNOWN``: may have been sent). ``timestamp_ns``: wall
    clock, when the last one was taken.
    """

    version: int
    token: _U64
    status: int
    accepted: _U64
    timestamp_ns: int
    reason: Annotated[str, msgspec.Meta(max_length=4096)]
    failed: Annotated[list[int], msgspec.Meta(max_length=MAX_FRAMES)] = []


_encoder = msgspec.msgpack.Encoder()
_request_decoder = msgspec.msgpack.Decoder(Request)
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


def encode_reply(
    token: int,
    status: Status,
    accepted: int,
    timestamp_ns: int,
    reason: str = "",
    failed: Sequence[int] = (),
) -> bytes:
    return _encoder.encode(
        (VERSION, token, int(status), accepted, timestamp_ns, reason[:4096], failed)
    )


def decode_request(body: bytes) -> Request:
    """:raises WireError: another version, or not a request."""
    request = decode("transmit request", _request_decoder, body)
    if not is_client_id(request.client_id):
        raise WireError(f"transmit request: {request.client_id[:80]!r} is no client - at `$[1]`")
    if request.origins:
        if len(request.origins) != len(request.frames):
            counts = f"{len(request.origins)} origins for {len(request.frames)} frames"
            raise WireError(f"transmit request: {counts}")
        for index, origin in enumerate(request.origins):
            if not is_client_id(origin):
                where = f"{origin[:80]!r} is no client - at `$[7][{index}]`"
                raise WireError(f"transmit request: {where}")
    return request


def decode_reply(body: bytes) -> Reply:
    """:raises WireError: another version, or not a reply."""
    return decode("transmit reply", _reply_decoder, body)
