"""A frame: the row that travels on the wire and through the actors; its sizes and times.

Lengths of data and codes for them: ISO 11898-1:2015, table 5. Bit counts: ISO 11898-1:2015, 10.4.
"""

from __future__ import annotations

from functools import lru_cache
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

    A controller does so, which has four bits for the length. What is too long stays as it is.
    """
    if len(data) in _DLC_OF_LENGTH or len(data) > FD_LENGTHS[-1]:
        return data
    return data.ljust(dlc_to_length(length_to_dlc(len(data))), b"\0")


def frame_fault(arbitration_id: int, flags: int, data: bytes | int) -> str | None:
    """Says why no controller could send this frame, or ``None`` if one could.

    The one place that knows what a valid frame is; types are checked by whoever decoded it.
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
            return f"{len(data)} bytes is no CAN FD length (0-8, 12, 16, 20, 24, 32, 48, 64)"
        return None
    if len(data) > 8:
        return f"{len(data)} bytes do not fit a classic CAN frame (8 at most)"
    return None


def describe(frame: Frame) -> str:
    """The frame in candump's notation, for errors and logs."""
    identifier = f"{frame.arbitration_id:0{8 if frame.flags & EXTENDED else 3}X}"
    if isinstance(frame.data, int):
        return f"{identifier}#R{frame.data or ''}"
    if frame.flags & FD:
        bits = bool(frame.flags & BITRATE_SWITCH) | bool(frame.flags & ERROR_STATE_INDICATOR) << 1
        return f"{identifier}##{bits:X}{frame.data.hex().upper()}"
    return f"{identifier}#{frame.data.hex().upper()}"


# ------------------------------------------------------------------------------- time on the bus
#
# A frame's bits up to the CRC are stuffed: after five equal bits the controller inserts their
# complement. What follows the CRC is not: delimiters, acknowledge, end of frame, intermission.

_CLASSIC_TAIL = 1 + 1 + 1 + 7 + 3  # CRC delimiter, ACK, ACK delimiter, EOF, intermission
_FD_ARBITRATION_TAIL = 1 + 1 + 7 + 3  # ACK, ACK delimiter, EOF, intermission


@lru_cache(maxsize=8192)
def bit_counts(arbitration_id: int, flags: int, data: bytes | int) -> tuple[int, int]:
    """Exact bits of a frame with its stuff bits: ``(at the bitrate, at the data bitrate)``.

    The second number is 0 unless the frame switches its bitrate. Includes the three bits of
    intermission, so that back-to-back frames add up to the time that they take.
    """
    length = data if isinstance(data, int) else len(data)
    payload = "" if isinstance(data, int) else _bits_of(data)
    if not flags & FD:
        head = _classic_head(arbitration_id, flags, length)
        bits = head + payload
        bits += f"{_crc15(bits):015b}"
        return len(bits) + _stuff_bits(bits) + _CLASSIC_TAIL, 0
    head = _fd_head(arbitration_id, flags)
    body = f"{bool(flags & ERROR_STATE_INDICATOR):b}{length_to_dlc(length):04b}{payload}"
    # Stuff count (4 bits) and CRC (17 or 21 bits), with a fixed stuff bit before every fourth.
    crc_field = 4 + 17 + 6 if length <= 16 else 4 + 21 + 7
    # A stuff bit that the last bit asks for is not sent: the fixed one is there already.
    total_stuffed = _stuff_bits((head + body)[:-1])
    if not flags & BITRATE_SWITCH:
        return len(head + body) + total_stuffed + crc_field + 1 + _FD_ARBITRATION_TAIL, 0
    head_stuffed = _stuff_bits(head)
    fast = len(body) + (total_stuffed - head_stuffed) + crc_field + 1
    return len(head) + head_stuffed + _FD_ARBITRATION_TAIL, fast


def bus_time_ns(frame: Frame, bitrate: int, data_bitrate: int | None = None) -> int:
    """Nanoseconds that the frame occupies a bus of these bit rates (bit/s)."""
    slow, fast = bit_counts(
        frame.arbitration_id, frame.flags & ~(LOOPBACK | HARDWARE_TIMESTAMP), frame.data
    )
    return slow * 1_000_000_000 // bitrate + fast * 1_000_000_000 // (data_bitrate or bitrate)


def nominal_time_ns(frame: Frame, bitrate: int, data_bitrate: int | None = None) -> int:
    """Like :func:`bus_time_ns` without stuff bits, but cheap enough for every frame: bus load."""
    extended = frame.flags & EXTENDED
    length = 0 if isinstance(frame.data, int) else len(frame.data)
    if not frame.flags & FD:
        return ((67 if extended else 47) + 8 * length) * 1_000_000_000 // bitrate
    slow = (36 if extended else 17) + _FD_ARBITRATION_TAIL
    fast = 5 + 8 * length + (27 if length <= 16 else 32) + 1
    fast_rate = (data_bitrate or bitrate) if frame.flags & BITRATE_SWITCH else bitrate
    return slow * 1_000_000_000 // bitrate + fast * 1_000_000_000 // fast_rate


def arbitration_key(arbitration_id: int, flags: int) -> int:
    """The arbitration field as a number: of two frames that start together, the lower one wins."""
    remote = bool(flags & REMOTE)
    if flags & EXTENDED:
        base, rest = arbitration_id >> 18, arbitration_id & 0x3FFFF
        return base << 21 | 1 << 20 | 1 << 19 | rest << 1 | remote  # SRR and IDE are recessive
    return arbitration_id << 21 | remote << 20


def _bits_of(data: bytes) -> str:
    return f"{int.from_bytes(data, 'big'):0{len(data) * 8}b}" if data else ""


def _classic_head(arbitration_id: int, flags: int, length: int) -> str:
    remote = f"{bool(flags & REMOTE):b}"
    if flags & EXTENDED:  # SOF, base, SRR, IDE, extension, RTR, r1, r0, DLC
        identifier = f"{arbitration_id:029b}"
        return f"0{identifier[:11]}11{identifier[11:]}{remote}00{length:04b}"
    return f"0{arbitration_id:011b}{remote}00{length:04b}"  # SOF, identifier, RTR, IDE, r0, DLC


def _fd_head(arbitration_id: int, flags: int) -> str:
    switch = f"{bool(flags & BITRATE_SWITCH):b}"
    if flags & EXTENDED:  # SOF, base, SRR, IDE, extension, RRS, FDF, res, BRS
        identifier = f"{arbitration_id:029b}"
        return f"0{identifier[:11]}11{identifier[11:]}010{switch}"
    return f"0{arbitration_id:011b}0010{switch}"  # SOF, identifier, RRS, IDE, FDF, res, BRS


def _crc15(bits: str) -> int:
    register = 0
    for bit in bits:
        register = (register << 1) ^ (0x4599 if (bit == "1") != (register >> 14) else 0)
        register &= 0x7FFF
    return register


def _stuff_bits(bits: str) -> int:
    stuffed, run, last = 0, 0, ""
    for bit in bits:
        run = run + 1 if bit == last else 1
        last = bit
        if run == 5:  # the stuff bit is the complement and starts the next run
            stuffed += 1
            last, run = ("0" if bit == "1" else "1"), 1
    return stuffed
