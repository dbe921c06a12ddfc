from __future__ import annotations

import itertools
import random
import re
from collections.abc import Iterator
from typing import Any

import can
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from canbroker.model.filters import (
    EVERYTHING,
    MAX_FILTERS,
    NOTHING,
    Filter,
    FilterSet,
    parse,
    union,
    validate,
)
from canbroker.model.frame import ERROR, EXTENDED, FD, REMOTE
from canbroker.model.message import Message

EFF = 0x80000000

# Few distinct bits at the places that matter, so that filters meet, overlap and imply each other.
numbers = st.one_of(
    st.integers(0, 0x1FFFFFFF),
    st.lists(st.sampled_from([1, 2, 0x400, 0x800, 1 << 28]), max_size=4).map(sum),
    st.sampled_from([0, 0x7FF, 0x1FFFFFFF, 0x20000000, 0xFFFFFFFF]),
)
choices = st.sampled_from([None, False, True])
filters = st.builds(Filter, numbers, numbers, choices, choices)
filter_lists = st.lists(filters, max_size=6)
entries = st.fixed_dictionaries(
    {"can_id": numbers, "can_mask": numbers}, optional={"extended": choices}
)


@st.composite
def frames_near(draw: st.DrawFn, candidates: list[Filter]) -> tuple[int, int]:
    """An identifier that one of the filters names, or nearly, and flags."""
    flags = draw(st.sampled_from([0, EXTENDED])) | draw(st.sampled_from([0, REMOTE, ERROR, FD]))
    near = draw(st.sampled_from([item.can_id for item in candidates] or [0]))
    flips = draw(st.lists(st.sampled_from([1 << bit for bit in range(29)]), max_size=2))
    for bit in flips:
        near ^= bit
    return near & (0x1FFFFFFF if flags & EXTENDED else 0x7FF), flags


def passes(item: Filter, arbitration_id: int, flags: int) -> bool:
    """One filter by the documented rule, as it is written there."""
    if item.extended is not None and item.extended != bool(flags & EXTENDED):
        return False
    if item.error is not None and item.error != bool(flags & ERROR):
        return False
    return arbitration_id & item.can_mask == item.can_id & item.can_mask


@given(filter_lists, st.booleans(), st.data())
def test_a_set_matches_by_the_documented_rule(
    items: list[Filter], nothing: bool, data: st.DataObject
) -> None:
    built = FilterSet(items, nothing=nothing or bool(items))
    arbitration_id, flags = data.draw(frames_near(items))
    expected = any(passes(item, arbitration_id, flags) for item in items)
    if not items:
        expected = not nothing
    assert built.matches(arbitration_id, flags) == expected
    assert parse(built.text).matches(arbitration_id, flags) == expected


@given(filter_lists, st.booleans())
def test_a_set_survives_its_text(items: list[Filter], nothing: bool) -> None:
    built = FilterSet(items, nothing=nothing)
    read = parse(built.text)
    assert read == built
    assert read.text == built.text
    assert read.filters == built.filters
    assert read.nothing == built.nothing
    assert hash(read) == hash(built)


@given(filter_lists, st.randoms(use_true_random=False), st.data())
def test_equal_sets_have_equal_texts(
    items: list[Filter], shuffler: random.Random, data: st.DataObject
) -> None:
    assume(items)
    other: list[Filter] = []
    for item in items:
        noise = data.draw(st.integers(0, 0x1FFFFFFF)) & ~item.can_mask
        other.append(item._replace(can_id=item.can_id ^ noise))
    other.append(data.draw(st.sampled_from(items)))  # once more
    base = data.draw(st.sampled_from(items))
    narrowed = base.can_mask | data.draw(numbers)  # implied by the one that it narrows
    wanted = (base.can_id & base.can_mask) | (data.draw(numbers) & ~base.can_mask & narrowed)
    other.append(Filter(wanted, narrowed, base.extended, base.error))
    shuffler.shuffle(other)
    one = FilterSet(items, nothing=True)
    assert FilterSet(other, nothing=True).text == one.text
    assert FilterSet(other, nothing=True) == one


@given(st.lists(filters, max_size=12), st.data())
def test_what_is_left_out_passes_nothing_that_the_rest_does_not(
    items: list[Filter], data: st.DataObject
) -> None:
    """The look-up by mask agrees with comparing every filter with every other one."""
    one = FilterSet(items, nothing=True)
    assume(one.filters)
    for left, right in itertools.permutations(one.filters, 2):
        alone = FilterSet([left, right])
        assert len(alone.filters) == 2, "of two that stay, none implies the other"
    arbitration_id, flags = data.draw(frames_near(items))
    assert one.matches(arbitration_id, flags) == any(
        passes(item, arbitration_id, flags) for item in items
    )


