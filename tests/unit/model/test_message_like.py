"""Message beside python-can's, for arguments of any kind: same values, or the same exception."""

from __future__ import annotations

import copy
import itertools
import math
import pickle
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

import can
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from canbroker.model.message import Message

#: How long an example takes says something of the machine only.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

ATTRIBUTES = sorted(set(Message.__slots__) - {"__weakref__"})

#: What it raises is said by its class; the texts are each one's own.
Outcome = tuple[str, Any]

numbers = st.one_of(
    st.sampled_from([0, 1, -1, 0x7FF, 0x800, 0x1FFFFFFF, 0x20000000, 8, 9, 64, 65]),
    st.integers(-(2**40), 2**40),
    st.floats(),
    st.booleans(),
    st.fractions(),
    st.decimals(allow_nan=False),
)
anything = st.one_of(numbers, st.none(), st.text(max_size=3), st.binary(max_size=3))
truths = st.one_of(st.booleans(), st.sampled_from([None, 0, 1, "", "x", (), 2.5]))
payloads = st.one_of(
    st.none(),
    st.binary(max_size=9),
    st.binary(min_size=60, max_size=66),
    st.text(max_size=3),
    st.lists(st.one_of(st.integers(-1, 256), st.none(), st.text(max_size=1)), max_size=9),
    st.binary(max_size=9).map(bytearray),
    st.integers(-1, 70),
    st.floats(),
    st.binary(max_size=9).map(tuple),
    st.just("abcdefgh").map(str.encode),
)
channels = st.one_of(st.none(), st.integers(), st.text(), st.tuples(st.integers()), st.floats())
arguments = st.fixed_dictionaries(
    {},
    optional={
        "timestamp": st.one_of(anything, st.floats(0, 4e9)),
        "arbitration_id": st.one_of(anything, st.integers(0, 0x1FFFFFFF)),
        "is_extended_id": truths,
        "is_remote_frame": truths,
        "is_error_frame": truths,
        "channel": channels,
        "dlc": st.one_of(anything, st.integers(0, 64)),
        "data": payloads,
        "is_fd": truths,
        "is_rx": truths,
        "bitrate_switch": truths,
        "error_state_indicator": truths,
        "check": truths,
    },
)
#: Such as exist more often than not.
sound = st.fixed_dictionaries(
    {"data": st.one_of(st.none(), st.binary(max_size=8))},
    optional={
        "timestamp": st.floats(0, 4e9),
        "arbitration_id": st.integers(0, 0x7FF),
        "is_extended_id": st.booleans(),
        "is_remote_frame": st.booleans(),
        "is_fd": st.booleans(),
        "bitrate_switch": st.booleans(),
        "is_rx": st.booleans(),
        "channel": channels,
    },
)


def outcome(call: Callable[[], Any]) -> Outcome:
    """What a call returns, or the class of what it raises."""
    try:
        return "returned", call()
    except Exception as error:  # noqa: BLE001 - whatever it is, it is compared
        return "raised", type(error)


def attributes(message: Any) -> str:
    """As a text, because NaN differs from itself."""
    return repr({name: getattr(message, name) for name in ATTRIBUTES})


def made(cls: type, given_arguments: dict[str, Any]) -> Outcome:
    return outcome(lambda: cls(**copy.deepcopy(given_arguments)))


def pair(given_arguments: dict[str, Any]) -> tuple[Message, can.Message] | None:
    """Both messages, ``None`` if no such one can be made, by neither."""
    (ours_did, ours), (theirs_did, theirs) = (
        made(cls, given_arguments) for cls in (Message, can.Message)
    )
    assert ours_did == theirs_did, (ours, theirs)
    if ours_did == "raised":
        assert ours == theirs
        return None
    return ours, theirs


def comparisons(ours: Any, our_other: Any, theirs: Any, their_other: Any) -> None:
    """Both say the same of their two messages, under all options."""
    for delta, channel, direction in itertools.product(
        (None, 0.0, 1e-6, 10, math.inf, math.nan, -1), (True, False), (True, False)
    ):
        options = (delta, channel, direction)
        expected = outcome(lambda options=options: theirs.equals(their_other, *options))  # type: ignore[misc]
        assert outcome(lambda options=options: ours.equals(our_other, *options)) == expected  # type: ignore[misc]
    assert outcome(lambda: ours.equals(our_other)) == outcome(lambda: theirs.equals(their_other))


either = st.one_of(arguments, sound, sound.map(lambda some: some | {"check": True}))


