"""pcapng, which Wireshark reads: packets of link type SocketCAN, an interface for each channel.

Source: draft-ietf-opsawg-pcapng (blocks and options), tcpdump.org's LINKTYPE_CAN_SOCKETCAN.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, Literal, NamedTuple

from canbroker.errors import CanInitializationError
from canbroker.logs.losses import Holds
from canbroker.logs.records import Record, Skipped, check_time, error_flags, valid_frame
from canbroker.logs.streams import RecordReader, SinkWriter
from canbroker.model.frame import (
    BITRATE_SWITCH,
    ERROR,
    ERROR_STATE_INDICATOR,
    EXTENDED,
    FD,
    MAX_EXTENDED_ID,
    MAX_STANDARD_ID,
    REMOTE,
    Frame,
)
from canbroker.system import clock

_SECTION: Final = 0x0A0D0D0A
_INTERFACE: Final = 1
_PACKETS_WITHOUT_TIME: Final = 3
_PACKET: Final = 6
_MAGIC: Final = 0x1A2B3C4D

_END: Final = 0
_COMMENT: Final = 1
_IF_NAME: Final = 2
_IF_TSRESOL: Final = 9
_IF_TSOFFSET: Final = 14
_SHB_USERAPPL: Final = 4
_EPB_FLAGS: Final = 2

_SOCKETCAN: Final = 227

_INBOUND: Final = 1
_OUTBOUND: Final = 2

# In the identifier's upper bits, and in the byte of flags that follows the length (linux/can.h).
_EFF: Final = 0x80000000
_RTR: Final = 0x40000000
_ERR: Final = 0x20000000
_BRS: Final = 1
_ESI: Final = 2
_FDF: Final = 4

#: In place of the length's highest bit, CAN XL frames have a mark of their own.
_XLF: Final = 0x80

#: What Linux captures of an FD frame; older ones do not mark it otherwise.
_FD_SIZE: Final = 72

_MAX_BLOCK: Final = 1 << 24

_EPB: Final = struct.Struct("<IIIIIII")
_CAN: Final = struct.Struct(">IBBH")
_TAILS: Final = {  # the option that says the direction, and the end of options
    sent: struct.pack("<HHIHH", _EPB_FLAGS, 4, _OUTBOUND if sent else _INBOUND, _END, 0)
    for sent in (False, True)
}


class PcapngWriter(SinkWriter):
    """One section; interfaces are described when their first frame comes."""

    def __init__(
        self, path: Path, *, compressed: bool, holds: Holds, metadata: Mapping[str, str]
    ) -> None:
        """:raises OSError: the file cannot be created."""
        super().__init__(path, compressed=compressed, holds=holds, metadata=metadata)
        self._interfaces: dict[str, int] = {}
        comment = "\n".join(f"{key}: {value}" for key, value in self.metadata.items())
        options = _option(_SHB_USERAPPL, b"canbroker")
        if comment:
            options += _option(_COMMENT, comment.encode()[:0xFFFF])
        header = struct.pack("<IHHq", _MAGIC, 1, 0, -1)
        self._sink.binary.write(_block(_SECTION, header + options + _option(_END, b"")))

    def _write(self, records: Sequence[Record]) -> None:
        parts: list[bytes] = []
        for frame, channel, sent, _, _ in records:
            interface = self._interfaces.get(channel)
            if interface is None:
                interface = self._interfaces[channel] = len(self._interfaces)
                parts.append(_interface(channel))
            packet = _packet(frame)
            length = len(packet)
            padding = -length % 4
            total = 28 + length + padding + 12 + 4
            high, low = frame.timestamp_ns >> 32, frame.timestamp_ns & 0xFFFFFFFF
            parts += (
                _EPB.pack(_PACKET, total, interface, high, low, length, length),
                packet,
                bytes(padding),
                _TAILS[sent],
                total.to_bytes(4, "little"),
            )
        self._sink.binary.write(b"".join(parts))


def _packet(frame: Frame) -> bytes:
    flags, data = frame.flags, frame.data
    identifier = frame.arbitration_id
    if flags & ERROR:
        identifier |= _ERR
    elif flags & EXTENDED:
        identifier |= _EFF
    if isinstance(data, int):
        return _CAN.pack(identifier | _RTR, data, 0, 0)
    bits = 0
    if flags & FD:
        bits = _FDF | (_BRS if flags & BITRATE_SWITCH else 0)
        bits |= _ESI if flags & ERROR_STATE_INDICATOR else 0
    return _CAN.pack(identifier, len(data), bits, 0) + data


def _interface(channel: str) -> bytes:
    name = _option(_IF_NAME, (channel or "can").encode()[:0xFFFF])
    resolution = _option(_IF_TSRESOL, b"\x09")  # 10^-9 s
    body = struct.pack("<HHI", _SOCKETCAN, 0, 0) + name + resolution + _option(_END, b"")
    return _block(_INTERFACE, body)


def _block(kind: int, body: bytes) -> bytes:
    total = len(body) + 12
    return struct.pack("<II", kind, total) + body + struct.pack("<I", total)


def _option(code: int, value: bytes) -> bytes:
    return struct.pack("<HH", code, len(value)) + value + bytes(-len(value) % 4)


class _Interface(NamedTuple):
    """What the packets of an interface need: time is ``(units * factor >> shift) // divisor``."""

    name: str
    is_can: bool
    factor: int
    shift: int
    divisor: int
    offset_ns: int


