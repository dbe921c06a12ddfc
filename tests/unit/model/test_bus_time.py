"""The time that a frame takes on the bus, and which of two frames wins it."""

from __future__ import annotations

from can.util import len2dlc
from hypothesis import given
from hypothesis import strategies as st

from canbroker.model.bus_time import _crc15, arbitration_key, bit_counts, bus_time_ns
from canbroker.model.frame import (
    BITRATE_SWITCH,
    ERROR_STATE_INDICATOR,
    EXTENDED,
    FD,
    FD_LENGTHS,
    HARDWARE_TIMESTAMP,
    LOOPBACK,
    REMOTE,
    Frame,
)

standard_ids = st.one_of(st.integers(0, 0x7FF), st.sampled_from([0, 0x7FF, 0x555]))
extended_ids = st.one_of(st.integers(0, 0x1FFFFFFF), st.sampled_from([0, 0x7FF << 18, 0x1FFFFFFF]))
# Runs of equal bits are what stuffing is about.
runs = st.lists(st.sampled_from([b"\0", b"\xff", b"\x0f", b"\x83"]), max_size=8).map(b"".join)


@st.composite
def identified(draw: st.DrawFn) -> tuple[int, int]:
    """Identifier and flags of its format."""
    if draw(st.booleans()):
        return draw(extended_ids), EXTENDED
    return draw(standard_ids), 0


def stuffed(bits: str) -> str:
    """The bits with their stuff bits, naively: what a controller puts on the wire."""
    sent = ""
    for bit in bits:
        if sent[-5:] in ("00000", "11111"):
            sent += "1" if sent[-1] == "0" else "0"
        sent += bit
    return sent


# ------------------------------------------------------------------------------------ bit counts


def test_crc_15_of_the_standard_check_string() -> None:
    bits = "".join(f"{byte:08b}" for byte in b"123456789")
    assert _crc15(bits) == 0x059E  # catalogue of parametrised CRCs: CRC-15/CAN
    assert _crc15("") == 0


def test_a_frame_of_zeros_counted_by_hand() -> None:
    # SOF to CRC are 34 zeros (the CRC of zeros is zero): a stuff bit after each five, 6 of them;
    # then CRC delimiter, two bits of acknowledge, seven of end of frame, three of intermission.
    assert bit_counts(0x000, 0, b"") == (34 + 6 + 1 + 2 + 7 + 3, 0)


@given(identified(), st.binary(max_size=8) | runs)
def test_a_classic_frame_is_its_stuffed_bits_and_the_tail(
    identity: tuple[int, int], data: bytes
) -> None:
    arbitration_id, flags = identity
    payload = "".join(f"{byte:08b}" for byte in data)
    if flags:
        identifier = f"{arbitration_id:029b}"
        bits = f"0{identifier[:11]}11{identifier[11:]}000{len(data):04b}{payload}"
    else:
        bits = f"0{arbitration_id:011b}000{len(data):04b}{payload}"
    bits += f"{_crc15(bits):015b}"
    # One more bit behind shows whether the CRC ends in a run that is stuffed too.
    expected = len(stuffed(bits + "1")) - 1 + 1 + 2 + 7 + 3
    assert bit_counts(arbitration_id, flags, data) == (expected, 0)


@given(identified(), st.integers(0, 8))
def test_a_remote_frame_carries_its_length_and_no_data(
    identity: tuple[int, int], length: int
) -> None:
    arbitration_id, flags = identity
    slow, fast = bit_counts(arbitration_id, flags | REMOTE, length)
    least = 67 if flags else 47
    assert fast == 0
    assert least <= slow <= least + (53 if flags else 33) // 4


@given(identified(), st.binary(max_size=8))
def test_classic_frames_stay_within_the_known_bounds(
    identity: tuple[int, int], data: bytes
) -> None:
    arbitration_id, flags = identity
    slow, _ = bit_counts(arbitration_id, flags, data)
    stuffable = (54 if flags else 34) + 8 * len(data)
    assert stuffable + 13 <= slow <= stuffable + 13 + (stuffable - 1) // 4


