"""Methods of a channel that hand out frames again: those of a gap, and those of a time.

They travel as the control requests of :mod:`canbroker.wire.control` do. An answer carries some of
the frames; who wants the rest asks again from there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Final

import msgspec

from canbroker.model.frame import EchoFrame
from canbroker.wire import DECODE_ERRORS, WireError
from canbroker.wire.control import Params
from canbroker.wire.stream import array_header

#: Frames in one answer: while it is made nothing is published.
MAX_REPLAYED: Final = 256

_U63 = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
_ClientId = Annotated[str, msgspec.Meta(max_length=32)]
_Topic = Annotated[str, msgspec.Meta(max_length=32_768)]
_Place = tuple[_U63, _U63]


class Replay(Params):
    """Frames of the route ``topic`` with the numbers from ``first_seq`` to before ``end_seq``.

    Without an end: to the last one that there was in the epoch, which is over. ``client_id``: in
    whose account they go.
    """

    topic: _Topic
    epoch: _U63
    first_seq: _U63
    end_seq: _U63 | None = None
    client_id: _ClientId = ""


class Replayed(msgspec.Struct):
    """``frames`` are numbered from ``first_seq``; what was asked for before that is gone.

    ``complete``: there are no more in the range. ``frames``: an array as in a batch.
    """

    first_seq: int
    complete: bool
    frames: msgspec.Raw


class History(Params):
    """Frames of the last ``seconds`` that pass the filters of ``topic``.

    ``after`` and ``until`` as the last answer had them, to get the rest.
    """

    topic: _Topic
    seconds: Annotated[float, msgspec.Meta(ge=0, le=1e9)]
    after: _Place | None = None
    until: _Place | None = None


class Past(msgspec.Struct):
    """Frames up to ``after``, if there are any; all, when that is ``until``.

    ``next_seq``: the number that the next frame of the route ``topic`` had when the first
    answer was given (0 if there is no such route): frames from there on are not in here.
    """

    epoch: int
    next_seq: int
    after: _Place
    until: _Place
    frames: msgspec.Raw


REPLAY_METHODS: Final[Mapping[str, type[Params]]] = {"replay": Replay, "history": History}

_frames_decoder = msgspec.msgpack.Decoder(
    Annotated[list[EchoFrame], msgspec.Meta(max_length=MAX_REPLAYED)]
)


def encode_frames(frames: Sequence[msgspec.Raw]) -> msgspec.Raw:
    """Packed frames as an answer carries them."""
    return msgspec.Raw(array_header(len(frames)) + b"".join(map(bytes, frames)))


def decode_frames(raw: msgspec.Raw) -> list[EchoFrame]:
    """:raises WireError: says what is wrong with the frames of an answer."""
    try:
        frames: list[EchoFrame] = _frames_decoder.decode(raw)
    except DECODE_ERRORS as error:
        raise WireError(f"replayed frames: {error}") from error
    return frames
