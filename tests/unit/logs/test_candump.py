"""The texts of can-utils. python-can's log reader and writer are the independent reference."""

from __future__ import annotations

import io
from typing import Any

import can
import pytest
from hypothesis import given
from hypothesis import strategies as st

from canbroker.cli.lines import LogLines
from canbroker.logs.candump import (
    LogEntry,
    format_frame,
    format_human,
    format_log_line,
    parse_dump_filters,
    parse_frame,
    parse_log_line,
)
from canbroker.logs.reader import LogReader
from canbroker.model.filters import EVERYTHING, FilterSet
from canbroker.model.frame import (
    BITRATE_SWITCH,
    ERROR,
    ERROR_STATE_INDICATOR,
    EXTENDED,
    FD,
    FD_LENGTHS,
    MAX_EXTENDED_ID,
    REMOTE,
    Frame,
    frame_fault,
)
from canbroker.model.message import Message, to_frame


@st.composite
def frames(draw: st.DrawFn) -> Frame:
    """Frames that the text can express, at whole microseconds."""
    kind = draw(st.sampled_from([0, REMOTE, ERROR, FD]))
    flags = 0 if kind == ERROR else draw(st.sampled_from([0, EXTENDED]))
    if kind == FD:
        kind |= draw(st.sampled_from([0, BITRATE_SWITCH])) | draw(
            st.sampled_from([0, ERROR_STATE_INDICATOR])
        )
    arbitration_id = draw(st.integers(0, 0x1FFFFFFF if flags else 0x7FF))
    length = draw(st.sampled_from(FD_LENGTHS if kind & FD else range(9)))
    data = length if kind == REMOTE else draw(st.binary(min_size=length, max_size=length))
    return Frame(draw(st.integers(0, 4 * 10**15)) * 1000, arbitration_id, flags | kind, data)


# ---------------------------------------------------------------------------------------- frames


@given(frames())
def test_a_frame_survives_its_text(frame: Frame) -> None:
    parsed = parse_frame(format_frame(frame))
    assert parsed == Frame(0, frame.arbitration_id, frame.flags, frame.data)


@pytest.mark.parametrize(
    ("text", "frame"),
    [
        ("123#DEADBEEF", Frame(0, 0x123, 0, b"\xde\xad\xbe\xef")),
        ("123#", Frame(0, 0x123, 0, b"")),
        ("5a1#11.2233.44556677.88", Frame(0, 0x5A1, 0, bytes.fromhex("1122334455667788"))),
        ("00000123#aa", Frame(0, 0x123, EXTENDED, b"\xaa")),
        ("1F334455#11", Frame(0, 0x1F334455, EXTENDED, b"\x11")),
        ("123#R", Frame(0, 0x123, REMOTE, 0)),
        ("123#r", Frame(0, 0x123, REMOTE, 0)),
        ("00000123#R5", Frame(0, 0x123, REMOTE | EXTENDED, 5)),
        ("123##0", Frame(0, 0x123, FD, b"")),
        ("123##1", Frame(0, 0x123, FD | BITRATE_SWITCH, b"")),
        ("213##311", Frame(0, 0x213, FD | BITRATE_SWITCH | ERROR_STATE_INDICATOR, b"\x11")),
        ("123##411", Frame(0, 0x123, FD, b"\x11")),  # the kernel's own mark on FD frames
        ("123##0" + "11" * 9, Frame(0, 0x123, FD, b"\x11" * 9 + bytes(3))),
        ("20000004#0001", Frame(0, 4, ERROR, b"\0\x01")),
        ("20001000#", Frame(0, 0x1000, ERROR | EXTENDED, b"")),
    ],
)
def test_frames_as_cansend_takes_them(text: str, frame: Frame) -> None:
    assert parse_frame(text) == frame


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "expected ID#DATA"),
        ("123", "expected ID#DATA"),
        ("12#11", "expected ID#DATA"),
        ("1234#11", "expected ID#DATA"),
        ("xyz#11", "expected ID#DATA"),
        ("123#1", "bytes of two digits"),
        ("123#1.1", "bytes of two digits"),
        ("123#..", "bytes of two digits"),
        ("123#112233445566778899", "9 bytes do not fit"),
        ("123##", "one digit of flags"),
        ("123##x11", "one digit of flags"),
        ("123##0" + "11" * 65, "not a CAN FD length"),
        ("123#R9", "length must be 0 to 8"),
        ("123#1122334455667788_9", "length codes above 8"),
        ("800#11", "does not fit 11 bits"),
        ("80000123#11", "80000123 does not fit 29 bits"),
        ("20000004#R", "neither an FD nor an error frame"),
    ],
)
def test_a_bad_frame_is_named_with_the_reason(text: str, expected: str) -> None:
    with pytest.raises(ValueError, match=expected) as raised:
        parse_frame(text)
    assert repr(text) in str(raised.value)


