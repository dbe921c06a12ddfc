"""A thread that waits for a line. A socket is the line."""

from __future__ import annotations

import select
import socket
from collections.abc import Iterator
from contextlib import closing

import pytest

from canbroker.backends.slcan.lookout import Lookout

#: Long enough for a thread to do what it must not do.
A_WHILE_S = 0.05
DEADLINE_S = 20


class Line:
    """What a lookout waits for, and the other end of it."""

    def __init__(self) -> None:
        self.end, self.far = socket.socketpair()
        self.lookout = Lookout(self.end.fileno(), "line")

    def is_told(self, within_s: float = DEADLINE_S) -> bool:
        return bool(select.select([self.lookout.wake.fileno()], [], [], within_s)[0])

    def read(self) -> bytes:
        """As a port does it."""
        self.lookout.wake.clear()
        data = self.end.recv(4096)
        self.lookout.go_on(has_read=bool(data))
        return data

    def close(self) -> None:
        self.lookout.stop()
        self.end.close()
        self.far.close()


@pytest.fixture
def line() -> Iterator[Line]:
    with closing(Line()) as made:
        yield made


def test_it_tells_of_each_arrival(line: Line) -> None:
    assert not line.is_told(A_WHILE_S)
    for data in (b"a", b"b", b"c"):
        line.far.send(data)
        assert line.is_told()
        assert line.read() == data


def test_what_is_left_is_told_again(line: Line) -> None:
    line.far.send(b"ab")
    assert line.is_told()
    line.lookout.wake.clear()
    assert line.end.recv(1) == b"a"
    line.lookout.go_on(has_read=True)
    assert line.is_told()


def test_it_rests_until_the_line_is_read(line: Line) -> None:
    line.far.send(b"a")
    assert line.is_told()
    line.lookout.wake.clear()
    line.far.send(b"b")
    assert not line.is_told(A_WHILE_S)
    assert line.read() == b"ab"
    line.far.send(b"c")
    assert line.is_told()


def test_a_read_in_vain_changes_nothing(line: Line) -> None:
    for _ in range(3):
        line.lookout.go_on(has_read=False)
    line.far.send(b"a")
    assert line.is_told()
    assert line.read() == b"a"


def test_the_end_of_a_line_is_told(line: Line) -> None:
    line.far.close()
    assert line.is_told()
    assert line.read() == b""


def test_it_stops_while_it_rests(line: Line) -> None:
    line.far.send(b"a")
    assert line.is_told()


def test_a_line_that_it_cannot_wait_for_is_told_to_the_reader() -> None:
    lookout = Lookout(-1, "closed")
    try:
        assert select.select([lookout.wake.fileno()], [], [], DEADLINE_S)[0]
        lookout.wake.clear()
        lookout.go_on(has_read=True)
        assert lookout.wake.is_set  # read on: it is told after what was there before
        with pytest.raises((OSError, ValueError)):
            lookout.go_on(has_read=False)
    finally:
        lookout.stop()