class _Order:
    """How numbers are read in a section of one byte order."""

    def __init__(self, sign: Literal["<", ">"]) -> None:
        self.magic = struct.pack(f"{sign}I", _MAGIC)
        self.number = struct.Struct(f"{sign}I")
        self.short = struct.Struct(f"{sign}H")
        self.signed = struct.Struct(f"{sign}q")
        self.head = struct.Struct(f"{sign}II")
        self.option = struct.Struct(f"{sign}HH")
        self.packet = struct.Struct(f"{sign}IIIII")
        #: The option that says the direction of a packet, without it.
        self.flags = self.option.pack(_EPB_FLAGS, 4)


_SIGNS: Final[tuple[Literal["<", ">"], ...]] = ("<", ">")
_ORDERS: Final = tuple(_Order(sign) for sign in _SIGNS)


class _DamageError(ValueError):
    """After this place, the file cannot be read."""


class PcapngReader(RecordReader):
    """Sections of either byte order, with packets of any link types, of which CAN is read."""

    def __init__(self, path: Path) -> None:
        """:raises CanInitializationError: the file cannot be read."""
        super().__init__(path)
        self._order = _ORDERS[0]
        self._interfaces: list[_Interface] = []

    def _records(self, skipped: Skipped) -> Iterator[Record]:
        self._interfaces = []
        for offset, kind, body in self._blocks():
            if kind == _INTERFACE:
                self._interfaces.append(self._described(body))
            elif kind == _PACKETS_WITHOUT_TIME:
                skipped.add("packets without a time", f"byte {offset}")
            elif kind == _PACKET and (record := self._record(offset, body, skipped)):
                yield record

    def _blocks(self) -> Iterator[tuple[int, int, bytes]]:
        """Yields the place, the kind and the body of each block; says in ``end`` where it stops."""
        offset = 0
        while True:
            try:
                block = self._block()
            except (_DamageError, struct.error) as error:
                if not offset:
                    raise CanInitializationError(f"{self.name} is not pcapng: {error}") from None
                self.end = f"cut off or damaged at byte {offset}: {error}"
                return
            if block is None:
                if not offset:
                    raise CanInitializationError(f"{self.name} is empty")
                return
            kind, body, total = block
            if not offset and kind != _SECTION:
                raise CanInitializationError(f"{self.name} is not pcapng")
            yield offset, kind, body
            offset += total

    def _block(self) -> tuple[int, bytes, int] | None:
        """Reads a block; ``None`` at the end of the file."""
        head = self._source.read(8)
        if not head:
            return None
        if len(head) < 8:
            raise _DamageError("the header of a block is incomplete")
        kind, total = self._order.head.unpack(head)
        begun = b""
        if kind == _SECTION:  # its bytes are the same in both orders
            begun = self._source.read(4)
            order = next((order for order in _ORDERS if order.magic == begun), None)
            if order is None:
                raise _DamageError("the byte order of a section is unknown")
            self._order = order
            self._interfaces = []
            _, total = order.head.unpack(head)
        if not 12 + len(begun) <= total <= _MAX_BLOCK or total % 4:
            raise _DamageError(f"a block cannot have {total} bytes")
        rest = begun + self._source.read(total - 8 - len(begun))
        if len(rest) < total - 8:
            raise _DamageError("a block is incomplete")
        if rest[-4:] != self._order.number.pack(total):
            raise _DamageError("a block ends with another length than it begins with")
        return kind, rest[:-4], total

    def _described(self, body: bytes) -> _Interface:
        """:raises struct.error: the block is too short."""
        (link,) = self._order.short.unpack_from(body)
        options = self._options(body, 8)
        name = options.get(_IF_NAME, b"").rstrip(b"\0").decode(errors="replace")
        resolution = options.get(_IF_TSRESOL, b"\x06")[:1] or b"\x06"
        power = resolution[0] & 0x7F
        factor, shift, divisor = clock.SECOND, 0, 1
        if resolution[0] & 0x80:
            shift = power
        else:
            divisor = 10**power
        offset = options.get(_IF_TSOFFSET, bytes(8))
        (seconds,) = self._order.signed.unpack(offset) if len(offset) == 8 else (0,)
        number = len(self._interfaces)
        return _Interface(
            name or str(number), link == _SOCKETCAN, factor, shift, divisor, seconds * clock.SECOND
        )

    def _options(self, body: bytes, at: int) -> dict[int, bytes]:
        """The options from this place on, as far as they are intact; the first of each kind."""
        found: dict[int, bytes] = {}
        while at + 4 <= len(body):
            code, length = self._order.option.unpack_from(body, at)
            if code == _END:
                break
            found.setdefault(code, body[at + 4 : at + 4 + length])
            at += 4 + length + -length % 4
        return found

    def _record(self, offset: int, body: bytes, skipped: Skipped) -> Record | None:
        where = f"byte {offset}"
        if len(body) < 20:
            skipped.add("damaged packets", f"{where}: {len(body)} bytes are too few")
            return None
        number, high, low, length, _ = self._order.packet.unpack_from(body)
        if number >= len(self._interfaces):
            skipped.add("damaged packets", f"{where}: there is no interface {number}")
            return None
        interface = self._interfaces[number]
        if not interface.is_can:
            skipped.add("packets of other link types", where)
            return None
        units = high << 32 | low
        since_ns = (units * interface.factor >> interface.shift) // interface.divisor
        try:
            timestamp_ns = since_ns + interface.offset_ns
            frame = _frame(body[20 : 20 + length], length, timestamp_ns)
        except ValueError as error:
            skipped.add("damaged packets", f"{where}: {error}")
            return None
        if frame is None:
            skipped.add("CAN XL frames", where)
            return None
        return Record(frame, interface.name, self._is_sent(body, 20 + length + -length % 4))

    def _is_sent(self, body: bytes, at: int) -> bool:
        if body[at : at + 4] == self._order.flags:  # mostly the first option, if there is one
            flags = body[at + 4 : at + 8]
        else:
            flags = self._options(body, at).get(_EPB_FLAGS, b"")
        return len(flags) == 4 and self._order.number.unpack(flags)[0] & 3 == _OUTBOUND


