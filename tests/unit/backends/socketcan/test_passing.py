"""What the kernel's filter is told."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from canbroker.backends.socketcan.passing import (
    MAX_ENTRIES,
    Entries,
    PassList,
    kernel_entries,
    pack_entries,
)
from canbroker.model.filters import EVERYTHING, NOTHING, Filter, FilterSet, parse
from canbroker.model.frame import EXTENDED

EFF = 0x80000000


def kernel_passes(entries: Entries, can_id: int) -> bool:
    """As ``Documentation/networking/can.rst`` defines it."""
    return any(can_id & mask == wanted & mask for wanted, mask in entries)


ids = st.integers(0, 0x1FFFFFFF) | st.integers(0, 0x7FF)
filters = st.builds(Filter, ids, ids, st.sampled_from([None, False, True]))
filter_sets = st.lists(filters, max_size=6).map(lambda some: FilterSet(some, nothing=True))


@given(filter_sets, ids, st.booleans())
def test_the_kernel_passes_what_the_set_passes(
    wanted: FilterSet, number: int, extended: bool
) -> None:
    extended = extended or number > 0x7FF
    assert kernel_passes(
        kernel_entries(wanted), number | (EFF if extended else 0)
    ) == wanted.matches(number, EXTENDED if extended else 0)


def test_everything_nothing_and_only_error_frames() -> None:
    assert kernel_entries(EVERYTHING) == ((0, 0),)
    assert kernel_entries(NOTHING) == ()
    assert kernel_entries(parse("!")) == ()
    assert kernel_passes(kernel_entries(parse("^")), 0x123)


def test_entries_are_packed_as_pairs_in_the_byte_order_of_the_machine() -> None:
    packed = pack_entries(((0x123, 0x7FF), (1 | EFF, 3 | EFF)))
    numbers = memoryview(packed).cast("I").tolist()
    assert numbers == [0x123, 0x7FF, 1 | EFF, 3 | EFF]
    assert pack_entries(()) == b""


def test_what_is_sent_passes_too_in_its_format_alone() -> None:
    passing = PassList()
    passing.want(parse("s100:7ff"), ())
    assert passing.admit({0x200})
    assert kernel_passes(passing.entries, 0x200)
    assert kernel_passes(passing.entries, 0x200 | 0x40000000), "as a remote frame too"
    assert not kernel_passes(passing.entries, 0x200 | EFF)
    assert not kernel_passes(passing.entries, 0x201)
    assert passing.admit({0x12345678 | EFF})
    assert kernel_passes(passing.entries, 0x12345678 | EFF)


def test_what_passes_anyway_changes_nothing() -> None:
    passing = PassList()
    assert not passing.admit({1, 2, 3})
    passing.want(parse("s100:700"), ())
    assert not passing.admit({0x123})
    assert passing.admit({0x200})
    assert not passing.admit({0x200})


def test_a_new_want_keeps_what_is_under_way_alone() -> None:
    passing = PassList()
    passing.want(NOTHING, ())
    passing.admit({1, 2})
    passing.want(NOTHING, {2})
    assert not kernel_passes(passing.entries, 1)
    assert kernel_passes(passing.entries, 2)
    passing.want(EVERYTHING, {2})
    assert passing.entries == ((0, 0),)


def test_too_many_for_the_kernel_pass_everything() -> None:
    passing = PassList()
    passing.want(NOTHING, ())
    passing.admit(range(MAX_ENTRIES))
    assert len(passing.entries) == MAX_ENTRIES
    passing.admit({MAX_ENTRIES})
    assert kernel_passes(passing.entries, 0x7FF)
    passing.want(NOTHING, ())
    assert len(passing.entries) == 0
