"""The rows of ``canbroker top``: order, filters, pauses, and texts that keep their columns."""

from __future__ import annotations

from typing import Final

import pytest

from canbroker.cli.top_rows import (
    DATA_AT,
    SORTS,
    Display,
    Shown,
    Wanted,
    data_cells,
    fixed_cells,
    heading,
    headline,
    load_line,
    plain_line,
)
from canbroker.delivery.tap import Dropped, Interrupted
from canbroker.model.error_counters import ErrorCounters
from canbroker.model.frame import EXTENDED, REMOTE, EchoFrame
from canbroker.system import clock
from canbroker.view.channel import ChannelView, Sample
from canbroker.view.table import Table
from canbroker.wire.stream import StateEvent

NAMES: Final = {0x100: "Engine", 0x200: "Brake"}


def frame(arbitration_id: int, data: bytes | int = b"", flags: int = 0) -> EchoFrame:
    origin = "me" if arbitration_id == 0x300 else None
    return EchoFrame(1, arbitration_id, flags, data, origin)


def display_of(*frames: EchoFrame) -> tuple[Display, Table]:
    table = Table()
    table.add(frames, 0)
    display = Display(lambda frame: NAMES.get(frame.arbitration_id))
    display.take(table.rows.values(), 0)
    return display, table


def identifiers(display: Display) -> list[int]:
    return [row.frame.arbitration_id for row in display.rows]


def row(
    frame: EchoFrame,
    *,
    frames: int = 1,
    rate: float = 0.0,
    period_ns: int | None = None,
    age_ns: int = 0,
    changed: int = 0,
    name: str = "",
) -> Shown:
    return Shown(1, frame, False, frames, rate, period_ns, period_ns, age_ns, changed, name)


# ----------------------------------------------------------------------------------- the rows


def test_each_column_sorts_and_the_identifier_decides_among_equals() -> None:
    display, table = display_of(frame(3), frame(1), frame(2), frame(2))
    assert identifiers(display) == [1, 2, 3]
    display.next_sort()
    assert display.sort == "count"
    assert identifiers(display) == [2, 1, 3]
    display.is_reversed = True
    display.arrange()
    assert identifiers(display)[-1] == 2
    for _ in range(len(SORTS) - 1):
        display.next_sort()
        assert len(display.rows) == len(table.rows)
    assert display.sort == "id"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", [0x100, 0x1FF, 0x200, 0x300, 0x18FEF100]),
        ("1F", [0x1FF]),
        ("f1", [0x18FEF100]),
        ("100-1FF", [0x100, 0x1FF]),
        ("brak", [0x200]),
        ("tx", [0x300]),
        ("rx 0-2FF", [0x100, 0x1FF, 0x200]),
        ("nothing", []),
    ],
)
def test_filters(text: str, expected: list[int]) -> None:
    display, _ = display_of(
        frame(0x100), frame(0x1FF), frame(0x200), frame(0x300), frame(0x18FEF100, b"", EXTENDED)
    )
    display.wanted = Wanted(text)
    display.arrange()
    assert identifiers(display) == expected


def test_a_paused_display_does_not_change_but_sorts_and_filters() -> None:
    display, table = display_of(frame(1), frame(2))
    display.is_paused = True
    table.add([frame(1), frame(3)], 5)
    display.take(table.rows.values(), 5)
    assert [(row.frame.arbitration_id, row.frames) for row in display.rows] == [(1, 1), (2, 1)]
    display.wanted = Wanted("002")
    display.arrange()
    assert identifiers(display) == [2]
    display.is_paused = False
    display.wanted = Wanted("")
    display.take(table.rows.values(), 5)
    assert [(row.frame.arbitration_id, row.frames) for row in display.rows] == [
        (1, 2),
        (2, 1),
        (3, 1),
    ]


def test_a_frozen_row_stays_while_others_go_on() -> None:
    display, table = display_of(frame(1, b"\1"), frame(2, b"\1"))
    display.freeze(display.rows[0].key)
    table.add([frame(1, b"\2"), frame(2, b"\2")], 9)
    display.take(table.rows.values(), 9)
    assert [(row.frame.data, row.is_frozen) for row in display.rows] == [
        (b"\1", True),
        (b"\2", False),
    ]
    display.freeze(display.rows[0].key)
    assert not display.rows[0].is_frozen
    display.take(table.rows.values(), 9)
    assert display.rows[0].frame.data == b"\2"


