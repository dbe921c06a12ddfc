"""Bodies of stream messages: ``[version, kind, epoch, first_seq, dropped_upstream, payload]``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final, cast

import msgspec

from canbroker.model.error_counters import ErrorCounters
from canbroker.model.frame import EchoFrame, Frame, ReceivedFrame
from canbroker.wire import VERSION, WireError, decode
from canbroker.wire.forbidden import Forbidden

FRAMES: Final = 0
HEARTBEAT: Final = 1
END: Final = 2
ERROR: Final = 3
EVENT: Final = 4

MAX_BATCH: Final = 1024

#: The reason of a channel that has closed its adapter to open it in another mode.
CHANGING: Final = "the channel changes its state"

_U64 = Annotated[int, msgspec.Meta(ge=0)]


class Batch(msgspec.Struct, array_like=True):
    """A message of a route: frames, a heartbeat (no frames), its end or an error (a sentence).

    ``first_seq`` is the number of the first frame, or, without frames, of the next one.
    ``dropped_upstream`` counts frames lost before the broker saw them, since the epoch began.
    """

    version: int
    kind: int
    epoch: _U64
    first_seq: _U64
    dropped_upstream: _U64
    payload: Annotated[list[ReceivedFrame], msgspec.Meta(max_length=MAX_BATCH)] | str


class ClientInfo(msgspec.Struct):
    """A client that is subscribed to a channel.

    ``replayed``: frames that were sent to it again because it had missed them. ``gone``: frames
    that it asked for and the channel did not have any more.
    """

    client_id: str
    filters: str
    replayed: int = 0
    gone: int = 0


class Holder(msgspec.Struct):
    """The client that has the sole right to transmit; ``name`` describes it for people."""

    client_id: str
    name: str


class AdapterClock(msgspec.Struct):
    """How well an adapter's own clock is known, which stamps the channel's frames.

    ``drift_ppb``: what the host's clock gains on it, in billionths. ``error_ns``: the most that
    time stamps differ from the host's clock, apart from the adapter's least latency.
    """

    drift_ppb: int
    error_ns: int


class StateEvent(msgspec.Struct, tag_field="event", tag="state", kw_only=True):
    """The state of a channel; published when it changes and about every second.

    ``state`` is ``active``, ``passive`` (listen-only) or ``error``, with the reason. The pair of
    clocks relates frames' time stamps (wall) to deadlines (monotonic). Counters are cumulative
    since the epoch; ``*_rate`` are frames per second and ``load`` the share of the bus's time
    (0 to 1, nominal bits without stuff bits) over the last period; ``None`` if not known.
    ``held_errors``: error frames that were counted instead of forwarded, by their meaning. Only
    client ``exclusive`` may transmit; ``None``: every client. ``ended``: the broker was told to
    end; otherwise a channel that falls silent may return, maybe with another broker.
    ``clock``: the adapter's own, if it stamps the frames; ``None``: the host's does, or it is not
    known yet. ``connected``: ids of the processes connected to the stream, on Linux; 0 is a
    process of another container. ``gone``: frames that clients have asked for too late, those that
    have left included.
    ``error_counters``: the controller's; ``None`` if the adapter does not tell them.
    """

    state: str
    reason: str = ""
    info: str = ""
    bitrate: int | None = None
    data_bitrate: int | None = None
    fd: bool = False
    monotonic_ns: int = 0
    wall_ns: int = 0
    received: int = 0
    transmitted: int = 0
    failed: int = 0
    dropped: int = 0
    received_rate: float = 0.0
    transmitted_rate: float = 0.0
    load: float | None = None
    queued: int = 0
    routes: int = 0
    refused: int = 0
    interruptions: int = 0
    clients: list[ClientInfo] = []
    counters: dict[str, int] = {}
    held_errors: dict[str, int] = {}
    exclusive: Holder | None = None
    ended: bool = False
    connected: list[int] = []
    clock: AdapterClock | None = None
    gone: int = 0
    error_counters: ErrorCounters | None = None


class ReadyEvent(msgspec.Struct, tag_field="event", tag="ready"):
    """Answers a private topic: the route's filters are active; its next frame is ``next_seq``."""

    next_seq: int
    state: StateEvent


