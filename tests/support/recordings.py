"""Records for tests of file formats, and what is left of them in each format."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import pytest
from hypothesis import strategies as st

from canbroker.logs.formats import FORMATS, Format
from canbroker.logs.losses import Holds
from canbroker.logs.records import Record, error_flags
from canbroker.model.frame import (
    BITRATE_SWITCH,
    ERROR,
    ERROR_STATE_INDICATOR,
    EXTENDED,
    FD,
    FD_LENGTHS,
    MAX_EXTENDED_ID,
    MAX_STANDARD_ID,
    REMOTE,
    Frame,
)

#: The 30th of November 2026.
BASE_NS: Final = 1_796_000_000_123_456_789


@st.composite
def frames(draw: st.DrawFn) -> Frame:
    """Every kind of frame, within an hour."""
    timestamp_ns = BASE_NS + draw(st.integers(0, 3600 * 10**9))
    kind = draw(st.sampled_from([0, REMOTE, ERROR, FD]))
    if kind == ERROR:
        number = draw(st.integers(0, MAX_EXTENDED_ID))
        return Frame(timestamp_ns, number, error_flags(number), draw(st.binary(max_size=8)))
    flags = kind | draw(st.sampled_from([0, EXTENDED]))
    if kind == FD:
        flags |= draw(st.sampled_from([0, BITRATE_SWITCH]))
        flags |= draw(st.sampled_from([0, ERROR_STATE_INDICATOR]))
    number = draw(st.integers(0, MAX_EXTENDED_ID if flags & EXTENDED else MAX_STANDARD_ID))
    length = draw(st.sampled_from(FD_LENGTHS if kind == FD else range(9)))
    data = length if kind == REMOTE else draw(st.binary(min_size=length, max_size=length))
    return Frame(timestamp_ns, number, flags, data)


@st.composite
def recordings(draw: st.DrawFn, least: int = 0, most: int = 20) -> list[Record]:
    """A few records of a few channels, in the order of time."""
    made = [
        Record(
            frame,
            draw(st.sampled_from(["can0", "can1", "body"])),
            # An adapter reports errors; nobody sends them.
            not frame.flags & ERROR and draw(st.booleans()),
            draw(st.none() | st.sampled_from(["c1", "c2"])),
            draw(st.none() | st.integers(0, 2**63)),
        )
        for frame in draw(st.lists(frames(), min_size=least, max_size=most))
    ]
    return sorted(made, key=lambda record: record.frame.timestamp_ns)


def examples() -> list[Record]:
    """One of each kind, one millisecond apart, at whole microseconds."""
    kinds: list[tuple[int, int, bytes | int]] = [
        (0x123, 0, bytes(range(8))),
        (0x7FF, 0, b""),
        (0x1ABCDEF0, EXTENDED, b"\x01\x02\x03"),
        (0x321, REMOTE, 4),
        (0x1FFFFFFF, EXTENDED | REMOTE, 0),
        (0x456, FD, bytes(range(64))),
        (0x18DA00F1, FD | EXTENDED | BITRATE_SWITCH, bytes(12)),
        (0x457, FD | ERROR_STATE_INDICATOR, b""),
        (0x88, ERROR, bytes([0, 0, 8, 0, 0, 0, 96, 0])),
    ]
    start_ns = BASE_NS // 1000 * 1000
    return [
        Record(
            Frame(start_ns + index * 1_000_000, number, flags, data),
            ("can0", "body")[index % 2],
            index % 3 == 0 and not flags & ERROR,
            "c1" if index % 3 == 0 else None,
            index,
        )
        for index, (number, flags, data) in enumerate(kinds)
    ]


def installed(kind: str) -> Format:
    """The format ``kind``, with or without ``.gz``; skips the test where its extra is missing."""
    form = FORMATS[kind.partition(".")[0]]
    if form.needs is not None and not form.needs.is_there:
        pytest.skip(f"needs the extra {form.needs.extra}; make ecosystem installs it")
    return form


def left(records: Sequence[Record], holds: Holds) -> list[tuple[object, ...]]:
    """What a format holds of these records; times are given without, as they may be rounded."""
    mask = sum(holds.excluded)
    kept = [record for record in records if not record.frame.flags & mask]
    numbers: dict[str, str] = {}
    for record in kept:
        own = {"can0": "1", "can1": "2"}.get(record.channel, "1")
        if record.channel not in numbers:
            taken = set(numbers.values())
            free = own if own not in taken else min({"1", "2", "3"} - taken)
            numbers[record.channel] = free

    def channel(name: str) -> str:
        return {"names": name, "numbers": numbers[name], "none": ""}[holds.channels]

    return [
        (
            *_content(record.frame, holds),
            channel(record.channel),
            record.sent and holds.direction,
            record.origin if holds.origin else None,
            record.seq if holds.origin else None,
        )
        for record in kept
    ]


def contents(records: Sequence[Record]) -> list[tuple[object, ...]]:
    """Records in the form of :func:`left`."""
    return [
        (*_content(record.frame, Holds()), record.channel, record.sent, record.origin, record.seq)
        for record in records
    ]


def _content(frame: Frame, holds: Holds) -> tuple[object, ...]:
    if frame.flags & ERROR and holds.errors == "bare":
        return 0, ERROR, b""
    flags = frame.flags
    if flags & FD and holds.fd == "data":
        is_long = isinstance(frame.data, bytes) and len(frame.data) > 8
        flags &= ~(BITRATE_SWITCH | ERROR_STATE_INDICATOR | (0 if is_long else FD))
    return frame.arbitration_id, flags, frame.data
