"""Counters and checksums that are written into a frame's data when it is sent.

Receivers of safety-related messages refuse a frame whose counter did not advance or whose
checksum is wrong. What a user asks for (:class:`Counter`, :class:`Crc8`, :class:`E2E`) also travels
to the scheduler, so values are checked where the objects are made, in Python as on decoding;
:func:`protection` checks that they fit the data.

Sources: AUTOSAR FO "E2E Protocol Specification" and CP "Specification of SW-C End-to-End
Communication Protection Library" (the profiles), CP "Specification of CRC Routines" (the CRCs).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Final, Literal, NamedTuple, TypeAlias

import msgspec

from canbroker.model.plain_numbers import plain

_LAST_BYTE: Final = 63  # of the longest data, CAN FD's

Profile: TypeAlias = Literal["P01", "P02", "P05", "P11", "P22"]
DataIdMode: TypeAlias = Literal["both", "alternating", "low", "nibble"]


class Counter(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Counts the frames that are sent: ``first`` to ``last``, then from ``first`` again.

    It takes ``bits`` bits of one byte, the lowest of them being bit ``shift``; the other bits are
    left as they are. ``last`` is the largest number that fits unless given.

    :raises ValueError: a value is out of its range.
    """

    byte: int
    bits: int = 8
    shift: int = 0
    first: int = 0
    last: int | None = None

    def __post_init__(self) -> None:
        _make_plain(self)
        _check("byte of the counter", self.byte, 0, _LAST_BYTE)
        _check("bits of the counter", self.bits, 1, 8)
        _check("shift of the counter", self.shift, 0, 7)
        if self.bits + self.shift > 8:
            raise ValueError(
                f"a counter of {self.bits} bits from bit {self.shift} on leaves its byte"
            )
        largest = 2**self.bits - 1
        _check("first of the counter", self.first, 0, largest)
        if self.last is not None:
            _check("last of the counter", self.last, self.first, largest)


class Crc8(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="crc8"):
    """An 8-bit CRC, written to ``byte``; highest bit first, neither input nor result reflected.

    ``bytes`` says which bytes it covers, in this order; unless given, all but its own. The default
    is CRC-8/SAE-J1850.

    :raises ValueError: a value is out of its range.
    """

    byte: int
    polynomial: int = 0x1D
    init: int = 0xFF
    xor: int = 0xFF
    bytes: Sequence[int] | None = None

    def __post_init__(self) -> None:
        _make_plain(self)
        _check("byte of the checksum", self.byte, 0, _LAST_BYTE)
        _check("polynomial", self.polynomial, 1, 0xFF)
        _check("init", self.init, 0, 0xFF)
        _check("xor", self.xor, 0, 0xFF)
        if self.bytes is None:
            return
        covers = _numbers("bytes", self.bytes, _LAST_BYTE)
        if not 1 <= len(covers) <= _LAST_BYTE + 1:  # long ones would delay everybody's frames
            raise ValueError(
                f"bytes lists {len(covers)} of the {_LAST_BYTE + 1} that data can have"
            )
        if self.byte in covers:
            raise ValueError(f"the checksum in byte {self.byte} cannot cover itself")
        msgspec.structs.force_setattr(self, "bytes", covers)


