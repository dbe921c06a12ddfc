"""Methods of a channel about frames of the past: those of a gap, of the last seconds, to come.

They have the form of the control requests of :mod:`canbroker.wire.control`. An answer contains a
part of the frames; the client asks again for the rest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Final

import msgspec

from canbroker.model.frame import EchoFrame
from canbroker.wire import DECODE_ERRORS, WireError
from canbroker.wire.control import Params
from canbroker.wire.stream import array_header

#: The most frames in one answer, as nothing is published while it is made.
MAX_REPLAYED: Final = 256

_U63 = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
_ClientId = Annotated[str, msgspec.Meta(max_length=32)]
_Topic = Annotated[str, msgspec.Meta(max_length=32_768)]
_Place = tuple[_U63, _U63]


class Replay(Params):
    """Frames of the route ``topic`` with the numbers from ``first_seq`` to before ``end_seq``.

    Without an end: to the last frame of the epoch, which is over. The frames are counted for client
    ``client_id``.
    """

    topic: _Topic
    epoch: _U63
    first_seq: _U63
    end_seq: _U63 | None = None
    client_id: _ClientId = ""


class Replayed(msgspec.Struct):
    """``frames`` are numbered from ``first_seq``; earlier frames of the range are gone.

    ``complete``: the range has no more frames. ``frames``: an array as in a batch. ``then``: the
    epoch with the route's next frames, if those to the end of an epoch were asked for; 0: none.
    """

    first_seq: int
    complete: bool
    frames: msgspec.Raw
    then: int = 0


class History(Params):
    """Frames of the last ``seconds`` that pass the filters of ``topic``.

    To get the rest: ``after`` and ``until`` of the last answer.
    """

    topic: _Topic
    seconds: Annotated[float, msgspec.Meta(ge=0, le=1e9)]
    after: _Place | None = None
    until: _Place | None = None


class Past(msgspec.Struct):
    """Frames up to the place ``after``; the last of them if that equals ``until``.

    ``next_seq``: the number of the next frame of the route ``topic`` when the first answer was
    given (0 if there is no such route). The answers do not contain frames from there on.
    """

    epoch: int
    next_seq: int
    after: _Place
    until: _Place
    frames: msgspec.Raw


class Hold(Params):
    """Keep the route ``topic`` open for ``seconds`` after its last subscriber has left.

    The frames of the route are then kept in the ring and numbered, as if it had a subscriber, so
    that ``holder`` can ask for them when it comes back. 0 seconds ends the hold. ``epoch``: of the
    last frame that the holder has received.
    """

    topic: _Topic
    holder: Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
    seconds: Annotated[float, msgspec.Meta(ge=0, le=3600)]
    epoch: _U63 | None = None


class Held(msgspec.Struct, omit_defaults=True):
    """``next_seq``: the number of the route's next frame, in ``epoch``.

    ``since``: the number from which on the holder has held it. ``continues``: what followed the
    holder's last frame can be asked for by its numbers: it has held the route ever since, or that
    epoch is over and in the ring. ``oldest``: the first epoch of which the ring has frames of the
    route, if it is an earlier one than ``epoch``; else 0.
    """

    epoch: int
    next_seq: int
    since: int
    continues: bool
    oldest: int = 0


REPLAY_METHODS: Final[Mapping[str, type[Params]]] = {
    "replay": Replay,
    "history": History,
    "hold": Hold,
}

_frames_decoder = msgspec.msgpack.Decoder(
    Annotated[list[EchoFrame], msgspec.Meta(max_length=MAX_REPLAYED)]
)


def encode_frames(frames: Sequence[msgspec.Raw]) -> msgspec.Raw:
    """Packed frames, as an answer contains them."""
    return msgspec.Raw(array_header(len(frames)) + b"".join(map(bytes, frames)))


def decode_frames(raw: msgspec.Raw) -> list[EchoFrame]:
    """:raises WireError: the frames of an answer are malformed."""
    try:
        frames: list[EchoFrame] = _frames_decoder.decode(raw)
    except DECODE_ERRORS as error:
        raise WireError(f"replayed frames: {error}") from error
    return frames
