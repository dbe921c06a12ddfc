"""The clients of the demonstration, and the frames that each of them receives."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import msgspec

from canbroker.model.frame import EXTENDED, Frame, identifier_text


class CanFilter(msgspec.Struct, frozen=True, omit_defaults=True):
    """A filter of python-can's. ``extended`` is ``None`` if frames of both formats pass."""

    can_id: int
    can_mask: int
    extended: bool | None = None


class Role(msgspec.Struct, frozen=True, kw_only=True):
    """A client of the demonstration.

    ``plain``: it uses ZeroMQ alone and none of canbroker's code. ``tapped``: it reads the stream
    of events that recorders use.
    """

    name: str
    wording: str
    can_filters: tuple[CanFilter, ...] | None
    plain: bool = False
    tapped: bool = False


def cast(frames: Sequence[Frame]) -> list[Role]:
    """The five roles for a trace, which contains at least one frame."""
    identifier, extended = _most_frequent(frames)
    mask = 0x1FFFFFFF if extended else 0x7FF
    return [
        Role(name="all", wording="every frame", can_filters=None, tapped=True),
        Role(
            name="range",
            wording="11-bit 100-1FF",
            can_filters=(CanFilter(0x100, 0x700, False),),
        ),
        Role(
            name="single",
            wording=f"only {identifier_text(identifier, extended)}",
            can_filters=(CanFilter(identifier, mask, extended),),
        ),
        Role(
            name="masks",
            wording="*5 *D 3xx, 29-bit",
            can_filters=(
                CanFilter(0x005, 0x007),  # either format
                CanFilter(0x300, 0x700, False),
                CanFilter(0x18F00000, 0x1FF00000, True),
            ),
        ),
        Role(
            name="plain",
            wording="even (ZeroMQ only)",
            can_filters=(CanFilter(0x000, 0x001),),
            plain=True,
        ),
    ]


def _most_frequent(frames: Sequence[Frame]) -> tuple[int, bool]:
    counts = Counter((frame.arbitration_id, bool(frame.flags & EXTENDED)) for frame in frames)
    return counts.most_common(1)[0][0]
