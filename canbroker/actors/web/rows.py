"""What the page is told of rows and frames, as short lists: the page knows their columns."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from canbroker.actors.web.decoders import NO_SIGNALS, Signals
from canbroker.model.frame import ERROR, EXTENDED, FD, REMOTE, Frame, identifier_text
from canbroker.system import clock
from canbroker.view.table import Row

#: The flags of a frame that the page is told; it has the same numbers.
_TOLD: Final = EXTENDED | REMOTE | ERROR | FD

#: Those whose identifiers have eight digits.
_LONG: Final = EXTENDED | ERROR


def told_data(data: bytes | int) -> str | int:
    """Hex digits; the length of a remote frame stays a number."""
    return data if isinstance(data, int) else data.hex().upper()


def told_row(row: Row) -> list[Any]:
    """key, identifier, flags, whether it is sent, data, changed bytes (hex digits of their bits, as
    64 bytes have more than a browser's numbers), count, rate, period, jitter (ms), time (ms, wall).
    """
    last = row.last
    flags = last.flags & _TOLD
    return [
        row.key,
        identifier_text(last.arbitration_id, flags & _LONG),
        flags,
        int(row.is_sent),
        told_data(last.data),
        f"{row.changed:x}",
        row.count,
        round(row.rate, 1),
        _milliseconds(row.period_ns),
        _milliseconds(row.jitter_ns),
        last.timestamp_ns // clock.MILLISECOND,
    ]


def told_frames(frames: Iterable[Frame], signals: Signals = NO_SIGNALS) -> list[list[Any]]:
    """Of each frame: time (text of nanoseconds, wall, as a browser's number would not be exact),
    identifier, flags, whether it is sent, data, and what ``signals`` make of it, if anything."""
    return [
        [
            str(frame.timestamp_ns),
            identifier_text(frame.arbitration_id, frame.flags & _LONG),
            frame.flags & _TOLD,
            int(getattr(frame, "origin", None) is not None),
            told_data(frame.data),
            signals.decode(frame),
        ]
        for frame in frames
    ]


def _milliseconds(duration_ns: int | None) -> float | None:
    return None if duration_ns is None else round(duration_ns / clock.MILLISECOND, 3)