def test_long_lists_cost_what_they_hold() -> None:
    """Sets of identifiers are canonical without comparing each with each."""
    ids = [{"can_id": number, "can_mask": 0x1FFFFFFF} for number in range(1024)]
    wanted = validate(ids)
    assert len(wanted.filters) == 1024
    assert validate([*ids[:512], *ids[:512]]) == validate(ids[:512])
    assert union([wanted]) == EVERYTHING, "more than a driver takes"
    assert union([validate(ids[:300]), validate(ids[200:500])]) == validate(ids[:500])


@given(st.lists(filter_lists, max_size=3), st.data())
def test_a_union_passes_what_one_of_them_passes(
    lists: list[list[Filter]], data: st.DataObject
) -> None:
    sets = [FilterSet(items) for items in lists]
    arbitration_id, flags = data.draw(frames_near([item for items in lists for item in items]))
    expected = any(item.matches(arbitration_id, flags) for item in sets)
    assert union(sets).matches(arbitration_id, flags) == expected


def test_unions_at_the_edges() -> None:
    assert union([]) == NOTHING
    assert union([NOTHING, NOTHING]) == NOTHING
    assert union([NOTHING, EVERYTHING]) == EVERYTHING
    assert union([NOTHING, parse("451:7ff")]) == parse("451:7ff")


@pytest.mark.parametrize(
    ("items", "text"),
    [
        ([Filter(0x451, 0x7FF)], "451:7ff"),
        ([Filter(0x0A0000, 0x1FFFFFFF)], "x000a0000:1fffffff"),
        ([Filter(0x451, 0x7FF), Filter(0x0A0000, 0x1FFFFFFF, True)], "451:7ff,x000a0000:1fffffff"),
        ([Filter(0x123, 0x1FFFFFFF, False)], "s123:7ff"),
        ([Filter(0x123, 0x1FFFFFFF)], "00000123:1fffffff"),
        ([Filter(0x123, 0x7FF, True)], "x00000123:000007ff"),
        ([Filter(0, 0, False)], "s"),
        ([Filter(0, 0, None, True)], "!"),
        ([Filter(0, 0, True, False)], "x^"),
        ([Filter(0, 0)], ""),
        ([Filter(1, 1), Filter(0, 0)], ""),
        ([Filter(0x451, 0x7FF, None, True), Filter(0x451, 0x7FF)], "451:7ff"),
        ([Filter(1 << 30, 1 << 30)], "-"),
        ([Filter(0x800, 0x800, False)], "-"),
    ],
)
def test_canonical_texts(items: list[Filter], text: str) -> None:
    assert FilterSet(items, nothing=True).text == text


@pytest.mark.parametrize(
    "text",
    [
        ",",
        "451",
        "451:",
        ":7ff",
        "451:7ff,",
        "451:7FF",
        "y1:2",
        "1:2!^",
        "123456789:0",
        " 1:1",
        "-,1:1",
    ],
)
def test_a_text_that_does_not_parse_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not \[s\|x\]"):
        parse(text)


@given(st.text(alphabet="0123456789abcdefsx:!^,-", max_size=30))
def test_any_text_parses_to_its_canonical_form_or_is_a_value_error(text: str) -> None:
    try:
        read = parse(text)
    except ValueError:
        return
    assert parse(read.text) == read


def test_the_number_of_filters_is_bounded() -> None:
    many = [{"can_id": number, "can_mask": 0x7FF} for number in range(MAX_FILTERS)]
    assert len(validate(many).filters) == MAX_FILTERS
    with pytest.raises(ValueError, match="at most 1024 filters, got 1025"):
        validate([*many, {"can_id": 0, "can_mask": 1 << 28}])
    with pytest.raises(ValueError, match="at most 1024 filters, got 1025"):
        parse(",".join(["1:1"] * (MAX_FILTERS + 1)))


# ------------------------------------------------------------------------- python-can's own view


@pytest.fixture(scope="module")
def virtual_bus() -> Iterator[can.BusABC]:
    with can.Bus(interface="virtual", channel="test_filters", receive_own_messages=True) as bus:
        yield bus


@given(st.lists(entries, max_size=4), st.data())
def test_python_cans_filters_pass_the_same(
    virtual_bus: can.BusABC, given_filters: list[Any], data: st.DataObject
) -> None:
    candidates = [Filter(item["can_id"], item["can_mask"]) for item in given_filters]
    near = [data.draw(frames_near(candidates)) for _ in range(4)]
    usable: list[Any] = [
        # Absent and None mean the same to us; python-can lets no frame pass a None.
        {key: value for key, value in item.items() if value is not None}
        for item in given_filters
    ]
    virtual_bus.set_filters(usable or None)
    built = validate(given_filters)
    for arbitration_id, flags in near:
        message = can.Message(
            arbitration_id=arbitration_id,
            is_extended_id=bool(flags & EXTENDED),
            is_error_frame=bool(flags & ERROR),
            is_remote_frame=bool(flags & REMOTE),
        )
        virtual_bus.send(message)
        received = virtual_bus.recv(0) is not None
        assert built.matches(arbitration_id, flags) == received


