"""Lines of serial adapters: golden ones, round trips, and garbage."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canbroker.backends.slcan.codec import (
    MAX_LINE,
    LineBuffer,
    LineError,
    decode,
    decode_candapter,
    encode,
    encode_candapter,
    is_ambiguous,
)
from canbroker.model.frame import BITRATE_SWITCH, ERROR, EXTENDED, FD, FD_LENGTHS, REMOTE, Frame

GOLDEN = [
    (b"t1230", Frame(0, 0x123, 0, b"")),
    (b"t7FF2AABB", Frame(0, 0x7FF, 0, b"\xaa\xbb")),
    (b"t00080011223344556677", Frame(0, 0, 0, bytes.fromhex("0011223344556677"))),
    (b"T1FFFFFFF1FF", Frame(0, 0x1FFFFFFF, EXTENDED, b"\xff")),
    (b"T000001230", Frame(0, 0x123, EXTENDED, b"")),
    (b"r1238", Frame(0, 0x123, REMOTE, 8)),
    (b"R18DAF1100", Frame(0, 0x18DAF110, REMOTE | EXTENDED, 0)),
    (b"d1239" + b"11" * 12, Frame(0, 0x123, FD, b"\x11" * 12)),
    (b"D00000123F" + b"AB" * 64, Frame(0, 0x123, FD | EXTENDED, b"\xab" * 64)),
    (b"b1231FF", Frame(0, 0x123, FD | BITRATE_SWITCH, b"\xff")),
    (b"B18DAF110A" + b"00" * 16, Frame(0, 0x18DAF110, FD | BITRATE_SWITCH | EXTENDED, bytes(16))),
]


@st.composite
def frames(draw: st.DrawFn) -> Frame:
    extended = draw(st.sampled_from([0, EXTENDED]))
    arbitration_id = draw(st.integers(0, 0x1FFFFFFF if extended else 0x7FF))
    kind = draw(st.sampled_from([0, REMOTE, FD, FD | BITRATE_SWITCH]))
    if kind == REMOTE:
        return Frame(0, arbitration_id, extended | kind, draw(st.integers(0, 8)))
    size = draw(st.sampled_from(FD_LENGTHS if kind & FD else FD_LENGTHS[:9]))
    data = draw(st.binary(min_size=size, max_size=size))
    return Frame(0, arbitration_id, extended | kind, data)


@pytest.mark.parametrize(("line", "frame"), GOLDEN, ids=[line[:12].decode() for line, _ in GOLDEN])
def test_golden_lines(line: bytes, frame: Frame) -> None:
    assert encode(frame) == line + b"\r"
    assert decode(line) == (frame, None)
    assert decode(line + b"EA5F") == (frame, 59_999)
    assert encode(frame, adapter_ms=59_999) == line + b"EA5F\r"


def test_hexadecimal_digits_in_either_case() -> None:
    assert decode(b"t1ab1cd").frame == Frame(0, 0x1AB, 0, b"\xcd")


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        (b"q1230", "malformed"),
        (b"x1230", "truncated"),
        (b"t8000", "malformed"),  # 11 bits
        (b"T200000000", "malformed"),  # 29 bits
        (b"t1239" + b"00" * 9, "malformed"),  # a classic frame has 8 bytes at most
        (b"t1_20", "malformed"),
        (b"t+120", "malformed"),
        (b"t 120", "malformed"),
        (b"t1231GG", "malformed"),
        (b"t1231AABB", "malformed"),  # half a timestamp
        (b"t1231AA0000FF", "malformed"),
        (b" t1230", "malformed"),
        (b"t1230\n", "malformed"),
        (b"t12", "truncated"),
        (b"t1232AA", "truncated"),
        (b"t1232AAB", "truncated"),
        (b"t1", "truncated"),
        (b"T1234567", "truncated"),
        (b"d123F" + b"00" * 63, "truncated"),
        (b"t1231\xff0", "non_ascii"),
        (b"t123" + b"0" * MAX_LINE, "overlong"),
    ],
)
def test_what_is_no_frame_says_why(line: bytes, kind: str) -> None:
    with pytest.raises(LineError) as caught:
        decode(line)
    assert caught.value.kind == kind
    assert len(str(caught.value)) < 200


def test_an_error_frame_has_no_line() -> None:
    with pytest.raises(ValueError, match="error frame"):
        encode(Frame(0, 4, ERROR, bytes(8)))


@given(frames(), st.none() | st.integers(0, 59_999))
def test_round_trip(frame: Frame, adapter_ms: int | None) -> None:
    line = encode(frame, adapter_ms)
    assert line.endswith(b"\r")
    assert decode(line[:-1]) == (frame, adapter_ms)


@given(st.binary(max_size=300))
def test_garbage_is_a_frame_or_a_line_error(line: bytes) -> None:
    try:
        frame, adapter_ms = decode(line)
    except LineError:
        return
    again = encode(frame, adapter_ms)[:-1].lower()
    if frame.flags & REMOTE:  # whose bytes are not kept
        assert again[:5] == line[:5].lower()
    else:
        assert again == line.lower().replace(b"x", b"t")


@given(st.binary(max_size=600), frames(), st.lists(st.integers(0, 900), max_size=8))
def test_garbage_never_poisons_the_next_line(noise: bytes, frame: Frame, cuts: list[int]) -> None:
    stream = noise + b"\r" + encode(frame)
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    buffer = LineBuffer()
    lines = [line for start, end in pairwise(edges) for line in buffer.feed(stream[start:end])]
    assert lines == list(LineBuffer().feed(stream))
    last, terminator = lines[-1]
    assert terminator == b"\r"
    assert decode(last).frame == frame
    assert len(lines) >= sum(stream.count(mark) for mark in (b"\a", b"\x06"))


def test_each_terminator_ends_a_line() -> None:
    assert list(LineBuffer().feed(b"z\r\a\rt1230\r\x06text\nt12")) == [
        (b"z", b"\r"),
        (b"", b"\a"),
        (b"", b"\r"),
        (b"t1230", b"\r"),
        (b"", b"\x06"),
        (b"text", b"\n"),
    ]


DONE = (b"", b"\r")
FRAME = (b"t1230", b"\r")


@pytest.mark.parametrize("together", [True, False], ids=["in one read", "byte by byte"])
@pytest.mark.parametrize(
    ("stream", "lines"),
    [
        # CR: slcanuino and Lawicel; each empty line acknowledges.
        (b"t1230\rt1230\r\rt1230\r\r\r", [FRAME, FRAME, DONE, FRAME, DONE, DONE]),
        # CR LF
        (b"t1230\r\nt1230\r\n\r\nt1230\r\n\r\n", [FRAME, FRAME, DONE, FRAME, DONE]),
        # CR CR LF: esp32-slcan after its command l; it acknowledges by CR.
        (b"t1230\r\r\n\rt1230\r\r\nt1230\r\r\n\r\r", [FRAME, DONE, FRAME, FRAME, DONE, DONE]),
        (b"V1234\r\r\nt1230\r\r\n", [(b"V1234", b"\r"), FRAME]),
        # A line of text says nothing of frames, even if it begins like one.
        (b"BT Switch OFF\r\nt1230\r\r\n", [(b"BT Switch OFF", b"\r"), FRAME]),
    ],
)
def test_ends_of_lines(stream: bytes, lines: list[tuple[bytes, bytes]], together: bool) -> None:
    buffer = LineBuffer()
    pieces = [stream] if together else [stream[at : at + 1] for at in range(len(stream))]
    assert [line for piece in pieces for line in buffer.feed(piece)] == lines
    assert not buffer.held


def test_an_empty_line_that_may_be_part_of_an_end_is_held() -> None:
    buffer = LineBuffer()
    assert list(buffer.feed(b"t1230\r\r")) == [FRAME]
    assert buffer.held
    assert list(buffer.release()) == [DONE]
    assert list(buffer.release()) == []
    assert list(buffer.feed(b"t1230\rt1230\r\r")) == [FRAME, FRAME, DONE]
    assert not buffer.held, "a frame has shown how this adapter ends its lines"


def test_one_that_is_part_of_an_end_waits_for_as_long_as_it_takes() -> None:
    buffer = LineBuffer()
    assert list(buffer.feed(b"t1230\r\r\nt1230\r\r")) == [FRAME, FRAME]
    assert not buffer.held
    assert list(buffer.release()) == []
    assert list(buffer.feed(b"\n\r")) == [DONE]


@pytest.mark.parametrize(
    ("line", "dlc", "adapter_ms"),
    [
        (b"r1232A1B2", 2, 0xA1B2),  # or its data: see is_ambiguous
        (b"r1232A1B20003", 2, 3),
        (b"r12380000000000000000", 8, None),
        (b"r123800000000000000000004", 8, 4),
        (b"R12345678400000000", 4, None),
        (b"R123456784000000000005", 4, 5),
        (b"r12310003", 1, 3),
        (b"r1231AA", 1, None),
        (b"r12300003", 0, 3),
    ],
)
def test_remote_frames_with_as_many_bytes_as_they_ask_for(
    line: bytes, dlc: int, adapter_ms: int | None
) -> None:
    frame, stamp = decode(line)
    assert (frame.data, frame.flags & REMOTE, stamp) == (dlc, REMOTE, adapter_ms)
    assert is_ambiguous(frame) == (dlc == 2)


def test_a_candapter_has_other_letters() -> None:
    long, short = Frame(0, 0x12ABCDEF, EXTENDED, b"\xaa\x55"), Frame(0, 0x123, 0, b"\x01")
    assert encode_candapter(long) == b"x12ABCDEF2AA55\r"
    assert encode_candapter(short) == b"t123101\r"
    for line, frame in [(b"x12ABCDEF2AA55", long), (b"t123101", short), (b"T123101", short)]:
        assert decode_candapter(line) == (frame, None)
    assert decode(b"x12ABCDEF2AA55").frame == long
    with pytest.raises(ValueError, match="remote"):
        encode_candapter(Frame(0, 1, REMOTE, 0))


def test_an_unfinished_line_stays_bounded() -> None:
    buffer = LineBuffer()
    for _ in range(100):
        assert list(buffer.feed(b"x" * 1000)) == []
    ((line, terminator),) = buffer.feed(b"\r")
    assert (len(line), terminator) == (MAX_LINE + 1, b"\r")


def test_clear_forgets_the_unfinished_line() -> None:
    buffer = LineBuffer()
    assert list(buffer.feed(b"t12")) == []
    buffer.clear()
    assert list(buffer.feed(b"t1230\r")) == [(b"t1230", b"\r")]