class E2E(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="e2e"):
    """AUTOSAR end-to-end protection: a counter and a CRC in a header at byte ``offset``.

    Bytes below are those of the header. All CRCs cover every byte of the data but their own; the
    first frame that is sent has counter 0.

    ``P01``, ``P11``
        Byte 0: CRC-8 with polynomial 0x1D, beginning with 0, result not inverted (the standard
        feeds SAE-J1850 a start value and a last XOR that cancel its own). Byte 1, bits 0 to 3:
        counter, 0 to 14. The data id, 16 bits, enters before the data, as ``data_id_mode`` says:
        ``both`` its low, then its high byte (variants 1A, 11A); ``alternating`` the low byte at
        even counters, the high one at odd counters (1B); ``low`` the low byte alone; ``nibble``
        (1C, 11C) the low byte, then 0, while bits 8 to 11 are sent in byte 1, bits 4 to 7; such an
        id has 12 bits. P11 knows ``both`` and ``nibble`` only.
    ``P02``, ``P22``
        Byte 0: CRC-8 with polynomial 0x2F, init and xor 0xFF. Byte 1, bits 0 to 3: counter, 0 to
        15. ``data_id`` is a list of 16 bytes; the one that the counter selects enters after the
        data.
    ``P05``
        Bytes 0 and 1: CRC-16 with polynomial 0x1021, init 0xFFFF, low byte first. Byte 2: counter,
        0 to 255. The data id, 16 bits, enters after the data, low byte first.

    :raises ValueError: a value is out of its range, or not one of the profile's.
    """

    profile: Profile
    data_id: int | Sequence[int]
    data_id_mode: DataIdMode = "both"
    offset: int = 0

    def __post_init__(self) -> None:
        _make_plain(self)
        if self.profile not in tuple(_MODES):  # which may be unhashable, too
            raise ValueError(f"profile is {self.profile!r}, but must be one of {', '.join(_MODES)}")
        if self.data_id_mode not in _MODES[self.profile]:
            modes = ", ".join(_MODES[self.profile])
            raise ValueError(
                f"data_id_mode is {self.data_id_mode!r}, but {self.profile} knows: {modes}"
            )
        if self.profile in ("P02", "P22"):
            data_ids = _numbers("data_id", self.data_id, 0xFF)
            if len(data_ids) != 16:
                raise ValueError(f"data_id of {self.profile} has {len(data_ids)} bytes, not 16")
            msgspec.structs.force_setattr(self, "data_id", data_ids)
        else:
            largest = 0xFFF if self.data_id_mode == "nibble" else 0xFFFF
            _check("data_id", self.data_id, 0, largest)
        _check("offset", self.offset, 0, _LAST_BYTE)


Checksum: TypeAlias = Crc8 | E2E

#: The first is the default; of profiles that have one alone it means nothing.
_MODES: Final[dict[str, tuple[str, ...]]] = {
    "P01": ("both", "alternating", "low", "nibble"),
    "P02": ("both",),
    "P05": ("both",),
    "P11": ("both", "nibble"),
    "P22": ("both",),
}


def protection(counter: Counter | None, checksum: Checksum | None, length: int) -> Protection:
    """What writes ``counter`` and ``checksum`` into data of ``length`` bytes, or of more.

    :raises ValueError: they do not fit the data, or each other.
    """
    if counter is not None:
        _check_fits("the counter", counter.byte, length)
    count = None if counter is None else _count(counter)
    if checksum is None:
        return Protection(count, None)
    if isinstance(checksum, Crc8):
        _check_fits("the checksum", checksum.byte, length)
        _check_fits("what the checksum covers", max(checksum.bytes or (0,)), length)
        if counter is not None and counter.byte == checksum.byte:
            raise ValueError(f"counter and checksum are both in byte {counter.byte}")
        return Protection(count, _crc8_sum(checksum))
    if counter is not None:
        raise ValueError(f"{checksum.profile} has a counter of its own: no other can be given")
    header = 3 if checksum.profile == "P05" else 2
    _check_fits(f"the header of {checksum.profile}", checksum.offset + header - 1, length)
    return _e2e_protection(checksum)


class Protection:
    """Writes a counter and a checksum into data; made by :func:`protection`. Any thread."""

    __slots__ = ("_count", "_sum")

    def __init__(self, count: _Count | None, checksum: _Sum | None) -> None:
        self._count = count
        self._sum = checksum

    def apply(self, data: bytes, count: int) -> bytes:
        """A copy of ``data`` for the frame that ``count`` others were sent before.

        The checksum covers all of ``data``, which may be longer than the length that was checked,
        but not shorter.
        """
        frame = bytearray(data)
        position = 0
        if self._count is not None:
            byte, keep, values = self._count
            position = count % len(values)
            frame[byte] = frame[byte] & keep | values[position]
        if self._sum is not None:
            self._sum.write(frame, position)
        return bytes(frame)


class _Count(NamedTuple):
    """A counter, worked out: all values in turn as bits of their byte, and which bits it keeps."""

    byte: int
    keep: int
    values: bytes


class _Id(NamedTuple):
    """Where a CRC begins, and what enters it after the data."""

    start: int
    after: bytes = b""