@given(st.text(alphabet="0123456789abcdefR#._~ \n", max_size=24))
def test_any_text_is_a_frame_or_a_value_error(text: str) -> None:
    try:
        frame = parse_frame(text)
    except ValueError:
        return
    assert parse_frame(format_frame(frame)) == frame


# ------------------------------------------------------------------------------------------ logs


@given(frames())
def test_a_log_line_survives(frame: Frame) -> None:
    entry = LogEntry(frame.timestamp_ns, "can0", frame)
    line = format_log_line(frame, "can0")
    assert parse_log_line(line) == entry
    for direction in ("R", "T"):
        sent = direction == "T"
        assert parse_log_line(f"{line} {direction}") == entry._replace(sent=sent)
    assert format_log_line(frame, "can0", "T") == f"{line} T"


def test_log_lines_look_like_candumps() -> None:
    frame = Frame(1398128223_803317000, 0x166, 0, bytes.fromhex("D0320009"))
    assert format_log_line(frame, "can0") == "(1398128223.803317) can0 166#D0320009"
    early = Frame(1_000_001_999, 0x1, EXTENDED | REMOTE, 4)
    assert format_log_line(early, "vcan1") == "(0000000001.000001) vcan1 00000001#R4"


def test_fractions_of_any_precision_are_read() -> None:
    assert parse_log_line("(1.5) can0 123#").timestamp_ns == 1_500_000_000
    assert parse_log_line("(1.123456789) can0 123#").timestamp_ns == 1_123_456_789


#: What the wire permits in a received frame, possible on a bus or not.
any_frames = st.builds(
    Frame,
    st.integers(0, 2**63 - 1),
    st.integers(0, MAX_EXTENDED_ID),
    st.integers(0, 255),
    st.binary(max_size=64) | st.integers(0, 8),
)


@given(any_frames, st.text(min_size=1))
def test_whatever_a_dump_writes_a_replay_reads(frame: Frame, channel: str) -> None:
    line = LogLines().line(channel, frame)
    [entry] = LogReader(io.BytesIO(f"{line}\n".encode(errors="replace")), "dump", strict=True)
    assert entry.frame.arbitration_id == frame.arbitration_id
    fault = frame_fault(entry.frame.arbitration_id, entry.frame.flags, entry.frame.data)
    assert fault is None
    if frame_fault(frame.arbitration_id, frame.flags, frame.data) is None:
        kept = EXTENDED | REMOTE | ERROR | FD | BITRATE_SWITCH | ERROR_STATE_INDICATOR
        if isinstance(frame.data, int) or not frame.flags & ERROR:
            assert (entry.frame.flags, entry.frame.data) == (frame.flags & kept, frame.data)
        else:  # a classic frame, whose classes have no format
            assert (entry.frame.flags & ~EXTENDED, entry.frame.data) == (ERROR, frame.data[:8])


@pytest.mark.parametrize(
    ("frame", "text"),
    [
        (Frame(0, 0x800, 0, b"\x11"), "00000800#11"),
        (Frame(0, 0x12345, REMOTE, 3), "00012345#R3"),
        (Frame(0, 0x1000, ERROR, bytes(8)), "20001000#0000000000000000"),
        (Frame(0, 4, ERROR | EXTENDED | FD, bytes(12)), "20000004#0000000000000000"),
        (Frame(0, 4, ERROR | REMOTE, 5), "20000004#"),
        (Frame(0, 0x123, 0, bytes(9)), "123##0000000000000000000"),
    ],
)
def test_what_no_controller_could_send_is_written_as_what_it_could(frame: Frame, text: str) -> None:
    assert format_frame(frame) == text
    parse_frame(text)


