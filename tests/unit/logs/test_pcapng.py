"""pcapng beyond what we write ourselves: other byte orders, clocks, link types, and damage."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canbroker.errors import CanInitializationError
from canbroker.logs.formats import open_reader, open_writer
from canbroker.logs.records import Record
from canbroker.model.frame import FD
from tests.support.recordings import BASE_NS, examples

_SOCKETCAN: Final = 227
_ETHERNET: Final = 1


class Section:
    """The blocks of a section, written anew from the specification."""

    def __init__(self, order: str = "<") -> None:
        self._order = order
        self.data = self.block(0x0A0D0D0A, self.pack("IHHq", 0x1A2B3C4D, 1, 0, -1))

    def pack(self, form: str, *values: int) -> bytes:
        return struct.pack(self._order + form, *values)

    def block(self, kind: int, body: bytes) -> bytes:
        body += bytes(-len(body) % 4)
        length = len(body) + 12
        return self.pack("II", kind, length) + body + self.pack("I", length)

    def interface(self, link: int = _SOCKETCAN, *options: tuple[int, bytes]) -> Section:
        body = self.pack("HHI", link, 0, 0)
        for code, value in options:
            body += self.pack("HH", code, len(value)) + value + bytes(-len(value) % 4)
        self.data += self.block(1, body)
        return self

    def packet(
        self, units: int, content: bytes, interface: int = 0, options: bytes = b""
    ) -> Section:
        size = len(content)
        head = self.pack("IIIII", interface, units >> 32, units & 0xFFFFFFFF, size, size)
        self.data += self.block(6, head + content + bytes(-size % 4) + options)
        return self

    def other(self, kind: int, body: bytes = b"") -> Section:
        self.data += self.block(kind, body)
        return self


#: 123#01, as link type SocketCAN has it: the identifier is big-endian in every file.
FRAME: Final = bytes.fromhex("00000123 01 00 00 00 01")


def read(path: Path, data: bytes) -> tuple[list[Record], str, str | None]:
    path.write_bytes(data)
    with open_reader(path) as reader:
        return list(reader), str(reader.skipped), reader.end


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "drive.pcapng"


@pytest.mark.parametrize("order", ["<", ">"])
def test_both_byte_orders(path: Path, order: str) -> None:
    section = Section(order)
    section.interface(_SOCKETCAN, (2, b"vcan0\0"), (9, b"\x09"))
    section.packet(BASE_NS, FRAME, options=section.pack("HHIHH", 2, 4, 2, 0, 0))
    (record,), skipped, end = read(path, section.data)
    assert (record.channel, record.sent) == ("vcan0", True)
    assert (record.frame.timestamp_ns, record.frame.arbitration_id) == (BASE_NS, 0x123)
    assert record.frame.data == b"\x01"
    assert (skipped, end) == ("skipped ", None)


@pytest.mark.parametrize(
    ("options", "units", "expected_ns"),
    [
        ((), 1_500_000, 1_500_000_000),  # microseconds, where nothing is said
        (((9, b"\x03"),), 1500, 1_500_000_000),
        (((9, b"\x0c"),), 1_500_000_000_999, 1_500_000_000),  # picoseconds
        (((9, b"\x8a"),), 1536, 1_500_000_000),  # 2^-10 s
        (((9, b"\x00"), (14, struct.pack("<q", 60))), 2, 62_000_000_000),
        (((14, struct.pack("<q", -1)),), 3_000_000, 2_000_000_000),
    ],
)
def test_clocks_of_interfaces(
    path: Path, options: tuple[tuple[int, bytes], ...], units: int, expected_ns: int
) -> None:
    data = Section().interface(_SOCKETCAN, *options).packet(units, FRAME).data
    (record,), _, _ = read(path, data)
    assert record.frame.timestamp_ns == expected_ns
    assert record.channel == "0"  # an interface without a name has a number


def test_sections_follow_each_other_with_interfaces_of_their_own(path: Path) -> None:
    first = Section("<").interface(_SOCKETCAN, (2, b"a")).packet(1, FRAME)
    second = Section(">").interface(_SOCKETCAN, (2, b"b")).packet(2, FRAME)
    records, _, _ = read(path, first.data + second.data)
    assert [record.channel for record in records] == ["a", "b"]


def test_what_is_not_can_is_counted_and_what_is_no_packet_passed_over(path: Path) -> None:
    section = Section().interface().interface(_ETHERNET)
    section.packet(1, bytes(60), interface=1)
    section.other(4, b"names").other(5, bytes(12)).other(0xBAD, b"custom")
    section.other(3, struct.pack("<I", 9) + FRAME)
    xl = bytes.fromhex("00000123 80 00 00 00") + bytes(8)
    section.packet(2, xl).packet(3, FRAME)
    records, skipped, end = read(path, section.data)
    assert len(records) == 1
    assert "1 packets of other link types" in skipped
    assert "1 packets without a time" in skipped
    assert "1 CAN XL frames" in skipped
    assert end is None


def test_an_old_fd_frame_without_a_mark_is_known_by_its_size(path: Path) -> None:
    """Linux before 5.14 did not set CANFD_FDF."""
    old = bytes.fromhex("00000123 02 00 00 00") + bytes(64)
    (record,), _, _ = read(path, Section().interface().packet(1, old).data)
    assert record.frame.flags == FD
    assert record.frame.data == bytes(2)


@pytest.mark.parametrize(
    ("content", "interface"),
    [
        (FRAME, 7),  # no such interface
        (FRAME[:6], 0),  # less than a header
        (FRAME[:8], 0),  # no data
        (bytes.fromhex("00000123 09 00 00 00") + bytes(9), 0),  # no length of FD: 9
    ],
)
def test_damaged_packets_are_counted_with_their_place(
    path: Path, content: bytes, interface: int
) -> None:
    section = Section().interface()
    place = len(section.data)
    section.packet(1, content, interface).packet(2, FRAME)
    records, skipped, _ = read(path, section.data)
    assert [record.frame.timestamp_ns for record in records] == [2000]
    assert f"1 damaged packets (byte {place}" in skipped


@pytest.mark.parametrize("length", [0, 8, 13, 1 << 30])
def test_behind_an_impossible_length_nothing_is_read(path: Path, length: int) -> None:
    good = Section().interface().packet(1, FRAME).data
    records, _, end = read(path, good + struct.pack("<II", 6, length) + bytes(64))
    assert len(records) == 1
    assert end == f"cut off or damaged at byte {len(good)}: a block cannot have {length} bytes"


@pytest.mark.parametrize("data", [b"", b"\x0a", bytes(64), b"\x0a\x0d\x0d\x0a" + bytes(60)])
def test_a_file_that_is_not_pcapng_is_refused(path: Path, data: bytes) -> None:
    with pytest.raises(CanInitializationError, match=str(path)):
        read(path, data)


def test_metadata_is_a_comment(path: Path) -> None:
    with open_writer(path, metadata={"lost": "3"}) as writer:
        writer.write(examples())
    assert b"lost: 3" in path.read_bytes()


@given(data=st.binary(max_size=200), place=st.integers(0, 400), size=st.integers(0, 40))
def test_damage_anywhere_gives_valid_frames_or_an_error_that_names_the_file(
    data: bytes, place: int, size: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.pcapng"
    with open_writer(path) as writer:
        writer.write(examples())
    whole = path.read_bytes()
    fault = str(path)
    try:
        records, _, _ = read(path, whole[:place] + data + whole[place + size :])
        assert all(record.frame.timestamp_ns >= 0 for record in records)
    except CanInitializationError as error:
        fault = str(error)
    assert str(path) in fault
