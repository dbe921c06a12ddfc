"""Logs as the world has them: what candump, shells, editors and power cuts leave in a file."""

from __future__ import annotations

import io
import os
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canbroker.errors import CanInitializationError
from canbroker.logs.candump import LogEntry, parse_log_line
from canbroker.logs.reader import LogReader
from canbroker.logs.timing import EvenTime, RecordedTime
from canbroker.system.clock import MILLISECOND, SECOND

FIRST = "(1.000000) can0 123#11"
LAST = "(2.000000) can1 124#2233 R"

#: A line that is not a frame to send, and how the account calls it. The forms are those that
#: can-utils' candump.c and lib.c print.
ODD_LINES = [
    ("DROPCOUNT: dropped 12 CAN frames on 'can0' socket (total drops 12)", "of DROPCOUNT"),
    ("DROPCOUNT: dropped 1 CAN frame on 'can0' socket (total drops 13)", "of DROPCOUNT"),
    ("candump: interface can0 down", "of other text"),
    ("can0: interface down", "of other text"),
    ("read: Network is down", "of other text"),
    ("date Mon Nov 30 09:00:00 2026", "of other text"),
    ("", "empty"),
    ("   ", "empty"),
    ("# bench 3", "comments"),
    ("; bench 3", "comments"),
    ("(1436509053.85", "damaged"),
    ("(1.0) can0 123#112", "damaged"),
    ("(1.0) can0 123", "damaged"),
    ("(1.0) can0 12#11", "damaged"),
    ("(1.0) can0 800#11", "damaged"),
    ("(1.0) can0 123#112233445566778899", "damaged"),
    ("(1.0) can0 45123#81:00:12345678#11223344.556677", "of CAN XL frames"),
    ("(1.0) can0 123#80:00:11223344#11", "of CAN XL frames"),  # can-utils of 2023
    ("(1.0) can0 123#1122334455667788_E", "of frames with a length code above 8"),
    ("(1.0) can0 12345678#R8_9 R", "of frames with a length code above 8"),
    ("  can0  123   [4]  DE AD BE EF", "in candump's form"),
    (" (1436509053.850870)  can0  12345678   [0]", "in candump's form"),
    (" (2015-07-10 08:17:33.850870)  can0  123  [12]  00 00", "in candump's form"),
    (" can0  RX B E  123  [02]  11 22", "in candump's form"),
    (" can0  TX - -  123   {9}  11 22 33 44 55 66 77 88", "in candump's form"),
    ("\0\0\0\0", "of other text"),
    ("x" * 10_000, "of other text"),
    (FIRST + " " * 10_000, "damaged"),
]


def reader(content: str | bytes, *, strict: bool = False) -> LogReader:
    data = content.encode() if isinstance(content, str) else content
    return LogReader(io.BytesIO(data), "drive.log", strict=strict)


# ------------------------------------------------------------------------------------------ lines


@pytest.mark.parametrize(("line", "kind"), ODD_LINES)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r\r\n"])
def test_a_line_that_is_not_a_frame_is_skipped_and_counted(line: str, kind: str, end: str) -> None:
    for number, lines in enumerate(([line, FIRST, LAST], [FIRST, line, LAST], [FIRST, LAST, line])):
        log = reader("".join(f"{text}{end}" for text in lines))
        assert list(log) == [parse_log_line(FIRST), parse_log_line(LAST)]
        [(counted, count)] = log.skipped.counts.items()
        assert counted.startswith(kind)
        assert count == 1
        assert f"1 {counted} (line {number + 1}" in str(log.skipped)
        assert len(str(log.skipped)) < 250


@pytest.mark.parametrize(("line", "kind"), ODD_LINES)
def test_a_strict_reader_refuses_it_with_file_and_line(line: str, kind: str) -> None:
    with pytest.raises(CanInitializationError, match=r"^drive\.log, line 2: ") as raised:
        list(reader(f"{FIRST}\n{line}\n{LAST}\n", strict=True))
    assert len(str(raised.value)) < 300


def test_the_account_names_the_first_line_of_each_kind() -> None:
    log = reader(f"{FIRST}\n\nhello\n\n{ODD_LINES[0][0]}\nworld\n{ODD_LINES[1][0]}\n")
    assert len(list(log)) == 1
    assert dict(log.skipped.counts) == {"empty": 2, "of other text": 2, "of DROPCOUNT": 2}
    assert log.skipped.lost == 13
    said = str(log.skipped)
    assert said.startswith("skipped 6 lines without a frame to send: 2 empty (line 2), ")
    assert "2 of other text (line 3: 'hello')" in said
    assert "2 of DROPCOUNT (line 5: \"DROPCOUNT: dropped 12 CAN frames on 'can0'" in said
    assert said.endswith("; candump had lost 13 frames when it recorded")