@given(st.lists(entries, max_size=5))
def test_can_filters_gives_the_set_back(given_filters: list[Any]) -> None:
    built = validate(given_filters)
    if built != NOTHING:
        assert validate(built.can_filters()) == built


def kernel_passes(can_id: int, can_mask: int, received: int) -> bool:
    """As ``find_rcv_list`` and ``can_rcv_filter`` of ``net/can/af_can.c`` do it."""
    if can_mask & EFF and not can_id & EFF:
        can_mask &= 0x7FF | EFF | 0x40000000
    differs = bool((received ^ can_id) & can_mask & ~0x20000000)
    return differs == bool(can_id & 0x20000000)


flagged_numbers = st.builds(
    lambda number, flags: number | sum(flags),
    numbers.map(lambda number: number & 0x1FFFFFFF),
    st.lists(st.sampled_from([EFF, 0x20000000]), max_size=2, unique=True),
)


@given(flagged_numbers, flagged_numbers, st.sampled_from([None, True]), st.data())
def test_socketcans_flags_mean_what_the_kernel_takes_them_for(
    can_id: int, mask: int, extended: bool | None, data: st.DataObject
) -> None:
    mask &= ~0x20000000
    entry = {"can_id": can_id, "can_mask": mask} | ({"extended": True} if extended else {})
    built = validate([entry], socketcan=True)
    arbitration_id, flags = data.draw(frames_near([Filter(can_id, mask)]))
    flags &= EXTENDED
    if extended:  # as pack_filters of python-can's socketcan
        can_id, mask = can_id | EFF, mask | EFF
    expected = kernel_passes(can_id, mask, arbitration_id | (EFF if flags else 0))
    assert built.matches(arbitration_id, flags) == expected


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"can_id": 0x40000123, "can_mask": 0x400007FF}, "'can_id': 0x123, 'can_mask': 0x7ff}"),
        ({"can_id": 0x123, "can_mask": 0xDFFFFFFF}, "0x1fffffff, 'extended': False}"),
        ({"can_id": 0x123, "can_mask": 0xFFFFFFFF}, "error frames alone"),
        ({"can_id": 0x80000123, "can_mask": 0x7FF, "extended": False}, "11-bit"),
    ],
)
def test_what_socketcan_means_and_filters_cannot_say(entry: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        validate([entry], socketcan=True)


def test_inverted_filters_count_with_all_that_they_stand_for() -> None:
    entry = {"can_id": 0x20000000, "can_mask": 0x1FFFFFFF}
    with pytest.raises(ValueError, match=f"at most {MAX_FILTERS} filters, got 1044: an"):
        validate([entry] * 36, socketcan=True)


def test_none_and_empty_are_everything() -> None:
    assert validate(None) is EVERYTHING
    assert validate([]) == EVERYTHING
    assert EVERYTHING.can_filters() is None
    assert EVERYTHING.matches(0x123, ERROR)
    assert NOTHING.can_filters() == []
    assert not NOTHING.matches(0, 0)
    assert validate([{"can_id": 1 << 30, "can_mask": 1 << 30}]) == NOTHING


@pytest.mark.parametrize(
    ("given_filters", "expected"),
    [
        ("123", "must be a list of dicts"),
        (5, "must be a list of dicts"),
        ({"can_id": 1, "can_mask": 1}, "must be a list of dicts"),
        ([5], r"can_filters\[0\] must be a dict"),
        ([{"can_id": 1, "can_mask": 1}, {"can_id": 1}], r"can_filters\[1\]\['can_mask'\]"),
        ([{"can_id": -1, "can_mask": 1}], r"\['can_id'\] must be 0 to 0xffffffff, got -1"),
        ([{"can_id": 1, "can_mask": 1 << 32}], r"\['can_mask'\]"),
        ([{"can_id": "1", "can_mask": 1}], r"\['can_id'\]"),
        ([{"can_id": True, "can_mask": 1}], r"\['can_id'\]"),
        ([{"can_id": 1, "can_mask": 1, "extended": "yes"}], r"\['extended'\] must be a bool"),
        ([{"can_id": 1, "can_mask": 1, "mask": 1}], "unknown keys: 'mask'"),
    ],
)
def test_validate_names_the_entry(given_filters: Any, expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        validate(given_filters)


def test_a_set_is_taken_as_it_is() -> None:
    errors_only = FilterSet([Filter(0, 0, None, True)])
    assert validate(errors_only) is errors_only


def test_a_repr_shows_the_text() -> None:
    assert repr(parse("451:7ff")) == "<FilterSet 451:7ff>"
    assert repr(EVERYTHING) == "<FilterSet everything>"
    assert FilterSet() != "everything"


def test_a_set_filters_messages_as_users_see_them() -> None:
    message = Message(arbitration_id=0x451, is_extended_id=False)
    built = validate([{"can_id": 0x451, "can_mask": 0x7FF, "extended": False}])
    assert built.matches(message.arbitration_id, 0)
    assert not built.matches(message.arbitration_id, EXTENDED)