@given(
    identified(),
    st.sampled_from(FD_LENGTHS),
    st.sampled_from([b"\0", b"\xff", b"\xaa", b"\x83", b"\x78\xf0"]),
    st.booleans(),
    st.booleans(),
)
def test_an_fd_frame_is_its_fields(
    identity: tuple[int, int], length: int, pattern: bytes, switch: bool, indicator: bool
) -> None:
    arbitration_id, flags = identity
    data = (pattern * 64)[:length]
    flags |= FD | (BITRATE_SWITCH if switch else 0) | (ERROR_STATE_INDICATOR if indicator else 0)
    payload = "".join(f"{byte:08b}" for byte in data)
    if flags & EXTENDED:
        identifier = f"{arbitration_id:029b}"
        head = f"0{identifier[:11]}11{identifier[11:]}010{switch:d}"
    else:
        head = f"0{arbitration_id:011b}0010{switch:d}"
    body = f"{indicator:d}{len2dlc(length):04b}{payload}"
    # Stuff count and CRC with their fixed stuff bits, the first of which stands in for a stuff
    # bit that the data's last bits would ask for; then the CRC delimiter.
    counts_and_crc = 4 + 21 + 7 if length > 16 else 4 + 17 + 6
    total = len(stuffed(head + body)) + counts_and_crc + 1 + 2 + 7 + 3
    slow, fast = bit_counts(arbitration_id, flags, data)
    assert slow + fast == total
    assert slow == (len(stuffed(head)) + 12 if switch else total)


def test_bus_time_adds_both_rates_and_ignores_marks() -> None:
    assert bus_time_ns(Frame(0, 0, 0, b""), 500_000) == 53 * 2000
    marked = Frame(0, 0, LOOPBACK | HARDWARE_TIMESTAMP, b"")
    assert bus_time_ns(marked, 500_000) == 53 * 2000
    frame = Frame(0, 0x123, FD | BITRATE_SWITCH, bytes(64))
    slow, fast = bit_counts(frame.arbitration_id, frame.flags, bytes(64))
    assert bus_time_ns(frame, 500_000, 2_000_000) == slow * 2000 + fast * 500
    assert bus_time_ns(frame, 500_000) == (slow + fast) * 2000


# ----------------------------------------------------------------------------------- arbitration


def arbitration_bits(arbitration_id: int, flags: int) -> str:
    """What the frame puts on the bus while others may still win."""
    remote = "1" if flags & REMOTE else "0"
    if flags & EXTENDED:
        identifier = f"{arbitration_id:029b}"
        return f"{identifier[:11]}11{identifier[11:]}{remote}"
    return f"{arbitration_id:011b}{remote}0"


@given(
    identified(),
    identified(),
    st.sampled_from([0, REMOTE]),
    st.sampled_from([0, REMOTE]),
    st.booleans(),
)
def test_the_lower_key_wins_like_the_first_dominant_bit(
    one: tuple[int, int], other: tuple[int, int], remote: int, other_remote: int, meet: bool
) -> None:
    arbitration_id, flags = one[0], one[1] | remote
    other_id, other_flags = other[0], other[1] | other_remote
    if meet:  # the same eleven bits first
        base = arbitration_id >> 18 if flags & EXTENDED else arbitration_id
        other_id = base << 18 | other_id & 0x3FFFF if other_flags & EXTENDED else base
    key = arbitration_key(arbitration_id, flags)
    other_key = arbitration_key(other_id, other_flags)
    bits = arbitration_bits(arbitration_id, flags)
    other_bits = arbitration_bits(other_id, other_flags)
    assert (key < other_key) == (bits < other_bits)
    assert (key == other_key) == (bits == other_bits)
