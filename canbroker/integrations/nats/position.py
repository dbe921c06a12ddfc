"""Where a consumer has come to, as a text that it stores together with its frames."""

from __future__ import annotations

from typing import Annotated, Self

import msgspec

from canbroker.jetstream.places import Place

_U64 = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]


class Position(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Behind a message of a stream.

    ``sequence`` is that of the message in the ``stream``, ``message_id`` and ``time_ns`` are what
    else is known of it; ``created`` says which stream of that name it is. ``places``: of each
    subject the epoch and the number of the next frame, so that losses are counted also while the
    consumer is away.
    """

    stream: str
    created: str
    sequence: _U64
    message_id: str
    time_ns: _U64
    places: dict[str, tuple[_U64, _U64]] = {}

    def __str__(self) -> str:
        """JSON, in one line; :meth:`parse` reads it."""
        return _encoder.encode(self).decode()

    @classmethod
    def parse(cls, text: str) -> Self:
        """The position that ``str()`` made a text of.

        :raises ValueError: it is not such a text.
        """
        try:
            return msgspec.json.decode(text, type=cls)
        except msgspec.MsgspecError as error:
            raise ValueError(f"{text[:100]!r} is not a position: {error}") from error

    def place(self, subject: str) -> Place | None:
        """Where the frames of a subject go on."""
        found = self.places.get(subject)
        return None if found is None else Place(*found)


_encoder = msgspec.json.Encoder()