def test_clear_forgets_frozen_rows_too() -> None:
    display, table = display_of(frame(1))
    display.freeze(display.rows[0].key)
    display.clear()
    table.clear()
    display.take(table.rows.values(), 9)
    assert display.rows == []


# --------------------------------------------------------------------------------- the texts

HUGE: Final = 2**63


@pytest.mark.parametrize(
    "row",
    [
        row(frame(0)),
        row(frame(0x1FFFFFFF, bytes(64), EXTENDED), frames=HUGE, rate=9e9),
        row(frame(0x7FF, bytes(8)), period_ns=HUGE, age_ns=HUGE),
        row(frame(0x7FF, 8, REMOTE), frames=999_999, rate=999.96, period_ns=99_996_000),
        row(frame(0x7FF), frames=1_000_000, rate=0.04, period_ns=10**12, age_ns=36 * 10**12),
        row(frame(0x7FF), age_ns=99_960_000_000),
    ],
    ids=range(6),
)
def test_every_value_keeps_to_its_column(row: Shown) -> None:
    assert len(fixed_cells(row)) == DATA_AT - 1


def test_the_heading_stands_over_the_cells() -> None:
    for sort in SORTS:
        text = heading(sort, is_reversed=False, has_names=False)
        assert text.index(" data") + 1 == DATA_AT
    assert DATA_AT + 8 * 3 - 1 <= 79, (
        "eight bytes fit beside the scroll bar of a terminal of 80 columns"
    )


def test_names_stand_under_their_heading() -> None:
    text = heading("id", is_reversed=False, has_names=True)
    for data in (b"", bytes(3), bytes(8)):
        line = plain_line(row(frame(1, data), name="Engine"), 120)
        assert line.index("Engine") == text.index("message")


def test_changed_bytes_are_told_and_long_data_is_cut() -> None:
    cells = data_cells(row(frame(1, bytes(range(4))), changed=0b1010), 24)
    assert cells == [("00 ", False), ("01 ", True), ("02 ", False), ("03 ", True)]
    cells = data_cells(row(frame(1, bytes(64))), 24)
    assert len(cells) == 8
    assert cells[-1] == ("… ", False)


def test_a_line_with_a_name() -> None:
    line = plain_line(
        row(
            frame(0x123, b"\xde\xad"),
            frames=1234,
            rate=99.97,
            period_ns=10_003_000,
            age_ns=250_000_000,
            name="Engine\x1b[2J",
        ),
        120,
    )
    assert line == (
        "     123 rx      1234   100.0   10.00   10.00   0.2   2 DE AD"
        + " " * 20
        + "Engine\\x1b[2J"
    )


def test_the_headline_says_what_is_wrong_first() -> None:
    view = ChannelView("can0")
    assert headline(view, 80) == "can0  waiting for its state"
    view.note_state(
        StateEvent(
            state="active",
            bitrate=500_000,
            data_bitrate=2_000_000,
            load=0.456,
            error_counters=ErrorCounters(96, 0),
            received_rate=1234.0,
            transmitted_rate=5.0,
        )
    )
    assert (
        headline(view, 90)
        == "can0  active  500k/2000k  load 46%  rx 1,234/s  tx 5/s  errors tx 96 rx 0"
    )
    view.apply([Dropped("can0", 7), Interrupted("can0", "unplugged\n")], 1)
    assert headline(view, 80).startswith("can0  NOT RECEIVING: unplugged\\n  active")
    assert "7 dropped  1 interruptions" in headline(view, 200)
    assert len(headline(view, 80)) == 80


def test_the_load_over_time_keeps_each_bar_in_its_place() -> None:
    half_s = clock.SECOND // 2
    samples = [Sample(n * half_s, 1.0 if n < 4 else 0.5, 0, 0) for n in range(8)]
    assert load_line(samples, 20) == "load, max 100%    █▄"
    later = [*samples, Sample(8 * half_s, 0.0, 0, 0)]
    assert load_line(later, 20) == "load, max 100%   █▄ "
    assert len(load_line(samples * 100, 20)) == 20
    assert load_line([Sample(0, None, 0, 0)], 80).startswith("load is not known")