@pytest.mark.parametrize(
    "line",
    [
        "(000.000000) can0 123#11",  # candump -L -tz
        "(0000000000.000000) can0 123#11",
        "(1436509053.850870123) can0 123#11",  # candump -L -N
        "(1436509053.850870)    can0 123#11",  # several interfaces: the names are aligned
        "(1436509053.850870) vcan10 12345678#R8",
        "(1436509053.850870) can0 123##5" + "11" * 64 + " T",
        "(1436509053.850870) can0 20000088#0000040000000000",
        "(2.9) can0 123#11.22",
        " (1.0) can0 123#",
        "(1.0)\tcan0\t123#",
    ],
)
def test_forms_of_a_frame_line(line: str) -> None:
    log = reader(f"{line}\n", strict=True)
    assert list(log) == [parse_log_line(line)]
    assert not log.skipped


def test_a_byte_order_mark_begins_a_file_only() -> None:
    log = reader(b"\xef\xbb\xbf" + FIRST.encode() + b"\r\n\xef\xbb\xbf" + LAST.encode())
    assert list(log) == [parse_log_line(FIRST)]
    assert log.skipped.counts.total() == 1


def test_the_last_line_needs_no_end() -> None:
    assert list(reader(f"{FIRST}\n{LAST}")) == [parse_log_line(FIRST), parse_log_line(LAST)]


@given(st.data())
def test_a_log_that_is_cut_anywhere_is_read_up_to_there(data: st.DataObject) -> None:
    content = "".join(f"({number}.5) can0 {number:03X}#1122\n" for number in range(20)).encode()
    whole = list(reader(content))
    cut = data.draw(st.integers(content.index(b"\n"), len(content)))
    entries = list(reader(content[:cut]))
    complete = content[:cut].count(b"\n")
    assert entries[:complete] == whole[:complete]
    assert len(entries) <= complete + 1


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_whatever_is_around_a_frame_it_is_found(before: bytes, after: bytes) -> None:
    log = reader(before + b"\n" + FIRST.encode() + b"\n" + after)
    assert parse_log_line(FIRST) in list(log)


@pytest.mark.parametrize("content", ["", "\n\n", "# a comment\n", "  can0  123   [1]  11\n" * 3])
def test_a_log_without_frames_is_refused_with_what_it_has(content: str) -> None:
    with pytest.raises(CanInitializationError, match=r"^drive\.log contains no frames") as raised:
        list(reader(content))
    assert ("form for screens" in str(raised.value)) == ("[1]" in content)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.log", tmp_path):
        with pytest.raises(CanInitializationError, match=f"^cannot read {path}: "):
            LogReader.open(path)


def test_a_file_is_closed_and_can_be_read_again(tmp_path: Path) -> None:
    path = tmp_path / "drive.log"
    path.write_text(f"{FIRST}\nrubbish\n{LAST}\n")
    with LogReader.open(path) as log:
        assert log.seekable
        assert [list(log) for _ in range(3)] == [[parse_log_line(FIRST), parse_log_line(LAST)]] * 3
    assert log.skipped.counts.total() == 1, "counted in the first reading only"
    with pytest.raises(ValueError, match=r"."):
        list(log)


def test_a_file_that_was_emptied_meanwhile_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "drive.log"
    path.write_text(f"{FIRST}\n")
    with LogReader.open(path) as log:
        assert len(list(log)) == 1
        path.write_text("")
        with pytest.raises(CanInitializationError, match="contains no frames"):
            list(log)


def test_interfaces_that_a_log_does_not_have() -> None:
    log = reader(f"rubbish\n{FIRST}\n{LAST}\n")
    assert log.missing({"can0"}) == (set(), ["can0", "can1"])
    assert log.missing({"can1", "can2"}) == ({"can2"}, ["can0", "can1"])
    assert len(list(log)) == 2
    assert log.skipped.counts.total() == 1, "looking for interfaces counts nothing"


# ------------------------------------------------------------------------------------- streaming


class Endless(io.BufferedIOBase):
    """A log of ``count`` frames that is made while it is read; ``given`` is how much was."""

    def __init__(self, count: int) -> None:
        self.given = 0
        self._left = count

    def readable(self) -> bool:
        return True

    def read1(self, size: int = -1, /) -> bytes:
        lines = min(self._left, size // (len(FIRST) + 1))
        self._left -= lines
        self.given += lines
        return f"{FIRST}\n".encode() * lines


def test_the_first_frame_comes_before_the_rest_is_read() -> None:
    source = Endless(10**9)
    assert next(iter(LogReader(source, "endless"))) == parse_log_line(FIRST)
    assert source.given < 5000


def test_memory_does_not_grow_with_the_log() -> None:
    peaks = []
    for count in (5_000, 100_000):
        tracemalloc.start()
        try:
            assert sum(1 for _ in LogReader(Endless(count), "long")) == count
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]