@unhurried
@given(either)
def test_construction_and_errors(given_arguments: dict[str, Any]) -> None:
    both = pair(given_arguments)
    if both is not None:
        ours, theirs = both
        assert attributes(ours) == attributes(theirs)
        assert type(ours.data) is bytearray
        assert list(ours.data) == list(theirs.data)


@unhurried
@given(either)
def test_texts_lengths_and_bytes(given_arguments: dict[str, Any]) -> None:
    both = pair(given_arguments)
    if both is None:
        return
    asked: tuple[Callable[[Any], Any], ...] = (
        *(str, repr, format, len, bytes, bool),
        lambda message: f"{message!s:>300}",
        lambda message: format(message, ">10"),
        iter,
    )
    for ask in asked:
        ours, theirs = (outcome(lambda ask=ask, one=one: ask(one)) for one in both)  # type: ignore[misc]
        assert ours == theirs


@unhurried
@given(either, either, st.data())
def test_equality(first: dict[str, Any], second: dict[str, Any], data: st.DataObject) -> None:
    changed = data.draw(st.sampled_from([None, *second]))
    other = first if changed is None else first | {changed: second[changed]}
    one, two = pair(first), pair(other)
    if one is None or two is None:
        return
    comparisons(one[0], two[0], one[1], two[1])
    comparisons(one[0], one[0], one[1], one[1])
    comparisons(one[0], two[1], one[1], two[0])  # with the other's messages, too
    assert one[0] != two[0]
    assert hash(one[0]) == object.__hash__(one[0])


@unhurried
@given(either, st.sampled_from([None, 5, "x", object()]))
def test_equality_with_what_is_no_message(given_arguments: dict[str, Any], other: Any) -> None:
    both = pair(given_arguments)
    if both is not None:
        comparisons(both[0], other, both[1], other)


@unhurried
@given(either)
def test_copies_and_pickles(given_arguments: dict[str, Any]) -> None:
    both = pair(given_arguments)
    if both is None:
        return
    copiers: list[Callable[[Any], Any]] = [copy.copy, copy.deepcopy]
    copiers += [
        lambda message, protocol=protocol: pickle.loads(pickle.dumps(message, protocol))  # type: ignore[misc]  # noqa: S301
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
    ]
    for copier in copiers:
        (ours_did, ours), (theirs_did, theirs) = (
            outcome(lambda copier=copier, one=one: copier(one))  # type: ignore[misc]
            for one in both
        )
        assert ours_did == theirs_did
        if ours_did == "returned":
            assert type(ours) is Message
            assert attributes(ours) == attributes(theirs) == attributes(both[0])
            assert ours is not both[0]
        else:
            assert ours == theirs


@unhurried
@given(sound, st.sampled_from(ATTRIBUTES), st.one_of(anything, payloads))
def test_attributes_that_are_changed_later(
    given_arguments: dict[str, Any], name: str, value: Any
) -> None:
    both = pair(given_arguments)
    assert both is not None
    for message in both:
        setattr(message, name, copy.deepcopy(value))
    if name == "data" and not isinstance(value, (bytes, bytearray)):
        return  # it is always a bytearray by the documentation; no text is promised for others
    # No copies: python-can makes them by its constructor, which changes what was put in later.
    asked: tuple[Callable[[Any], Any], ...] = (str, repr, len, bytes)
    for ask in asked:
        ours, theirs = (outcome(lambda ask=ask, one=one: ask(one)) for one in both)  # type: ignore[misc]
        assert ours == theirs


@pytest.mark.parametrize(
    "given_arguments",
    [
        {"timestamp": math.nan},
        {"timestamp": Decimal("1.5"), "check": True},
        {"timestamp": Fraction(1, 3), "check": True},
        {"timestamp": Decimal("-Infinity"), "check": True},
        {"arbitration_id": 5000.5, "check": True},
        {"arbitration_id": 2.0, "check": True},
        {"dlc": 2.0, "data": b"ab", "check": True},
        {"dlc": 0.5},
        {"unknown": 1},
    ],
)
def test_odd_ones_that_are_seldom_made_up(given_arguments: dict[str, Any]) -> None:
    both = pair(given_arguments)
    if both is not None:
        comparisons(both[0], both[0], both[1], both[1])
        for ask in (str, repr, len):
            ours, theirs = (outcome(lambda ask=ask, one=one: ask(one)) for one in both)  # type: ignore[misc]
            assert ours == theirs