# python-can reads and writes most error frames as data frames: those are left out here.
no_errors = frames().filter(lambda frame: not frame.flags & ERROR)


@given(st.lists(no_errors, max_size=8))
def test_python_can_reads_what_we_write(
    tmp_path_factory: pytest.TempPathFactory, written: list[Frame]
) -> None:
    path = tmp_path_factory.mktemp("log") / "ours.log"
    path.write_text("".join(format_log_line(frame, "can0") + "\n" for frame in written))
    with can.CanutilsLogReader(path) as reader:
        messages = list(reader)
    for frame, message in zip(written, messages, strict=True):
        assert message.timestamp == pytest.approx(frame.timestamp_ns / 1e9, abs=2e-6)
        theirs: Any = message
        assert Message.from_frame(frame, "can0").equals(theirs, timestamp_delta=None)


@given(st.lists(no_errors, min_size=1, max_size=8))
def test_we_read_what_python_can_writes(
    tmp_path_factory: pytest.TempPathFactory, written: list[Frame]
) -> None:
    path = tmp_path_factory.mktemp("log") / "theirs.log"
    written.sort(key=lambda frame: frame.timestamp_ns)  # its clock never runs backwards
    with can.CanutilsLogWriter(path) as writer:
        for frame in written:
            message: Any = Message.from_frame(frame, "can7")
            writer.on_message_received(message)
    with LogReader.open(path, strict=True) as log:
        read = list(log)
    assert [entry.interface for entry in read] == ["can7"] * len(written)
    for entry, frame in zip(read, written, strict=True):
        data = 0 if frame.flags & REMOTE else frame.data  # it omits the length of remote frames
        assert entry.timestamp_ns == pytest.approx(frame.timestamp_ns, abs=2000)
        assert entry.frame == Frame(entry.timestamp_ns, frame.arbitration_id, frame.flags, data)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("can0 123#11", "seconds.fraction"),
        ("(x) can0 123#11", "seconds.fraction"),
        ("(1.0) can0", "seconds.fraction"),
        ("(1.0) can0 123#11 X", "seconds.fraction"),
        ("(99999999999.0) can0 123#11", "seconds.fraction"),
        ("(9999999999.0) can0 123#11", "a time of 9999999999000000000 ns"),
        ("(1.0) can0 123#1", "bytes of two digits"),
    ],
)
def test_a_line_that_is_not_a_frame_says_why(line: str, expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        parse_log_line(line)


# ---------------------------------------------------------------------------------------- screen


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("123#DEADBEEF", "  can0  123   [4]  DE AD BE EF"),
        ("123#", "  can0  123   [0] "),
        ("12345678#11", "  can0  12345678   [1]  11"),
        ("123#R4", "  can0  123   [4]  remote request"),
        ("123##1" + "22" * 8, "  can0  123  [08]  22 22 22 22 22 22 22 22"),
        ("123##0" + "00" * 12, "  can0  123  [12]  " + " ".join(["00"] * 12)),
        (
            "20000004#0004000000000000",
            "  can0  20000004   [8]  00 04 00 00 00 00 00 00   ERRORFRAME",
        ),
        ("20000004#00", "  can0  20000004   [1]  00                        ERRORFRAME"),
    ],
)
def test_screen_lines_are_candumps(text: str, line: str) -> None:
    assert format_human(parse_frame(text), "can0") == line


def test_short_identifiers_can_be_aligned_with_long_ones() -> None:
    short = format_human(parse_frame("123#11"), "can0", align=True)
    long = format_human(parse_frame("12345678#11"), "can0", align=True)
    assert short == "  can0       123   [1]  11"
    assert short.index("[") == long.index("[")
    assert format_human(parse_frame("001#11"), "can0", align=True) == "  can0       001   [1]  11"


