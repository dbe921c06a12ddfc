"""The table by identifier: what a row says, and that it stays bounded."""

from __future__ import annotations

from typing import Final

import pytest

from canbroker.model.frame import ERROR, EXTENDED, FD, REMOTE, EchoFrame
from canbroker.view.table import Row, Table

SECOND: Final = 1_000_000_000
MILLISECOND: Final = 1_000_000
EPOCH_NS: Final = 1_700_000_000 * SECOND


def frame(
    at_ns: int,
    arbitration_id: int = 0x123,
    data: bytes | int = b"",
    flags: int = 0,
    origin: str | None = None,
) -> EchoFrame:
    return EchoFrame(EPOCH_NS + at_ns, arbitration_id, flags, data, origin)


def only_row(table: Table) -> Row:
    (row,) = table.rows.values()
    return row


def run(table: Table, gaps_ns: list[int], begin_ns: int = 0) -> int:
    """A frame after each gap, with ticks of a quarter of a second; returns the time."""
    now_ns, tick_ns = begin_ns, begin_ns
    for gap_ns in gaps_ns:
        now_ns += gap_ns
        while tick_ns < now_ns:
            table.tick(tick_ns)
            tick_ns += SECOND // 4
        table.add([frame(now_ns)], now_ns)
    table.tick(now_ns)
    return now_ns


def test_a_row_for_each_identifier_format_kind_and_direction() -> None:
    table = Table()
    frames = [
        frame(1, 0x123, b"\1"),
        frame(2, 0x123, b"\2", FD),
        frame(3, 0x123, b"\3", EXTENDED),
        frame(4, 0x123, 2, REMOTE),
        frame(5, 0x123, bytes(8), ERROR),
        frame(6, 0x123, b"\4", origin="me"),
        frame(7, 0x1FFFFFFF, b"", EXTENDED),
    ]
    table.add(frames, 10)
    rows = list(table.rows.values())
    assert [row.count for row in rows] == [2, 1, 1, 1, 1, 1]
    assert [row.last for row in rows] == frames[1:]
    assert [row.is_sent for row in rows] == [False, False, False, False, True, False]
    assert max(row.key for row in rows) < 2**53
    assert [row.key for row in rows] == list(table.rows)


def test_rate_and_period_of_a_regular_message() -> None:
    table = Table()
    now_ns = run(table, [10 * MILLISECOND] * 300)
    row = only_row(table)
    assert row.count == 300
    assert row.period_ns == 10 * MILLISECOND
    assert row.jitter_ns == 0
    assert row.rate == pytest.approx(100, abs=3)
    assert row.age_ns(now_ns + 7) == 7


def test_jitter_is_the_standard_deviation_of_the_gaps() -> None:
    table = Table()
    run(table, [8 * MILLISECOND, 12 * MILLISECOND] * 200)
    row = only_row(table)
    assert row.period_ns == pytest.approx(10 * MILLISECOND, rel=0.01)
    assert row.jitter_ns == pytest.approx(2 * MILLISECOND, rel=0.01)


def test_a_slow_message_has_a_steady_rate_and_a_period() -> None:
    table = Table()
    now_ns = run(table, [3 * SECOND] * 10)
    row = only_row(table)
    for _ in range(5):
        now_ns += SECOND
        table.tick(now_ns)
        assert row.rate == pytest.approx(1 / 3)
    assert row.period_ns == 3 * SECOND


def test_the_period_follows_when_a_message_changes_its_own() -> None:
    table = Table()
    now_ns = run(table, [100 * MILLISECOND] * 50)
    run(table, [20 * MILLISECOND] * 200, now_ns)
    row = only_row(table)
    assert row.period_ns == 20 * MILLISECOND
    assert row.rate == pytest.approx(50, abs=2)


def test_the_rate_of_a_message_that_ends_becomes_0_and_the_row_changes_by_that() -> None:
    table = Table()
    now_ns = run(table, [10 * MILLISECOND] * 150)
    tick = table.tick(now_ns)
    assert table.changed_since(tick) == []
    for _ in range(3):
        now_ns += SECOND
        table.tick(now_ns)
    row = only_row(table)
    assert row.rate == 0
    assert row.changed == 0
    assert table.changed_since(tick) == [row]


def test_changed_bytes_are_those_of_the_tick_even_if_they_changed_back() -> None:
    table = Table()
    table.add([frame(0, data=bytes(8))], 0)
    first = table.tick(0)
    row = only_row(table)
    assert row.changed == 0
    table.add([frame(1, data=b"\0\1\0\0\0\0\0\0"), frame(2, data=bytes(7) + b"\x80")], 1)
    second = table.tick(1)
    assert row.changed == 0b1000_0010
    table.add([frame(3, data=bytes(7) + b"\x80")], 2)
    third = table.tick(2)
    assert row.changed == 0
    table.add([frame(4, data=bytes(3))], 3)
    assert table.tick(3) == 4
    assert row.changed == 0b1111_1000  # what is not there any more
    assert (first, second, third) == (1, 2, 3)


def test_only_the_rows_that_changed_are_told() -> None:
    table = Table()
    table.add([frame(0, 1), frame(0, 2)], 0)
    first = table.tick(0)
    table.add([frame(1, 2)], 1)
    second = table.tick(1)
    assert [row.last.arbitration_id for row in table.changed_since(0)] == [1, 2]
    assert [row.last.arbitration_id for row in table.changed_since(first)] == [2]
    assert table.changed_since(second) == []


def test_identifiers_without_end_are_bounded_and_counted() -> None:
    table = Table(limit=100)
    for number in range(1000):
        table.add([frame(number, number, flags=EXTENDED)], number)
    assert len(table.rows) == 100
    assert table.unlisted == 900
    table.add([frame(1000, 5, flags=EXTENDED)], 1000)
    assert table.unlisted == 900
    assert table.rows[5 << 4 | EXTENDED].count == 2


def test_a_full_table_forgets_what_is_silent_for_a_minute() -> None:
    table = Table(limit=10)
    for number in range(20):
        table.add([frame(0, number)], 0)
    table.tick(0)
    for second in range(1, 70):
        table.add([frame(second * SECOND, 3)], second * SECOND)
        table.tick(second * SECOND)
    assert [row.last.arbitration_id for row in table.rows.values()] == [3]
    assert (table.forgotten, table.generation) == (9, 1)
    table.add([frame(70 * SECOND, 15)], 70 * SECOND)
    assert len(table.rows) == 2


def test_a_table_with_room_forgets_nothing() -> None:
    table = Table(limit=10)
    table.add([frame(0, 1)], 0)
    table.tick(0)
    table.tick(3600 * SECOND)
    assert len(table.rows) == 1
    assert table.generation == 0


def test_clear() -> None:
    table = Table(limit=1)
    table.add([frame(0, 1), frame(0, 2)], 0)
    table.clear()
    assert (table.rows, table.unlisted, table.generation) == ({}, 0, 1)


def test_clocks_of_adapters_that_step_back_do_no_harm() -> None:
    table = Table()
    run(table, [10 * MILLISECOND] * 120)
    table.add([frame(0), frame(-5 * SECOND)], 2 * SECOND)
    table.tick(4 * SECOND)
    row = only_row(table)
    assert row.period_ns is not None
    assert row.period_ns >= 0
