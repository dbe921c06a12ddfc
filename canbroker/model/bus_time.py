"""How long a frame occupies the bus, in bits and in time, and which of two frames wins it.

A frame's bits up to the CRC are stuffed: after five equal bits the controller inserts their
complement. The fields after the CRC are not: delimiters, acknowledge, end of frame, intermission.
"""

from __future__ import annotations

from functools import lru_cache

from canbroker.model.frame import (
    BITRATE_SWITCH,
    ERROR_STATE_INDICATOR,
    EXTENDED,
    FD,
    HARDWARE_TIMESTAMP,
    LOOPBACK,
    REMOTE,
    Frame,
    length_to_dlc,
)

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
