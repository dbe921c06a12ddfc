"""Several requests for one gap at a time, whose answers are used in order."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from canbroker.delivery.order import Gap
from canbroker.delivery.window import FAR_AT_ONCE, Stretch, Window
from canbroker.wire.replay import MAX_REPLAYED, Replayed, encode_frames

NOTHING = encode_frames([])


def ask(window: Window, first_number: int = 1) -> list[Stretch]:
    """Asks for everything that is wanted, with numbers from ``first_number`` on."""
    asked: list[Stretch] = []
    while (wanted := window.wanted()) is not None:
        window.asked(first_number + len(asked), wanted)
        asked.append(wanted)
    return asked


def answer(window: Window, numbers: Iterable[int]) -> None:
    for number in numbers:
        window.answered(number, Replayed(number, True, NOTHING))


def taken(window: Window) -> list[int]:
    """Which stretches have their answer's turn, by their first numbers."""
    firsts: list[int] = []
    while (found := window.take()) is not None:
        firsts.append(found[0].first)
    return firsts


def test_near_by_the_whole_gap_is_asked_for_at_once() -> None:
    window = Window()
    assert window.turn_to(Gap(1, 5, 100_000))
    assert ask(window) == [Stretch(5, 100_000)]


def test_far_away_many_parts_are_asked_for_at_once() -> None:
    window = Window(FAR_AT_ONCE)
    window.turn_to(Gap(1, 0, 100_000))
    asked = ask(window)
    assert len(asked) == FAR_AT_ONCE
    assert asked[:2] == [Stretch(0, MAX_REPLAYED), Stretch(MAX_REPLAYED, 2 * MAX_REPLAYED)]
    assert ask(window) == []


def test_the_last_part_ends_with_the_gap() -> None:
    window = Window(FAR_AT_ONCE)
    window.turn_to(Gap(1, 10, 300))
    assert ask(window) == [Stretch(10, 10 + MAX_REPLAYED), Stretch(10 + MAX_REPLAYED, 300)]


def test_the_rest_of_an_epoch_is_asked_for_in_one_request() -> None:
    window = Window(FAR_AT_ONCE)
    window.turn_to(Gap(1, 10, None))
    assert ask(window) == [Stretch(10, None)]


def test_answers_are_used_in_order() -> None:
    window = Window(FAR_AT_ONCE)
    window.turn_to(Gap(1, 0, 3 * MAX_REPLAYED))
    ask(window)
    answer(window, [3, 2])
    assert taken(window) == []
    answer(window, [1])
    assert taken(window) == [0, MAX_REPLAYED, 2 * MAX_REPLAYED]


def test_an_answer_makes_room_for_the_next_request() -> None:
    window = Window(2)
    gap = Gap(1, 0, 10 * MAX_REPLAYED)
    window.turn_to(gap)
    ask(window)
    answer(window, [1])
    assert taken(window) == [0]
    assert window.turn_to(msgspec.structs.replace(gap, first=MAX_REPLAYED))
    assert ask(window, 3) == [Stretch(2 * MAX_REPLAYED, 3 * MAX_REPLAYED)]
    assert window.is_awaited(2), "what is under way is still expected"


def test_after_half_an_answer_everything_is_asked_for_anew() -> None:
    window = Window(2)
    gap = Gap(1, 0, 10 * MAX_REPLAYED)
    window.turn_to(gap)
    ask(window)
    answer(window, [1])
    taken(window)
    assert window.turn_to(msgspec.structs.replace(gap, first=100))
    assert not window.is_awaited(2)
    assert ask(window, 3)[0] == Stretch(100, 100 + MAX_REPLAYED)


def test_another_gap_has_nothing_to_do_with_the_requests_under_way() -> None:
    window = Window(2)
    window.turn_to(Gap(1, 0, 1_000))
    ask(window)
    window.turn_to(Gap(1, 2_000, 2_010))
    assert not window.is_awaited(1)
    assert ask(window, 3) == [Stretch(2_000, 2_010)]


def test_what_was_lost_is_asked_for_again() -> None:
    window = Window(2)
    window.turn_to(Gap(1, 0, 1_000))
    before = ask(window)
    window.restart()
    assert ask(window, 3) == before
    assert not window.is_awaited(1)