def _frame(packet: bytes, length: int, timestamp_ns: int) -> Frame | None:
    """The frame in a packet; ``None`` for CAN XL.

    :raises ValueError: the packet is incomplete, or no such frame can exist.
    """
    if len(packet) < length or length < _CAN.size:
        raise ValueError(
            f"a packet of {length} bytes has only {len(packet)}, or less than a header"
        )
    check_time(timestamp_ns)
    identifier, size, bits, _ = _CAN.unpack_from(packet)
    if size & _XLF:
        return None
    number, flags = identifier & MAX_EXTENDED_ID, 0
    content: bytes | int = packet[8 : 8 + size]
    if identifier & _ERR:
        flags = error_flags(number)
    else:
        flags = EXTENDED if identifier & _EFF else 0
        number &= MAX_EXTENDED_ID if flags else MAX_STANDARD_ID
        if identifier & _RTR:
            flags, content = flags | REMOTE, size
        elif bits & _FDF or size > 8 or length == _FD_SIZE:
            flags |= FD | (BITRATE_SWITCH if bits & _BRS else 0)
            flags |= ERROR_STATE_INDICATOR if bits & _ESI else 0
    if isinstance(content, bytes) and len(content) != size:
        raise ValueError(f"{len(content)} bytes of data instead of {size}")
    return valid_frame(timestamp_ns, number, flags, content)