class _Sum(NamedTuple):
    """A checksum, worked out. ``ids`` are taken in turn as the counter's values are."""

    byte: int
    size: int  # in bytes, of which the low one comes first
    crc: Callable[[bytes | bytearray, int, tuple[int, ...]], int]
    table: tuple[int, ...]
    xor: int
    ids: tuple[_Id, ...]
    covers: tuple[int, ...] | None = None

    def write(self, data: bytearray, position: int) -> None:
        byte, size, crc, table, xor, ids, covers = self
        start, after = ids[position % len(ids)]
        if covers is None:
            covered = data[:byte] + data[byte + size :] + after
        else:
            covered = bytearray([data[index] for index in covers])
        data[byte : byte + size] = (crc(covered, start, table) ^ xor).to_bytes(size, "little")


def _count(counter: Counter) -> _Count:
    last = 2**counter.bits - 1 if counter.last is None else counter.last
    values = bytes(n << counter.shift for n in range(counter.first, last + 1))
    return _Count(counter.byte, 0xFF & ~((2**counter.bits - 1) << counter.shift), values)


def _crc8_sum(crc: Crc8) -> _Sum:
    covers = None if crc.bytes is None else tuple(crc.bytes)
    ids = (_Id(crc.init),)
    return _Sum(crc.byte, 1, _crc8, _table(crc.polynomial, 8), crc.xor, ids, covers)


def _e2e_protection(e2e: E2E) -> Protection:
    at = e2e.offset
    if not isinstance(e2e.data_id, int):
        listed = tuple(_Id(0xFF, bytes([data_id])) for data_id in e2e.data_id)
        checksum = _Sum(at, 1, _crc8, _table(0x2F, 8), 0xFF, listed)
        return Protection(_count(Counter(at + 1, bits=4)), checksum)
    if e2e.profile == "P05":
        ids: tuple[_Id, ...] = (_Id(0xFFFF, e2e.data_id.to_bytes(2, "little")),)
        checksum = _Sum(at, 2, _crc16, _table(0x1021, 16), 0, ids)
        return Protection(_count(Counter(at + 2)), checksum)
    low, high = e2e.data_id.to_bytes(2, "little")
    count = _count(Counter(at + 1, bits=4, last=14))
    if e2e.data_id_mode == "nibble":
        count = _Count(count.byte, 0, bytes(high << 4 | value for value in count.values))
    table = _table(0x1D, 8)
    before = {
        "both": (bytes([low, high]),),
        "alternating": (bytes([low]), bytes([high])),
        "low": (bytes([low]),),
        "nibble": (bytes([low, 0]),),
    }[e2e.data_id_mode]
    ids = tuple(_Id(_crc8(data_id, 0, table)) for data_id in before)
    return Protection(count, _Sum(at, 1, _crc8, table, 0, ids))


def _crc8(data: bytes | bytearray, crc: int, table: tuple[int, ...]) -> int:
    for byte in data:
        crc = table[crc ^ byte]
    return crc


def _crc16(data: bytes | bytearray, crc: int, table: tuple[int, ...]) -> int:
    for byte in data:
        crc = (crc << 8 & 0xFFFF) ^ table[crc >> 8 ^ byte]
    return crc


@lru_cache(maxsize=256)  # as many as there are polynomials of 8 bits
def _table(polynomial: int, width: int) -> tuple[int, ...]:
    """What a CRC of ``width`` bits becomes by eight shifts, by its highest byte."""
    table = []
    for byte in range(256):
        crc = byte << width - 8
        for _ in range(8):
            crc = crc << 1 ^ (polynomial if crc >> width - 1 else 0)
            crc &= 2**width - 1
        table.append(crc)
    return tuple(table)


def _check(name: str, value: object, smallest: int, largest: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not smallest <= value <= largest:
        raise ValueError(f"{name} is {value!r}, but must be a number from {smallest} to {largest}")


def _numbers(name: str, values: object, largest: int) -> tuple[int, ...]:
    if not isinstance(values, Sequence):
        raise ValueError(f"{name} is {values!r}, but must be a list of numbers")
    numbers = tuple(map(plain, values))
    for number in numbers:
        _check(f"a number in {name}", number, 0, largest)
    return numbers


def _make_plain(asked: msgspec.Struct) -> None:
    """Numbers of NumPy's travel to the scheduler as Python's own."""
    for name in asked.__struct_fields__:
        msgspec.structs.force_setattr(asked, name, plain(getattr(asked, name)))


def _check_fits(name: str, last: int, length: int) -> None:
    if last >= length:
        raise ValueError(f"{name} needs byte {last}: data of {length} bytes end before")
