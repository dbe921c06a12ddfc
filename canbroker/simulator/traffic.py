"""Made-up traffic: a plausible vehicle for demonstrations, random frames in cangen's manner."""

from __future__ import annotations

import heapq
import itertools
import math
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from canbroker.logs.candump import LogEntry
from canbroker.model.bus_time import arbitration_key, bus_time_ns
from canbroker.model.frame import (
    BITRATE_SWITCH,
    ERROR_STATE_INDICATOR,
    EXTENDED,
    FD,
    FD_LENGTHS,
    MAX_EXTENDED_ID,
    MAX_STANDARD_ID,
    REMOTE,
    Frame,
    length_to_dlc,
)
from canbroker.system.clock import MILLISECOND, SECOND

VEHICLE_BITRATE: Final = 500_000


class _Cyclic(NamedTuple):
    """A message that an electronic control unit sends again and again."""

    arbitration_id: int
    period_ms: int
    length: int

    @property
    def flags(self) -> int:
        return EXTENDED if self.arbitration_id > MAX_STANDARD_ID else 0


# What matters for control comes often and wins arbitration; body and diagnosis come seldom.
_VEHICLE: Final = (
    *(_Cyclic(identifier, 10, 8) for identifier in (0x0A0, 0x0A5, 0x0B0, 0x0B4, 0x0C1, 0x0C5)),
    *(_Cyclic(identifier, 10, 8) for identifier in (0x0D0, 0x0D4, 0x0F1, 0x120, 0x130, 0x150)),
    *(_Cyclic(identifier, 10, 8) for identifier in (0x166, 0x18E)),
    *(_Cyclic(identifier, 20, 8) for identifier in (0x1A0, 0x1A6)),
    *(_Cyclic(identifier, 20, 7) for identifier in (0x1B0, 0x1CF, 0x1DC, 0x1ED)),
    *(_Cyclic(identifier, 50, 8) for identifier in (0x21E, 0x244, 0x260, 0x294, 0x2A1)),
    *(_Cyclic(identifier, 50, 4) for identifier in (0x305, 0x309)),
    *(_Cyclic(identifier, 100, 8) for identifier in (0x320, 0x324, 0x37C, 0x18FEF100)),
    _Cyclic(0x405, 100, 3),
    *(_Cyclic(identifier, 500, 8) for identifier in (0x428, 0x454)),
    *(_Cyclic(identifier, 1000, 5) for identifier in (0x5A1, 0x18FF5000)),
)
_VEHICLE_STARTS_NS: Final = 1_700_000_000 * SECOND


