"""Requests to transmit, and their answers.

The body of a request has frames in cansend's notation, one in each line, so that any program can
ask. The header ``Can-Ttl-Ms`` says for how long it is valid from when it arrives.
"""

from __future__ import annotations

from typing import Final

import msgspec

from canbroker.wire import DECODE_ERRORS, WireError

#: Limits of a request: frames, bytes, and how long it is valid; without the header, a second.
MAX_FRAMES: Final = 64
MAX_BYTES: Final = 32_768
MAX_TTL_MS: Final = 60_000
DEFAULT_TTL_MS: Final = 1_000


class Answer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """In JSON. ``ok``: the driver has taken all frames. ``error``: ``malformed``, ``permission``,
    ``busy``, ``timeout`` (the frames are not sent later) or ``operation``; ``text`` says more."""

    ok: bool
    error: str = ""
    text: str = ""


_answers: Final = msgspec.json.Decoder(Answer)


def parse_answer(body: bytes) -> Answer:
    """:raises WireError: it is not an answer."""
    try:
        return _answers.decode(body)
    except DECODE_ERRORS as error:
        raise WireError(f"answer: {error}") from error
