"""Which part of a log is replayed."""

from __future__ import annotations

import math
from datetime import UTC, datetime

import pytest

from canbroker.logs.timing import MAX_DISORDER_NS
from canbroker.playback.window import Place, Window
from canbroker.system.clock import SECOND

NOON = datetime(2026, 11, 30, 12, tzinfo=UTC)
NOON_NS = round(NOON.timestamp()) * SECOND


def test_without_limits_everything_is_inside() -> None:
    assert Window().place(0, 0) is Place.INSIDE


def test_seconds_count_from_the_first_frame_and_both_ends_are_inside() -> None:
    window = Window(1.5, 3)
    places = [window.place(NOON_NS, round(at * SECOND)) for at in (0, 1.499, 1.5, 3, 3.01)]
    assert places == [Place.BEFORE, Place.BEFORE, Place.INSIDE, Place.INSIDE, Place.AFTER]
    assert window.place(NOON_NS, 3 * SECOND + MAX_DISORDER_NS + 1) is Place.OVER


def test_times_are_compared_with_time_stamps() -> None:
    window = Window(NOON, 10)
    assert window.place(NOON_NS - 1, 0) is Place.BEFORE
    assert window.place(NOON_NS, 0) is Place.INSIDE
    assert window.place(NOON_NS, 11 * SECOND) is Place.OVER
    assert Window(None, NOON).place(NOON_NS + 1, 0) is Place.AFTER


@pytest.mark.parametrize("bad", [-1.0, math.nan, math.inf])
def test_what_is_no_moment(bad: float) -> None:
    with pytest.raises(ValueError, match="start must be a time, or seconds of 0 or above"):
        Window(bad)


def test_an_end_before_the_start() -> None:
    with pytest.raises(ValueError, match=r"the end 1\.0 is before the start 2\.0"):
        Window(2.0, 1.0)