def generate_vehicle(seconds: float, seed: int) -> list[LogEntry]:
    """What a logger on a car's 500 kbit/s bus would record, busy for a bit over 40 % of the time.

    Some 35 identifiers, each with its cycle and a little jitter; frames that are due while the
    bus is busy wait and win arbitration as on a real bus. A timestamp is the end of its frame.
    The same arguments give the same traffic.
    """
    rng = _random(seed)
    phases = [rng.random() for _ in _VEHICLE]
    # (due, nominal, index): jitter moves one frame and not the cycle
    due: list[tuple[int, int, int]] = []
    for index, message in enumerate(_VEHICLE):
        first = rng.randrange(message.period_ms * MILLISECOND)
        due.append((first, first, index))
    heapq.heapify(due)
    waiting: list[tuple[int, int, int]] = []  # (arbitration key, nominal, index)
    entries: list[LogEntry] = []
    end_ns, now_ns = int(seconds * SECOND), 0
    while True:
        if not waiting:
            now_ns = max(now_ns, due[0][0])
        while due[0][0] <= now_ns:
            _, nominal, index = due[0]
            message = _VEHICLE[index]
            key = arbitration_key(message.arbitration_id, message.flags)
            heapq.heappush(waiting, (key, nominal, index))
            following = nominal + message.period_ms * MILLISECOND
            jitter = rng.randrange(message.period_ms * MILLISECOND // 50)
            heapq.heapreplace(due, (following + jitter, following, index))
        _, nominal, index = heapq.heappop(waiting)
        frame = _vehicle_frame(_VEHICLE[index], nominal, phases[index])
        now_ns += bus_time_ns(frame, VEHICLE_BITRATE)
        if now_ns > end_ns:
            return entries
        frame.timestamp_ns = _VEHICLE_STARTS_NS + now_ns
        entries.append(LogEntry(frame.timestamp_ns, "can0", frame))


def _vehicle_frame(message: _Cyclic, at_ns: int, phase: float) -> Frame:
    """The message with the values of that time: signals of 16 bits, counter, checksum."""
    data = bytearray()
    for index in range((message.length - 1) // 2):
        swing_s = 3 + 4 * phase + 5 * index  # no two signals of a message move together
        turn = math.sin(2 * math.pi * (at_ns / SECOND / swing_s + phase))
        data += round(0x8000 + 0x7000 * turn).to_bytes(2, "big")
    data = data[: message.length - 2]
    data.append(at_ns // (message.period_ms * MILLISECOND) % 16)
    data.append((message.arbitration_id + sum(data)) & 0xFF)
    return Frame(0, message.arbitration_id, message.flags, bytes(data))


@dataclass(frozen=True, slots=True, kw_only=True)
class GenOptions:
    """What :func:`random_frames` makes, in cangen's words.

    :param identifier: ``r`` random, ``e`` random even, ``o`` random odd, ``i`` one more each
        frame, else a hexadecimal number.
    :param length: ``r`` random, ``i`` the next one each frame, else a number of bytes; an FD
        frame takes the next length that exists, and more than fits is cut, as cangen does.
    :param data: ``r`` random, ``i`` a 64-bit little-endian counter (of 1 byte at least), else
        hexadecimal digits, where ``x`` is a random one; cut or filled with zeros to the length.
    :param bitrate_switch: and ``error_state_indicator`` imply ``fd``.
    :param remote: remote frames, unless they are FD ones.
    :param mix: extended, FD and remote frames at random.
    :raises ValueError: names the option.
    """

    identifier: str = "r"
    length: str = "r"
    data: str = "r"
    extended: bool = False
    fd: bool = False
    bitrate_switch: bool = False
    error_state_indicator: bool = False
    remote: bool = False
    mix: bool = False

    def __post_init__(self) -> None:
        if self.identifier not in ("r", "e", "o", "i"):
            if not re.fullmatch("[0-9A-Fa-f]{1,8}", self.identifier):
                raise ValueError(f"identifier must be r, e, o, i or hex, got {self.identifier!r}")
            limit = MAX_EXTENDED_ID if self.extended or self.mix else MAX_STANDARD_ID
            if int(self.identifier, 16) > limit:
                raise ValueError(f"identifier {self.identifier} is above {limit:X}")
        if self.length not in ("r", "i") and not re.fullmatch("[0-9]{1,3}", self.length):
            raise ValueError(f"length must be r, i or a number of bytes, got {self.length!r}")
        if self.data not in ("r", "i") and not re.fullmatch("(?:[0-9A-Fa-fx]{2}){0,64}", self.data):
            raise ValueError(f"data must be r, i or at most 64 bytes of hex, got {self.data!r}")

    @property
    def any_fd(self) -> bool:
        """Whether FD frames are asked for, in one way or another."""
        return self.fd or self.bitrate_switch or self.error_state_indicator


def random_frames(options: GenOptions, seed: int | None = None) -> Iterator[Frame]:
    """Frames without end; the same ``seed`` gives the same ones, ``None`` new ones each time."""
    rng = _random(seed)
    for number in itertools.count():
        flags = _mixed_flags(rng) if options.mix else _flags(options)
        limit = MAX_EXTENDED_ID if flags & EXTENDED else MAX_STANDARD_ID
        arbitration_id = _identifier(options.identifier, number, rng) & limit
        length = _length(options.length, number, bool(flags & FD), rng)
        data = length if flags & REMOTE else _data(options.data, length, number, rng)
        yield Frame(0, arbitration_id, flags, data)


def _flags(options: GenOptions) -> int:
    flags = EXTENDED if options.extended else 0
    if options.any_fd:
        flags |= FD
        flags |= BITRATE_SWITCH if options.bitrate_switch else 0
        flags |= ERROR_STATE_INDICATOR if options.error_state_indicator else 0
    elif options.remote:
        flags |= REMOTE
    return flags


def _mixed_flags(rng: random.Random) -> int:
    flags = rng.choice((0, EXTENDED))
    if rng.random() < 0.5:
        return flags | FD | rng.choice((0, BITRATE_SWITCH)) | rng.choice((0, ERROR_STATE_INDICATOR))
    return flags | (REMOTE if rng.random() < 0.25 else 0)


def _identifier(mode: str, number: int, rng: random.Random) -> int:
    match mode:
        case "r":
            return rng.getrandbits(29)
        case "e":
            return rng.getrandbits(29) & ~1
        case "o":
            return rng.getrandbits(29) | 1
        case "i":
            return number
        case _:
            return int(mode, 16)


def _length(mode: str, number: int, fd: bool, rng: random.Random) -> int:
    match mode:
        case "r":
            code = rng.getrandbits(4)
        case "i":
            code = number % (16 if fd else 9)
        case _:
            code = length_to_dlc(min(int(mode), FD_LENGTHS[-1]))
    return FD_LENGTHS[code] if fd else min(code, 8)


def _data(mode: str, length: int, number: int, rng: random.Random) -> bytes:
    match mode:
        case "r":
            return rng.randbytes(length)
        case "i":
            length = max(length, 1)
            content = (number % (1 << 64)).to_bytes(8, "little")
        case _:
            digits = (f"{rng.getrandbits(4):x}" if digit == "x" else digit for digit in mode)
            content = bytes.fromhex("".join(digits))
    return content[:length].ljust(length, b"\0")


def _random(seed: int | None) -> random.Random:
    return random.Random(seed)  # noqa: S311 - traffic is not secret, but must be repeatable
