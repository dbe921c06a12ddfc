"""Signals chosen by name, and the filters for their messages."""

from __future__ import annotations

from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canbroker.model.frame import ERROR, EXTENDED, FD, Frame
from canbroker.signals.selection import Selection
from tests.support.databases import CAR_DBC

cantools: Any = pytest.importorskip("cantools", reason="needs the extra signals; make ecosystem")
Decoder: Any = pytest.importorskip("canbroker.signals.decoder").Decoder

_CAR: Final = Decoder.parse(CAR_DBC.encode(), "car.dbc")
_NAMES: Final = [f"{info.message}.{info.name}" for info in _CAR.signals()]
_FRAMES: Final = st.builds(
    Frame,
    st.just(0),
    st.one_of(
        st.sampled_from([0x123, 0x1F4, 0x258, 0x2BC, 0x18FEF1FE]),
        st.integers(0, 255).map(lambda low: 0x0CF00400 | low),
        st.integers(0, 0xFFFF).map(lambda low: 0x18EA0000 | low),
        st.integers(0, 0x1FFFFFFF),
    ),
    st.sampled_from([0, EXTENDED, EXTENDED | FD, ERROR]),
    st.just(b""),
)


@given(st.lists(st.sampled_from(_NAMES), min_size=1), _FRAMES)
def test_the_filters_pass_exactly_the_frames_of_the_messages(
    names: list[str], frame: Frame
) -> None:
    selection = Selection(_CAR, names)
    if not frame.flags & EXTENDED:
        frame.arbitration_id &= 0x7FF
    message = _CAR.name_of(frame)
    wanted = message in {name.partition(".")[0] for name in names}
    assert selection.filters.matches(frame.arbitration_id, frame.flags) == wanted


def test_without_names_all_signals_are_chosen() -> None:
    assert {".".join(key) for key in Selection(_CAR).keys} == set(_NAMES)


def test_no_names_choose_nothing() -> None:
    assert Selection(_CAR, []).filters.nothing


def test_a_database_with_very_many_messages_gets_one_filter() -> None:
    def message(number: int) -> Any:
        signal = cantools.database.Signal("Level", 0, 8)
        return cantools.database.Message(number, f"M{number}", 1, [signal])

    selection = Selection(Decoder("many", [message(number) for number in range(1025)]))
    assert selection.filters.matches(0x7FF, 0)
    assert not selection.filters.matches(0x7FF, ERROR)
    assert len(selection.filters.filters) == 1


def test_signals_of_a_container_have_short_names_and_long_ones() -> None:
    signal = cantools.database.Signal("Level", 0, 8)
    inner = cantools.database.Message(1, "Tank", 1, [signal], header_id=1)
    many = cantools.database.Message(0x300, "Many", 64, [], contained_messages=[inner], is_fd=True)
    selection = Selection(Decoder("car", [many]), ["Level"])
    for name in ("Level", "Tank.Level", "Many.Tank.Level"):
        assert selection.key(name) == ("Many", "Tank.Level")