def test_memory_does_not_grow_with_a_line() -> None:
    class OneLine(Endless):
        def read1(self, size: int = -1, /) -> bytes:
            self.given += size
            if self.given < 50_000_000:
                return b"x" * size
            data, self.tail = self.tail, b""
            return data

        tail = f"\n{FIRST}\n".encode()

    tracemalloc.start()
    try:
        log = LogReader(OneLine(0), "a long line")
        assert list(log) == [parse_log_line(FIRST)]
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()
    assert dict(log.skipped.counts) == {"of other text": 1}


def test_what_a_pipe_has_comes_at_once() -> None:
    reading, writing = os.pipe()
    with (
        os.fdopen(writing, "wb", buffering=0) as end,
        LogReader(os.fdopen(reading, "rb"), "pipe") as log,
    ):
        assert not log.seekable
        batches = log.batches()
        for line in (FIRST, LAST):
            end.write(f"{line}\n(3.0) can".encode())
            assert next(batches) == [parse_log_line(line)]
            end.write(b"0 003#\n")
            assert next(batches) == [parse_log_line("(3.0) can0 003#")]
        end.close()
        assert list(batches) == []


# ------------------------------------------------------------------------------------------- time


def due_ms(*at_ms: float, speed: float = 1) -> list[float]:
    timing = RecordedTime(speed)
    return [timing.due_ns(round(at * MILLISECOND)) / MILLISECOND for at in at_ms]


def test_frames_are_due_when_they_were_recorded() -> None:
    assert due_ms(1000, 1010, 1040) == [0, 10, 40]
    assert due_ms(1000, 1010, 1040, speed=4) == [0, 2.5, 10]
    assert due_ms(1000, 1010, 1040, speed=0) == [0, 0, 0]


def test_what_is_a_bit_out_of_order_keeps_its_order_and_delays_nothing() -> None:
    assert due_ms(1000, 1010, 1005, 1040) == [0, 10, 10, 40]
    assert due_ms(1000, 1100, 1000, 1101, 1002, 1102) == [0, 100, 100, 101, 101, 102]


def test_a_clock_that_steps_back_starts_timing_anew() -> None:
    assert due_ms(5000, 5010, 1000, 1020, 1050) == [0, 10, 10, 30, 60]
    assert due_ms(5000, 5010, 1000, 1020, speed=2) == [0, 5, 5, 15]
    assert due_ms(5000, 4899, 4909) == [0, 0, 10], "less than a second back, too"
    twice = due_ms(9e6, 9e6 + 1, 5e6, 5e6 + 2, 0, 3)
    assert twice == [0, 1, 1, 3, 3, 6]


@given(st.lists(st.integers(0, 2**63), min_size=1, max_size=30), st.floats(0, 1e6))
def test_no_frame_is_due_before_its_predecessor(stamps: list[int], speed: float) -> None:
    timing = RecordedTime(speed)
    due = [timing.due_ns(stamp) for stamp in stamps]
    assert due == sorted(due)
    assert due[0] == 0


def test_readings_follow_each_other() -> None:
    def twice(timing: RecordedTime) -> Iterator[int]:
        for _ in range(2):
            yield from (timing.due_ns(stamp) for stamp in (SECOND, SECOND + 10 * MILLISECOND))
            timing.restart()

    assert [at / MILLISECOND for at in twice(RecordedTime(1))] == [0, 10, 11, 21]
    assert list(twice(RecordedTime(0))) == [0, 0, 0, 0], "as fast as possible in every reading"


def test_entries_are_those_of_their_lines() -> None:
    [entry, _] = reader(f"{FIRST}\n{LAST}\n")
    assert entry == LogEntry(SECOND, "can0", parse_log_line(FIRST).frame)


def test_a_clock_that_learns_the_date_starts_timing_anew() -> None:
    """As on a computer without a clock of its own, which the network sets while it records."""
    timing = RecordedTime(1)
    stamps = [10 * SECOND, 11 * SECOND, 1_700_000_000 * SECOND, 1_700_000_002 * SECOND]
    assert [timing.due_ns(stamp) // SECOND for stamp in stamps] == [0, 1, 1, 3]


def test_a_long_pause_may_be_cut() -> None:
    timing = RecordedTime(2, 10 * SECOND)
    stamps = [5 * SECOND, 6 * SECOND, 100 * SECOND, 101 * SECOND]
    assert [timing.due_ns(stamp) / SECOND for stamp in stamps] == [0, 0.5, 5.5, 6]
    assert timing.elapsed_ns == 96 * SECOND, "of the recording, pauses included"


def test_frames_at_a_fixed_distance() -> None:
    timing = EvenTime(2.5 * MILLISECOND)
    assert [timing.due_ns(stamp) for stamp in (5, 1, 3)] == [
        0,
        2_500_000,
        5 * MILLISECOND,
    ]
    timing.restart()
    assert timing.due_ns(5) == 7_500_000
