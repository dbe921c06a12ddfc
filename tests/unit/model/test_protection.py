"""Counters and checksums, against published values and the independent ``autosar-e2e``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

import msgspec
import pytest
from e2e.crc import calculate_crc8_h2f
from e2e.p01 import (
    E2E_P01_DATAID_ALT,
    E2E_P01_DATAID_BOTH,
    E2E_P01_DATAID_LOW,
    E2E_P01_DATAID_NIBBLE,
    e2e_p01_protect,
)
from e2e.p02 import e2e_p02_protect
from e2e.p05 import e2e_p05_protect
from e2e.p11 import E2E_P11_DATAID_BOTH, E2E_P11_DATAID_NIBBLE, e2e_p11_protect
from hypothesis import given
from hypothesis import strategies as st

from canbroker.model.protection import (
    E2E,
    Checksum,
    Counter,
    Crc8,
    DataIdMode,
    Profile,
    protection,
)

DIGITS = b"123456789"  # what catalogues of CRCs give check values for

PAYLOADS = st.binary(min_size=3, max_size=64)
COUNTS = st.integers(min_value=0, max_value=10**12)
LISTS = st.binary(min_size=16, max_size=16)

ORACLE_MODES: dict[tuple[Profile, DataIdMode], int] = {
    ("P01", "both"): E2E_P01_DATAID_BOTH,
    ("P01", "alternating"): E2E_P01_DATAID_ALT,
    ("P01", "low"): E2E_P01_DATAID_LOW,
    ("P01", "nibble"): E2E_P01_DATAID_NIBBLE,
    ("P11", "both"): E2E_P11_DATAID_BOTH,
    ("P11", "nibble"): E2E_P11_DATAID_NIBBLE,
}


def protected(
    data: bytes,
    count: int,
    counter: Counter | None = None,
    checksum: Checksum | None = None,
) -> bytes:
    return protection(counter, checksum, len(data)).apply(data, count)


def offset_within(data: st.DataObject, payload: bytes, header: int) -> int:
    return data.draw(st.integers(min_value=0, max_value=len(payload) - header), label="offset")


def with_nibble(data: bytes, byte: int, nibble: int) -> bytearray:
    changed = bytearray(data)
    changed[byte] = changed[byte] & 0xF0 | nibble
    return changed


class TestCounter:
    def test_it_counts_and_wraps(self) -> None:
        protect = protection(Counter(2), None, 3)
        values = [protect.apply(b"\xaa\xbb\xcc", count)[2] for count in range(258)]
        assert values == [*range(256), 0, 1]

    def test_it_wraps_from_last_to_first(self) -> None:
        protect = protection(Counter(0, bits=4, first=1, last=14), None, 1)
        values = [protect.apply(b"\0", count)[0] for count in range(16)]
        assert values == [*range(1, 15), 1, 2]

    @given(
        payload=PAYLOADS,
        count=COUNTS,
        byte=st.integers(0, 2),
        field=st.sampled_from([(n, shift) for n in range(1, 9) for shift in range(9 - n)]),
    )
    def test_it_changes_its_own_bits_only(
        self, payload: bytes, count: int, byte: int, field: tuple[int, int]
    ) -> None:
        bits, shift = field
        result = protected(payload, count, Counter(byte, bits, shift))
        mask = (2**bits - 1) << shift
        assert (result[byte] & mask) >> shift == count % 2**bits
        assert result[byte] & ~mask == payload[byte] & ~mask
        assert result[:byte] + result[byte + 1 :] == payload[:byte] + payload[byte + 1 :]


class TestCrc8:
    @pytest.mark.parametrize(
        ("crc", "check"),
        [
            pytest.param(Crc8(9), 0x4B, id="SAE-J1850"),
            pytest.param(Crc8(9, polynomial=0x2F), 0xDF, id="AUTOSAR"),
            pytest.param(Crc8(9, polynomial=0x07, init=0, xor=0), 0xF4, id="SMBUS"),
            pytest.param(Crc8(9, polynomial=0x07, init=0, xor=0x55), 0xA1, id="I-432-1"),
            pytest.param(Crc8(9, init=0xFD, xor=0), 0x7E, id="I-CODE"),
            pytest.param(Crc8(9, init=0, xor=0), 0x37, id="GSM-A"),
            pytest.param(Crc8(9, polynomial=0x31, init=0xFF, xor=0), 0xF7, id="NRSC-5"),
        ],
    )
    def test_published_check_values(self, crc: Crc8, check: int) -> None:
        assert protected(DIGITS + b"\0", 0, None, crc) == DIGITS + bytes([check])

    @given(payload=PAYLOADS, byte=st.integers(0, 2))
    def test_its_own_byte_is_not_covered(self, payload: bytes, byte: int) -> None:
        others = payload[:byte] + payload[byte + 1 :]
        expected = protected(others + b"\0", 0, None, Crc8(len(others)))[-1]
        assert protected(payload, 0, None, Crc8(byte))[byte] == expected

    def test_it_covers_the_bytes_that_are_named_in_their_order(self) -> None:
        scrambled = b"\xee" + bytes(reversed(DIGITS)) + b"\xee"
        crc = Crc8(0, bytes=range(9, 0, -1))
        assert protected(scrambled, 0, None, crc) == b"\x4b" + scrambled[1:]

    def test_it_covers_the_counter(self) -> None:
        protect = protection(Counter(8, bits=4), Crc8(9), 10)
        data = b"12345678" + b"\x30\0"  # the ninth digit is the tenth count
        assert protect.apply(data, 9) == DIGITS + b"\x4b"
        assert protect.apply(data, 25) == DIGITS + b"\x4b"
        assert protect.apply(data, 10)[9] != 0x4B

    def test_longer_data_are_covered_to_their_end(self) -> None:
        protect = protection(None, Crc8(0), 3)
        assert protect.apply(b"\0" + DIGITS, 0) == b"\x4b" + DIGITS


class TestProfiles:
    @pytest.mark.parametrize("mode", get_args(DataIdMode))
    @given(payload=PAYLOADS, count=COUNTS, identifier=st.integers(0, 0xFFFF), data=st.data())
    def test_p01(
        self, mode: DataIdMode, payload: bytes, count: int, identifier: int, data: st.DataObject
    ) -> None:
        self.compare("P01", e2e_p01_protect, mode, payload, count, identifier, data)

    @pytest.mark.parametrize("mode", ["both", "nibble"])
    @given(payload=PAYLOADS, count=COUNTS, identifier=st.integers(0, 0xFFFF), data=st.data())
    def test_p11(
        self, mode: DataIdMode, payload: bytes, count: int, identifier: int, data: st.DataObject
    ) -> None:
        self.compare("P11", e2e_p11_protect, mode, payload, count, identifier, data)

    def compare(
        self,
        profile: Profile,
        oracle: Callable[..., None],
        mode: DataIdMode,
        payload: bytes,
        count: int,
        identifier: int,
        data: st.DataObject,
    ) -> None:
        identifier &= 0xFFF if mode == "nibble" else 0xFFFF
        offset = offset_within(data, payload, 2)
        expected = with_nibble(payload, offset + 1, count % 15)
        oracle(
            expected,
            identifier,
            data_id_mode=ORACLE_MODES[profile, mode],
            offset=offset,
            increment_counter=False,
        )
        e2e = E2E(profile, identifier, mode, offset)
        assert protected(payload, count, None, e2e) == expected

    @given(payload=PAYLOADS, count=COUNTS, identifiers=LISTS)
    def test_p02(self, payload: bytes, count: int, identifiers: bytes) -> None:
        expected = with_nibble(payload, 1, count % 16)
        e2e_p02_protect(expected, identifiers, increment_counter=False)
        assert protected(payload, count, None, E2E("P02", identifiers)) == expected

    @given(payload=PAYLOADS, count=COUNTS, identifiers=LISTS)
    def test_p22_without_offset_is_p02(
        self, payload: bytes, count: int, identifiers: bytes
    ) -> None:
        expected = with_nibble(payload, 1, count % 16)
        e2e_p02_protect(expected, identifiers, increment_counter=False)
        assert protected(payload, count, None, E2E("P22", identifiers)) == expected

    @pytest.mark.parametrize("profile", ["P02", "P22"])
    @given(payload=PAYLOADS, count=COUNTS, identifiers=LISTS, data=st.data())
    def test_p02_and_p22_at_an_offset(
        self, profile: Profile, payload: bytes, count: int, identifiers: bytes, data: st.DataObject
    ) -> None:
        offset = offset_within(data, payload, 2)
        expected = with_nibble(payload, offset + 1, count % 16)
        covered = expected[:offset] + expected[offset + 1 :] + bytes([identifiers[count % 16]])
        expected[offset] = calculate_crc8_h2f(bytes(covered))
        e2e = E2E(profile, identifiers, offset=offset)
        assert protected(payload, count, None, e2e) == expected

    @given(payload=PAYLOADS, count=COUNTS, identifier=st.integers(0, 0xFFFF), data=st.data())
    def test_p05(self, payload: bytes, count: int, identifier: int, data: st.DataObject) -> None:
        offset = offset_within(data, payload, 3)
        expected = bytearray(payload)
        expected[offset + 2] = count % 256
        e2e_p05_protect(expected, identifier, offset=offset, increment_counter=False)
        assert protected(payload, count, None, E2E("P05", identifier, offset=offset)) == expected

    def test_published_check_values(self) -> None:
        """The digits, spread over data id, counter and data."""
        p01 = E2E("P01", 0x3231)
        assert protected(b"\0" + b"0456789", 3, None, p01) == b"\x37" + b"3456789"
        p05 = E2E("P05", 0x3938)
        assert protected(b"\0\0" + b"?234567", 0x31, None, p05) == b"\xb1\x29" + b"1234567"
        p02 = E2E("P02", b"?9" + b"?" * 14)
        assert protected(b"\0" + b"02345678", 1, None, p02) == b"\xdf" + b"12345678"

    @pytest.mark.parametrize(
        ("e2e", "length", "count", "header"),
        [
            (E2E("P11", 0x123), 8, 0, "cc00"),
            (E2E("P11", 0x123), 8, 1, "9101"),
            (E2E("P11", 0x123, "nibble"), 8, 0, "2a10"),
            (E2E("P11", 0x123, "nibble"), 8, 1, "7711"),
            (E2E("P11", 0x123, "nibble", offset=8), 16, 0, "7d10"),
            (E2E("P05", 0x1234), 8, 0, "1cca00"),
            (E2E("P22", range(1, 17)), 8, 1, "1b01"),
            (E2E("P22", range(1, 17)), 8, 2, "9802"),
            (E2E("P22", range(1, 17)), 8, 15, "cd0f"),
            (E2E("P22", range(1, 17)), 8, 16, "0e00"),
            (E2E("P22", range(1, 17), offset=8), 16, 1, "1401"),
        ],
    )
    def test_examples_of_the_standard(self, e2e: E2E, length: int, count: int, header: str) -> None:
        """Data of zeros (AUTOSAR FO E2E Protocol Specification, protocol examples)."""
        expected = (bytes(e2e.offset) + bytes.fromhex(header)).ljust(length, b"\0")
        assert protected(bytes(length), count, None, e2e) == expected


def test_nothing_asked_for_changes_nothing() -> None:
    assert protected(b"", 7) == b""
    assert protected(DIGITS, 7) == DIGITS


class TestRefused:
    """Each case breaks one rule; its words say which."""

    @pytest.mark.parametrize(
        ("make", "words"),
        [
            (lambda: Counter(-1), "byte of the counter is -1, .* 0 to 63"),
            (lambda: Counter(64), "byte of the counter is 64"),
            (lambda: Counter(True), "byte of the counter is True"),
            (lambda: Counter("7"), "byte of the counter is '7'"),  # type: ignore[arg-type]
            (lambda: Counter(0, bits=0), "bits of the counter is 0, .* 1 to 8"),
            (lambda: Counter(0, bits=9), "bits of the counter is 9"),
            (lambda: Counter(0, shift=8), "shift of the counter is 8, .* 0 to 7"),
            (lambda: Counter(0, bits=4, shift=5), "4 bits from bit 5 on leaves its byte"),
            (lambda: Counter(0, bits=4, first=16), "first of the counter is 16, .* 0 to 15"),
            (lambda: Counter(0, bits=4, last=16), "last of the counter is 16, .* 0 to 15"),
            (lambda: Counter(0, first=3, last=2), "last of the counter is 2, .* 3 to 255"),
            (lambda: Crc8(64), "byte of the checksum is 64"),
            (lambda: Crc8(0, polynomial=0), "polynomial is 0, .* 1 to 255"),
            (lambda: Crc8(0, polynomial=0x11D), "polynomial is 285"),
            (lambda: Crc8(0, init=256), "init is 256"),
            (lambda: Crc8(0, xor=-1), "xor is -1"),
            (lambda: Crc8(0, xor=False), "xor is False"),
            (lambda: Crc8(0, bytes=[]), "bytes lists 0"),
            (lambda: Crc8(0, bytes=[1] * 65), "bytes lists 65 of the 64"),
            (lambda: Crc8(0, bytes=[1, 64]), "a number in bytes is 64"),
            (lambda: Crc8(0, bytes=[1, True]), "a number in bytes is True"),
            (lambda: Crc8(0, bytes=5), "bytes is 5, .* a list"),  # type: ignore[arg-type]
            (lambda: Crc8(0, bytes=[1, 0]), "in byte 0 cannot cover itself"),
            (lambda: E2E("P04", 1), "'P04', .* P01, P02, P05, P11, P22"),  # type: ignore[arg-type]
            (lambda: E2E([], 1), "profile is"),  # type: ignore[arg-type]
            (lambda: E2E("P11", 1, "low"), "'low', but P11 knows: both, nibble"),
            (lambda: E2E("P05", 1, "nibble"), "'nibble', but P05 knows: both"),
            (lambda: E2E("P01", 0x10000), "data_id is 65536, .* 0 to 65535"),
            (lambda: E2E("P01", 0x1000, "nibble"), "data_id is 4096, .* 0 to 4095"),
            (lambda: E2E("P05", True), "data_id is True"),
            (lambda: E2E("P01", range(16)), "data_id is range"),
            (lambda: E2E("P02", 1), "data_id is 1, .* a list"),
            (lambda: E2E("P22", range(15)), "data_id of P22 has 15 bytes, not 16"),
            (lambda: E2E("P02", range(250, 266)), "a number in data_id is 256"),
            (lambda: E2E("P01", 1, offset=-1), "offset is -1"),
        ],
    )
    def test_values(self, make: Callable[[], object], words: str) -> None:
        with pytest.raises(ValueError, match=words):
            make()

    @pytest.mark.parametrize(
        ("counter", "checksum", "length", "words"),
        [
            (Counter(8), None, 8, "the counter needs byte 8: data of 8 bytes end before"),
            (None, Crc8(8), 8, "the checksum needs byte 8"),
            (None, Crc8(0, bytes=[3, 8, 1]), 8, "what the checksum covers needs byte 8"),
            (Counter(1, bits=4), Crc8(1), 8, "counter and checksum are both in byte 1"),
            (Counter(5), E2E("P01", 1), 8, "P01 has a counter of its own"),
            (None, E2E("P01", 1), 1, "the header of P01 needs byte 1"),
            (None, E2E("P02", range(16), offset=7), 8, "the header of P02 needs byte 8"),
            (None, E2E("P05", 1, offset=6), 8, "the header of P05 needs byte 8"),
            (None, Crc8(0), 0, "the checksum needs byte 0: data of 0 bytes"),
        ],
    )
    def test_what_does_not_fit(
        self, counter: Counter | None, checksum: Checksum | None, length: int, words: str
    ) -> None:
        with pytest.raises(ValueError, match=words):
            protection(counter, checksum, length)

    @pytest.mark.parametrize(
        ("counter", "checksum", "length"),
        [
            (Counter(7), Crc8(6, bytes=[0, 7]), 8),
            (None, E2E("P22", range(16), offset=6), 8),
            (None, E2E("P05", 1, offset=5), 8),
            (Counter(0, bits=5, shift=3), None, 1),
        ],
    )
    def test_what_just_fits(
        self, counter: Counter | None, checksum: Checksum | None, length: int
    ) -> None:
        assert len(protection(counter, checksum, length).apply(bytes(length), 1)) == length


class Request(msgspec.Struct):
    """As the scheduler is sent them."""

    counter: Counter | None = None
    checksum: Checksum | None = None


def decoded(request: object) -> Request:
    return msgspec.msgpack.decode(msgspec.msgpack.encode(request), type=Request)


class TestWire:
    @pytest.mark.parametrize(
        "request_",
        [
            Request(),
            Request(Counter(7, 4, 2, 1, 14), Crc8(0, 0x2F, 1, 2, range(3, 0, -1))),
            Request(None, E2E("P01", 0x123, "nibble", 3)),
            Request(None, E2E("P02", bytes(range(16)))),
        ],
    )
    def test_round_trip(self, request_: Request) -> None:
        assert decoded(request_) == request_

    @pytest.mark.parametrize(
        ("request_", "words"),
        [
            ({"counter": {"byte": 64}}, "byte of the counter is 64"),
            ({"counter": {"byte": 0, "step": 2}}, "step"),
            ({"checksum": {"kind": "crc8", "byte": 0, "bytes": [0]}}, "cannot cover itself"),
            ({"checksum": {"kind": "crc8", "byte": 0, "reflect": True}}, "reflect"),
            ({"checksum": {"kind": "e2e", "profile": "P01", "data_id": [1]}}, "data_id is"),
            ({"checksum": {"kind": "e2e", "profile": "P02", "data_id": [1]}}, "1 bytes, not 16"),
            ({"checksum": {"kind": "sum", "byte": 0}}, "'sum'"),
        ],
    )
    def test_wrong_values_are_refused(self, request_: dict[str, Any], words: str) -> None:
        with pytest.raises(msgspec.ValidationError, match=words):
            decoded(request_)
