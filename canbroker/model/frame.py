"""A frame: the row that travels on the wire and through the actors; its sizes and times.

Lengths of data and codes for them: ISO 11898-1:2015, table 5. Bit counts: ISO 11898-1:2015, 10.4.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

EXTENDED = 1
REMOTE = 2
ERROR = 4
FD = 8
BITRATE_SWITCH = 16
ERROR_STATE_INDICATOR = 32
HARDWARE_TIMESTAMP = 64
LOOPBACK = 128

MAX_STANDARD_ID = 0x7FF
MAX_EXTENDED_ID = 0x1FFFFFFF

FD_LENGTHS = (0, 1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 20, 24, 32, 48, 64)
_DLC_OF_LENGTH = {length: dlc for dlc, length in enumerate(FD_LENGTHS)}


class Frame(msgspec.Struct, array_like=True, gc=False):
    """A received frame, in the order of the wire.

    ``timestamp_ns`` is wall-clock time; ``data`` of a remote frame is its integer length. The
    bounds hold for every frame that was decoded; :func:`frame_fault` knows the finer rules.
    """

    timestamp_ns: Annotated[int, msgspec.Meta(ge=0)]
    arbitration_id: Annotated[int, msgspec.Meta(ge=0, le=MAX_EXTENDED_ID)]
    flags: Annotated[int, msgspec.Meta(ge=0, le=255)]
    data: Annotated[bytes, msgspec.Meta(max_length=64)] | Annotated[int, msgspec.Meta(ge=0, le=8)]


class EchoFrame(Frame, array_like=True, gc=False):
    """A frame that was transmitted through the broker by the client ``origin``."""

    origin: Annotated[str, msgspec.Meta(max_length=32)] | None = None


class ReceivedFrame(EchoFrame, array_like=True, gc=False):
    """As clients decode them: the data becomes that of a message, without being copied."""

    data: (  # type: ignore[assignment]
        Annotated[bytearray, msgspec.Meta(max_length=64)] | Annotated[int, msgspec.Meta(ge=0, le=8)]
    )


def dlc_to_length(dlc: int) -> int:
    """Bytes that an FD data length code stands for."""
    return FD_LENGTHS[dlc]


def length_to_dlc(length: int) -> int:
    """Data length code (0-15) of the shortest FD frame that holds ``length`` bytes (0-64)."""
    code = _DLC_OF_LENGTH.get(length)
    if code is not None:
        return code
    return next(dlc for dlc, size in enumerate(FD_LENGTHS) if size >= length)


def padded_fd(data: bytes) -> bytes:
    """Data of an FD frame with zeros up to the next length that one can have.

    A controller does the same, as it has four bits for the length. Longer data stays as it is.
    """
    if len(data) in _DLC_OF_LENGTH or len(data) > FD_LENGTHS[-1]:
        return data
    return data.ljust(dlc_to_length(length_to_dlc(len(data))), b"\0")


def frame_fault(arbitration_id: int, flags: int, data: bytes | int) -> str | None:
    """Says why no controller could send this frame, or ``None`` if one could.

    The one place that knows what a valid frame is; the decoder has checked the types.
    """
    limit = MAX_EXTENDED_ID if flags & EXTENDED else MAX_STANDARD_ID
    if not 0 <= arbitration_id <= limit:
        bits = 29 if flags & EXTENDED else 11
        return f"arbitration_id {arbitration_id:#x} does not fit {bits} bits"
    if flags & (BITRATE_SWITCH | ERROR_STATE_INDICATOR) and not flags & FD:
        return "bitrate switch and error state indicator exist in FD frames only"
    if flags & REMOTE:
        if flags & (FD | ERROR):
            return "a remote frame can be neither an FD nor an error frame"
        if not isinstance(data, int) or not 0 <= data <= 8:
            return f"a remote frame's length must be 0 to 8, got {data!r}"
        return None
    if isinstance(data, int):
        return "only a remote frame has a length instead of data"
    if flags & FD:
        if len(data) not in _DLC_OF_LENGTH:
            return f"{len(data)} bytes is not a CAN FD length (0-8, 12, 16, 20, 24, 32, 48, 64)"
        return None
    if len(data) > 8:
        return f"{len(data)} bytes do not fit a classic CAN frame (8 at most)"
    return None


def identifier_text(arbitration_id: int, is_long: object) -> str:
    """As candump writes it: 8 hex digits of an extended frame (``is_long``), else 3."""
    return f"{arbitration_id:0{8 if is_long else 3}X}"


def describe(frame: Frame) -> str:
    """The frame in candump's notation, for errors and logs."""
    identifier = identifier_text(frame.arbitration_id, frame.flags & EXTENDED)
    if isinstance(frame.data, int):
        return f"{identifier}#R{frame.data or ''}"
    if frame.flags & FD:
        bits = bool(frame.flags & BITRATE_SWITCH) | bool(frame.flags & ERROR_STATE_INDICATOR) << 1
        return f"{identifier}##{bits:X}{frame.data.hex().upper()}"
    return f"{identifier}#{frame.data.hex().upper()}"