# --------------------------------------------------------------------------------------- filters

digits = st.integers(0, 0x7FF).map(lambda number: f"{number:03X}") | st.integers(0, 0x9FFFFFFF).map(
    lambda number: f"{number & 0x9FFFFFFF:08X}"
)
dump_filters = st.tuples(digits, st.sampled_from(":~"), digits).map("".join)


def kernel_passes(part: str, arbitration_id: int, extended: bool) -> bool:
    """The rule of the kernel and of candump's usage text, naively."""
    separator = ":" if ":" in part else "~"
    can_id, mask = part.split(separator)
    wanted, compared = int(can_id, 16), int(mask, 16)
    if len(can_id) == 8:
        wanted |= 0x80000000
    received = arbitration_id | (0x80000000 if extended else 0)
    equal = received & compared & ~0x20000000 == wanted & compared & ~0x20000000
    return equal if separator == ":" else not equal


@given(st.lists(dump_filters, min_size=1, max_size=3), st.data())
def test_dump_filters_follow_the_kernels_rule(parts: list[str], data: st.DataObject) -> None:
    filters = parse_dump_filters(",".join(parts))
    near = int(parts[0].replace("~", ":").split(":")[0], 16) & 0x1FFFFFFF
    flip = data.draw(st.sampled_from([0, *(1 << bit for bit in range(29))]))
    extended = data.draw(st.booleans())
    arbitration_id = (near ^ flip) & (0x1FFFFFFF if extended else 0x7FF)
    flags = EXTENDED if extended else 0
    expected = any(kernel_passes(part, arbitration_id, extended) for part in parts)
    assert filters.matches(arbitration_id, flags) == expected
    assert filters.matches(arbitration_id, flags | REMOTE) == expected
    assert not filters.matches(arbitration_id, flags | ERROR)


@pytest.mark.parametrize("text", ["#00000204", "#204,123:7FF"])
def test_an_error_mask_selects_classes(text: str) -> None:
    filters = parse_dump_filters(text)
    for bit in range(10):
        assert filters.matches(1 << bit, ERROR) == bool(1 << bit & 0x204)
    assert filters.matches(0x206, ERROR)
    assert filters.matches(0x123, 0)
    assert filters.matches(0x124, 0) == ("123" not in text)  # no identifier: all data frames


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("", "^"),
        ("0:0", "^"),
        ("0:0,#FFFFFFFF", None),
        ("123:7FF", "123:7ff^"),
        ("123:800007FF", "s123:7ff^"),
        ("12345678:1FFFFFFF", "x12345678:1fffffff^"),
        ("00000123:1FFFFFFF", "00000123:1fffffff^"),
        ("00000123:9FFFFFFF", "x00000123:1fffffff^"),
        ("0~0", "-"),
    ],
)
def test_known_dump_filters(text: str, same: str | None) -> None:
    filters = parse_dump_filters(text)
    if same is not None:
        assert filters.text == same
    else:
        assert filters != EVERYTHING  # error frames without any class stay out
        assert filters.matches(0x123, 0)
        assert filters.matches(0x200, ERROR)


def test_error_frames_alone() -> None:
    filters: FilterSet = parse_dump_filters("0~0,#FFFFFFFF")
    assert not filters.matches(0x123, 0)
    assert filters.matches(0x4, ERROR)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("123", "'123' is not id:mask"),
        ("123:7FF,xyz:1", "'xyz:1' is not id:mask"),
        ("123:", "'123:' is not id:mask"),
        ("#", "'#' is not"),
        ("123:7FF,j", "joined filters"),
        ("123:C00007FF", "take the mask 800007FF"),
        ("123456789:0", "is not id:mask"),
    ],
)
def test_a_bad_dump_filter_is_named(text: str, expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        parse_dump_filters(text)


def test_messages_and_texts_meet() -> None:
    message = Message(arbitration_id=0x123, is_extended_id=False, data=b"\x01\x02")
    assert format_frame(to_frame(message)) == "123#0102"
