"""Which error frames are passed on, and that the others are counted."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canbroker.actors.channel.error_storms import MAX_CAUSES, OTHER, ErrorStorms, cause_of
from canbroker.model.frame import ERROR, Frame
from canbroker.system import clock

BUS_OFF = Frame(0, 0x40, ERROR, bytes(8))

ERRORS = st.builds(
    Frame,
    st.just(0),
    st.integers(0, 3).map(lambda bit: 1 << bit),
    st.just(ERROR),
    st.binary(min_size=8, max_size=8) | st.just(bytes(8)),
)


def bit_error(counter: int = 0) -> Frame:
    """As linux/can/error.h has it: of the protocol, a bit, and with the counters."""
    return Frame(0, 0x208, ERROR, bytes([0, 0, 1, 0, 0, 0, counter, 0]))


@given(
    rate=st.integers(0, 20),
    steps=st.lists(st.tuples(st.integers(0, clock.SECOND // 2), ERRORS), max_size=300),
)
def test_what_is_not_passed_on_is_counted(rate: int, steps: list[tuple[int, Frame]]) -> None:
    storms = ErrorStorms(rate)
    now, passed = 0, Counter[int]()
    told: set[tuple[int, str]] = set()
    for pause, error in steps:
        now += pause
        second = now // clock.SECOND
        is_passed = storms.passes(error, now)
        passed[second] += is_passed
        is_first = (second, cause_of(error)) not in told
        told.add((second, cause_of(error)))
        if is_first and sum(at == second for at, _ in told) <= MAX_CAUSES:
            assert is_passed, "the first of its cause"
    assert passed.total() + storms.held.total() == len(steps)
    for second, count in passed.items():
        causes = sum(at == second for at, _ in told)
        assert count <= max(rate, 0) + min(causes, MAX_CAUSES)
    assert len(storms.held) <= MAX_CAUSES + 1


def test_beyond_the_rate_of_a_second() -> None:
    storms = ErrorStorms(3)
    for second in (7, 8):
        at = second * clock.SECOND
        passed = [storms.passes(bit_error(n), at + n) for n in range(10)]
        assert passed == [True] * 3 + [False] * 7
        assert storms.passes(BUS_OFF, at + 20), "it is not hidden by what has led to it"
        assert not storms.passes(BUS_OFF, at + 21)
    assert storms.held == {cause_of(bit_error()): 14, cause_of(BUS_OFF): 2}


def test_a_quiet_bus_has_nothing_counted() -> None:
    storms = ErrorStorms(2)
    assert all(storms.passes(bit_error(), at * clock.SECOND // 2) for at in range(100))
    assert storms.held.total() == storms.report(0) == 0


def test_causes_are_bounded() -> None:
    storms = ErrorStorms(0)
    errors = [Frame(0, 8, ERROR, bytes([0, n & 0xFF, n >> 8, 0, 0, 0, 0, 0])) for n in range(1000)]
    for second in range(3):
        for error in errors:
            storms.passes(error, second * clock.SECOND)
    assert len(storms.held) == MAX_CAUSES + 1
    assert storms.held.total() == 3 * (1000 - MAX_CAUSES)
    assert storms.held[OTHER] == 3 * (1000 - 2 * MAX_CAUSES)


def test_a_report_a_minute() -> None:
    storms = ErrorStorms(0)
    told = []
    for second in range(130):
        for _ in range(11):
            storms.passes(bit_error(), second * clock.SECOND)
        told.append(storms.report(second * clock.SECOND))
    assert [(at, count) for at, count in enumerate(told) if count] == [
        (0, 10),
        (60, 600),
        (120, 600),
    ]


@pytest.mark.parametrize(
    ("identifier", "data", "cause"),
    [
        (0x002, b"\x0d\0\0\0\0\0\0\0", "20000002#0000000000000000"),
        (0x208, b"\0\0\x04\x03\0\0\x80\x7f", "20000008#0000040300000000"),
        (0x004, b"\0\x30\0\0\0\0\0\0", "20000004#0030000000000000"),
        (0x040, b"", "20000040#0000000000000000"),
    ],
)
def test_what_an_error_says(identifier: int, data: bytes, cause: str) -> None:
    assert cause_of(Frame(0, identifier, ERROR, data)) == cause
