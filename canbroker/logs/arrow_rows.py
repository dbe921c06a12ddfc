"""What a row of an Arrow table says of a frame."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import pyarrow as pa

from canbroker.logs.records import Record, error_flags, valid_frame
from canbroker.model.frame import (
    BITRATE_SWITCH,
    ERROR,
    ERROR_STATE_INDICATOR,
    EXTENDED,
    FD,
    REMOTE,
)

#: The columns that are flags of a frame.
FLAGS: Final[Mapping[str, int]] = {
    "extended": EXTENDED,
    "remote": REMOTE,
    "error": ERROR,
    "fd": FD,
    "bitrate_switch": BITRATE_SWITCH,
    "error_state_indicator": ERROR_STATE_INDICATOR,
}


def texts_of(column: Any) -> list[str | None]:
    """The values of a column of texts, of whichever of Arrow's types for them.

    :raises TypeError: it has other values.
    """
    values: list[Any]
    if pa.types.is_dictionary(column.type):  # decoded here: pyarrow cannot for each type
        words = column.dictionary.to_pylist()
        values = [None if index is None else words[index] for index in column.indices.to_pylist()]
    else:
        values = column.to_pylist()
    for value in set(values):
        if not isinstance(value, str | None):
            raise TypeError(f"{value!r} is not a text")
    return values


def record(*row: Any) -> Record:
    """:raises ValueError: a value is missing, or no such frame can exist."""
    timestamp_ns, channel, number, *kinds, dlc, data, direction, origin, seq = row
    if timestamp_ns is None or timestamp_ns < 0 or number is None:
        raise ValueError(f"timestamp is {timestamp_ns}, arbitration_id {number}")
    flags = sum(flag for flag, held in zip(FLAGS.values(), kinds, strict=True) if held)
    content: bytes | int = data or b""
    if flags & ERROR:
        flags = error_flags(number)
    elif flags & REMOTE:
        content = dlc or 0
    frame = valid_frame(timestamp_ns, number, flags, content)
    return Record(frame, channel or "", direction == "tx", origin, seq)