class LeftEvent(msgspec.Struct, tag_field="event", tag="left"):
    """Answers a left topic: the client is not present."""

    client_id: str


class EventBody(msgspec.Struct, array_like=True):
    """A message of a topic that is not a route; such topics do not use ``seq`` and ``dropped``.

    ``forbidden``: whose key does not have the right to subscribe to it, if it is that error.
    """

    version: int
    kind: int
    epoch: _U64
    seq: _U64
    dropped_upstream: _U64
    payload: StateEvent | ReadyEvent | LeftEvent | str
    forbidden: Forbidden | None = None


_encoder = msgspec.msgpack.Encoder()
_batch_decoder = msgspec.msgpack.Decoder(Batch)
_event_decoder = msgspec.msgpack.Decoder(EventBody)

#: Packs a frame, once for all routes that carry it.
pack_frame = _encoder.encode


def encode_frames(epoch: int, first_seq: int, dropped: int, packed: Sequence[bytes]) -> bytes:
    """A batch of frames packed by :func:`pack_frame`, at most :data:`MAX_BATCH`."""
    encode = _encoder.encode
    head = b"\x96\x01\x00" + encode(epoch) + encode(first_seq) + encode(dropped)
    return head + array_header(len(packed)) + b"".join(packed)


def encode_batch(epoch: int, first_seq: int, dropped: int, frames: Sequence[EchoFrame]) -> bytes:
    """As :func:`encode_frames`, of frames that are not packed."""
    return _encoder.encode((VERSION, FRAMES, epoch, first_seq, dropped, frames))


def array_header(count: int) -> bytes:
    """The head of a MessagePack array of ``count`` elements, at most 65,535."""
    return bytes((0x90 | count,)) if count < 16 else b"\xdc" + count.to_bytes(2, "big")


def encode_heartbeat(epoch: int, next_seq: int, dropped: int) -> bytes:
    return _encoder.encode((VERSION, HEARTBEAT, epoch, next_seq, dropped, ()))


def encode_end(epoch: int, next_seq: int, dropped: int, reason: str) -> bytes:
    return _encoder.encode((VERSION, END, epoch, next_seq, dropped, reason))


def encode_error(epoch: int, reason: str, forbidden: Forbidden | None = None) -> bytes:
    error = (VERSION, ERROR, epoch, 0, 0, reason)
    return _encoder.encode(error if forbidden is None else (*error, forbidden))


def encode_event(epoch: int, event: StateEvent | ReadyEvent | LeftEvent) -> bytes:
    return _encoder.encode((VERSION, EVENT, epoch, 0, 0, event))


def encode_state(state: StateEvent) -> msgspec.Raw:
    """For :func:`encode_ready`: a state with many clients is long, and sent to each new client."""
    return msgspec.Raw(_encoder.encode(state))


def encode_ready(epoch: int, next_seq: int, state: msgspec.Raw) -> bytes:
    """Like :func:`encode_event` for a :class:`ReadyEvent` with that state."""
    return encode_event(epoch, ReadyEvent(next_seq, cast(StateEvent, state)))


def decode_batch(body: bytes) -> Batch:
    """:raises WireError: it has another version, or is not a batch."""
    batch = decode("batch", _batch_decoder, body)
    kinds = {END, ERROR} if isinstance(batch.payload, str) else {FRAMES, HEARTBEAT}
    if batch.kind not in kinds:
        raise WireError(f"batch: kind {batch.kind} with a payload of another kind")
    return batch


def decode_event(body: bytes) -> EventBody:
    """:raises WireError: it has another version, or is not an event."""
    event = decode("event", _event_decoder, body)
    if event.kind != (ERROR if isinstance(event.payload, str) else EVENT):
        raise WireError(f"event: kind {event.kind} with a payload of another kind")
    return event


def locked_by(holder: Holder) -> str:
    """The reason why other clients may not transmit."""
    return f"the channel is exclusive to client {holder.client_id} ({holder.name})"


def echo(frame: Frame, timestamp_ns: int, origin: str) -> EchoFrame:
    """The frame as other clients receive it once the adapter has accepted it."""
    return EchoFrame(timestamp_ns, frame.arbitration_id, frame.flags, frame.data, origin)
