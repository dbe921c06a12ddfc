"""When an adapter is left unread, by the times of its frames alone."""

from __future__ import annotations

from typing import Any

import pytest

from canbroker.backends import parse_options
from canbroker.backends.coalescing import MAX_COALESCE_US, Coalescing
from canbroker.backends.socketcan import sockets
from canbroker.errors import CanInitializationError
from canbroker.model.bus_time import nominal_time_ns
from canbroker.model.frame import BITRATE_SWITCH, EXTENDED, FD, Frame
from canbroker.system.clock import MICROSECOND, MILLISECOND, SECOND

WAIT_NS = 500 * MICROSECOND

#: Shortest distance of frames on a full bus of 1 Mbit/s, of 8 bytes each.
FULL_NS = 114 * MICROSECOND

#: What the kernel keeps of a serial line that nobody reads: N_TTY_BUF_SIZE of linux/tty.h.
LINE_BUFFER = 4096

INTERFACES = ("virtual", "slcan", "socketcan", "vector")


class Line:
    """An adapter whose frames come at certain times, and whoever reads it."""

    def __init__(self, wait_ns: int = WAIT_NS, period_ns: int = FULL_NS) -> None:
        self.coalescing = Coalescing(wait_ns)
        self.period_ns = period_ns
        self.now = 1_000 * SECOND
        self.reads: list[int] = []  # frames of each
        self.late_ns: list[int] = []  # of the first frame of each

    def run(self, frames: int, *, urgent: bool = False) -> None:
        """``frames`` frames arrive, one every ``period_ns``, and are read."""
        begin, read = self.now, 0
        while read < frames:
            first = begin + (read + 1) * self.period_ns
            self.now = max(self.now, first)
            there = min(frames, (self.now - begin) // self.period_ns)
            self.reads.append(there - read)
            self.late_ns.append(self.now - first)
            read = there
            self.now += self.coalescing.pause_ns(self.reads[-1], self.now, urgent=urgent)


@pytest.mark.parametrize("period_ns", [250 * MICROSECOND, MILLISECOND, SECOND])
def test_frames_that_come_alone_are_read_at_once(period_ns: int) -> None:
    line = Line(period_ns=period_ns)
    line.run(1_000)
    assert line.coalescing.pauses == 0
    assert set(line.late_ns) == {0}


def test_frames_of_a_full_bus_are_read_together() -> None:
    line = Line()
    line.run(8_800)
    assert line.coalescing.pauses > 1_000
    assert len(line.reads) < 8_800 / 4
    assert max(line.late_ns) < WAIT_NS
    assert line.reads[:10] == [1] * 10, "it takes some frames to know that it is full"


def test_the_end_of_a_burst_ends_it() -> None:
    line = Line()
    for _ in range(20):
        line.run(100)
        pauses = line.coalescing.pauses
        line.now += 10 * MILLISECOND
        line.run(1)
        assert line.coalescing.pauses == pauses, "a frame that comes alone"
        assert line.late_ns[-1] == 0
        line.now += 10 * MILLISECOND


def test_one_large_read_is_no_full_bus() -> None:
    coalescing = Coalescing(WAIT_NS)
    assert coalescing.pause_ns(1_000, SECOND, urgent=False) == 0
    assert coalescing.pause_ns(1, SECOND + MILLISECOND, urgent=False) == 0


def test_0_is_never() -> None:
    line = Line(wait_ns=0)
    line.run(1_000)
    assert line.coalescing.pauses == 0
    assert line.reads == [1] * 1_000


def test_what_clients_wait_for_is_read_at_once() -> None:
    line = Line()
    line.run(1_000, urgent=True)
    assert line.coalescing.pauses == 0
    line.run(100)
    assert line.coalescing.pauses > 0, "it is known that the bus is full"


def test_an_answer_is_read_at_once() -> None:
    line = Line()
    line.run(100)
    assert line.coalescing.expect(line.now), "the pause ends"
    before = line.coalescing.pauses
    line.run(15)  # 1.7 ms
    assert line.coalescing.pauses == before
    line.run(100)
    assert line.coalescing.pauses > before, "an answer that takes longer can wait, too"


def test_without_a_pause_there_is_nothing_to_end() -> None:
    line = Line()
    assert not line.coalescing.expect(line.now)
    line.run(100)
    assert line.coalescing.pause_ns(0, line.now, urgent=False) == 0
    assert not line.coalescing.expect(line.now), "the last read had nothing"
    assert line.coalescing.left_ns(line.now + SECOND) == 0


def test_how_long_it_was_left_unread() -> None:
    line = Line()
    line.run(1)
    assert line.coalescing.left_ns(line.now) == 0
    line.run(100)
    assert line.coalescing.left_ns(line.now) == WAIT_NS


# ----------------------------------------------------------------------------------------- options


@pytest.mark.parametrize("interface", INTERFACES)
@pytest.mark.parametrize("value", [-1, MAX_COALESCE_US + 1, "500", 0.5, True])
def test_a_bad_value_is_named(interface: str, value: Any) -> None:
    with pytest.raises(CanInitializationError, match=rf"'{interface}'.*coalesce_us"):
        parse_options(interface, {"channel": "0", "coalesce_us": value})


@pytest.mark.parametrize("interface", INTERFACES)
def test_each_interface_has_it(interface: str) -> None:
    usual = parse_options(interface, {"channel": "0"})
    assert 0 < usual.coalesce_ns <= MAX_COALESCE_US * MICROSECOND
    assert "coalesce_us" not in usual.written()
    for value in (0, 250, MAX_COALESCE_US):
        options = parse_options(interface, {"channel": "0", "coalesce_us": value})
        assert options.coalesce_ns == value * MICROSECOND
        assert options.written()["coalesce_us"] == value
        assert parse_options(interface, options.written()) == options


# ----------------------------------------------------------------------------------------- buffers


def shortest(flags: int = 0) -> Frame:
    return Frame(0, 1, flags, b"")


@pytest.mark.parametrize("flags", [0, FD | BITRATE_SWITCH])
def test_the_kernels_buffer_holds_what_comes_meanwhile(flags: int) -> None:
    """Of an interface of the kernel, with the least buffer that it may have."""
    holds = 212_992 * 2 // sockets._FRAME_COST  # net.core.rmem_max by default; it is doubled
    frames = MAX_COALESCE_US * MICROSECOND // nominal_time_ns(shortest(flags), 1_000_000, 8_000_000)
    assert frames * 4 < holds


@pytest.mark.parametrize(
    ("frame", "line"),
    [
        (Frame(0, 1, EXTENDED, bytes(8)), 1 + 8 + 1 + 16 + 4 + 1),
        (shortest(FD | BITRATE_SWITCH), 1 + 3 + 1 + 4 + 1),
        (Frame(0, 1, EXTENDED | FD | BITRATE_SWITCH, bytes(64)), 1 + 8 + 1 + 128 + 4 + 1),
    ],
)
def test_a_serial_lines_buffer_holds_what_comes_meanwhile(frame: Frame, line: int) -> None:
    frames = MAX_COALESCE_US * MICROSECOND // nominal_time_ns(frame, 1_000_000, 8_000_000)
    assert (frames + 1) * line < LINE_BUFFER
