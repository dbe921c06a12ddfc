"""Filter sets: validation, canonical text, matching.

A filter is what python-can documents: ``can_id``, ``can_mask`` and optionally ``extended``. A
frame passes when ``frame_id & can_mask == can_id & can_mask`` and, if ``extended`` is given, its
format is that one. A set passes a frame if one of its filters does; an empty set passes all.

The text form is the part of a topic that clients subscribe to (``docs/protocol.md``)::

    451:7ff,x000a0000:1fffffff

An entry is ``[s|x][id:mask][!|^]``: ``s`` 11-bit frames only, ``x`` 29-bit only, ``!`` error
frames only, ``^`` no error frames. ``id:mask`` is left out when every identifier passes, and
``-`` is the set that passes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple, TypeAlias

from canbroker.model.frame import ERROR, EXTENDED, MAX_EXTENDED_ID, MAX_STANDARD_ID
from canbroker.model.plain_numbers import plain

MAX_FILTERS: Final = 1024
MAX_DRIVER_FILTERS: Final = 512  # CAN_RAW_FILTER_MAX of linux/can/raw.h

# linux/can.h, in identifier and mask of a kernel's filter.
_EFF_FLAG: Final = 0x80000000
_RTR_FLAG: Final = 0x40000000
_ERR_FLAG: Final = 0x20000000  # in a mask
_INV_FILTER: Final = 0x20000000  # in an identifier

CanFilters: TypeAlias = "Iterable[Mapping[str, Any]] | FilterSet | None"

NOTHING_TEXT: Final = "-"

_ENTRY: Final = r"([sx]?)(?:([0-9a-f]{1,8}):([0-9a-f]{1,8}))?([!^]?)"
_FORMATS: dict[str, bool | None] = {"": None, "s": False, "x": True}
_KINDS: dict[str, bool | None] = {"": None, "^": False, "!": True}


class Filter(NamedTuple):
    """One filter, normalised: bits outside the mask are cleared.

    ``extended`` and ``error`` are ``None`` where either kind of frame passes.
    """

    can_id: int
    can_mask: int
    extended: bool | None = None
    error: bool | None = None

    def matches(self, arbitration_id: int, flags: int) -> bool:
        return (
            (arbitration_id ^ self.can_id) & self.can_mask == 0
            and (self.extended is None or self.extended == bool(flags & EXTENDED))
            and (self.error is None or self.error == bool(flags & ERROR))
        )

    def text(self) -> str:
        kind = {None: "", False: "^", True: "!"}[self.error]
        frame_format = {None: "", False: "s", True: "x"}[self.extended]
        if not self.can_mask:
            return f"{frame_format}{kind}"
        wide = self.extended or (self.can_id | self.can_mask) > MAX_STANDARD_ID
        digits = 8 if wide else 3
        return f"{frame_format}{self.can_id:0{digits}x}:{self.can_mask:0{digits}x}{kind}"

    def fixed_bits(self) -> int:
        """Identifier bits that are the same in every frame that passes."""
        if self.extended is False:  # an 11-bit identifier has zeros above
            return self.can_mask | (MAX_EXTENDED_ID & ~MAX_STANDARD_ID)
        return self.can_mask


def _without_implied(filters: set[Filter]) -> set[Filter]:
    """The filters that no other one makes superfluous by passing all that they pass.

    Filters of one mask are looked up together: lists of identifiers, the usual long sets, cost
    a look-up a filter instead of a comparison with every other one.
    """
    identifiers: dict[tuple[int, bool | None, bool | None], set[int]] = {}
    for can_id, can_mask, extended, error in filters:
        identifiers.setdefault((can_mask, extended, error), set()).add(can_id)

    def implied(item: Filter) -> bool:
        fixed = item.fixed_bits()
        return any(
            (extended is None or extended == item.extended)
            and (error is None or error == item.error)
            and not can_mask & ~fixed
            and item.can_id & can_mask in ids
            and item != (item.can_id & can_mask, can_mask, extended, error)
            for (can_mask, extended, error), ids in identifiers.items()
        )

    return {item for item in filters if not implied(item)}


class FilterSet:
    """An immutable, canonical set of filters. Equal texts are equal sets."""

    __slots__ = ("filters", "nothing", "text")

    def __init__(self, filters: Iterable[Filter] = (), *, nothing: bool = False) -> None:
        """``filters`` may repeat and imply each other; ``nothing`` makes an empty one pass none."""
        candidates = {normal for item in filters if (normal := _normalise(item)) is not None}
        kept = _without_implied(candidates)
        self.nothing = nothing and not kept
        if Filter(0, 0) in kept:
            kept.clear()  # one that passes everything makes the set the empty one
        self.filters = tuple(sorted(kept, key=Filter.text))
        self.text = NOTHING_TEXT if self.nothing else ",".join(map(Filter.text, self.filters))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FilterSet) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)

    def __repr__(self) -> str:
        return f"<FilterSet {self.text or 'everything'}>"

    def matches(self, arbitration_id: int, flags: int) -> bool:
        if not self.filters:
            return not self.nothing
        return any(item.matches(arbitration_id, flags) for item in self.filters)

    def can_filters(self) -> list[dict[str, int | bool]] | None:
        """The set as python-can writes it; ``None`` is everything."""
        if not self.filters and not self.nothing:
            return None
        return [
            {"can_id": item.can_id, "can_mask": item.can_mask}
            | ({} if item.extended is None else {"extended": item.extended})
            for item in self.filters
        ]


EVERYTHING: Final = FilterSet()
NOTHING: Final = FilterSet(nothing=True)


def listed(can_filters: CanFilters) -> list[Mapping[str, Any]] | FilterSet | None:
    """The same, in a form that can be looked at more than once.

    :raises ValueError: it is not a list of dicts, or too long.
    """
    if can_filters is None or isinstance(can_filters, FilterSet):
        return can_filters
    if isinstance(can_filters, (str, bytes, Mapping)):
        raise ValueError(f"can_filters must be a list of dicts, got {can_filters!r}")
    try:
        entries = list(can_filters)
    except TypeError:
        raise ValueError(f"can_filters must be a list of dicts, got {can_filters!r}") from None
    if len(entries) > MAX_FILTERS:
        raise ValueError(f"at most {MAX_FILTERS} filters, got {len(entries)}")
    return entries


def validate(can_filters: CanFilters, *, socketcan: bool = False) -> FilterSet:
    """The set that python-can's ``can_filters`` describe; ``None`` or empty is everything.

    A :class:`FilterSet`, which can say more than they can, is taken as it is. With ``socketcan``
    the bits above the identifier are the flags of ``linux/can.h``, which python-can's socketcan
    hands to the kernel; elsewhere no identifier has them.

    :raises ValueError: names the entry and what is wrong with it.
    """
    entries = listed(can_filters)
    if entries is None:
        return EVERYTHING
    if isinstance(entries, FilterSet):
        return entries
    filters = [_entry(index, entry) for index, entry in enumerate(entries)]
    if socketcan:
        flagged = enumerate(filters)
        filters = [meant for index, item in flagged for meant in _without_flags(index, item)]
        if len(filters) > MAX_FILTERS:
            raise ValueError(
                f"at most {MAX_FILTERS} filters, got {len(filters)}: an inverted one counts as one"
                " for each bit of its mask"
            )
    return FilterSet(filters, nothing=bool(entries))


def parse(text: str) -> FilterSet:
    """The set that a text form describes, canonical or not.

    :raises ValueError: names the entry that does not parse.
    """
    if text == "":
        return EVERYTHING
    if text == NOTHING_TEXT:
        return NOTHING
    entries = text.split(",")
    if len(entries) > MAX_FILTERS:
        raise ValueError(f"at most {MAX_FILTERS} filters, got {len(entries)}")
    return FilterSet(map(_parse_entry, entries), nothing=True)


def union(sets: Iterable[FilterSet]) -> FilterSet:
    """The set that passes whatever one of ``sets`` passes, or everything if that is too long.

    For drivers that filter, and none of them takes more than :data:`MAX_DRIVER_FILTERS`.
    """
    filters: set[Filter] = set()
    for item in sets:
        filters.update(item.filters)
        everything = not item.filters and not item.nothing
        if everything or len(filters) > MAX_DRIVER_FILTERS:
            return EVERYTHING
    return FilterSet(filters, nothing=True)


def _entry(index: int, entry: object) -> Filter:
    if not isinstance(entry, Mapping):
        raise ValueError(f"can_filters[{index}] must be a dict, got {entry!r}")
    unknown = set(entry) - {"can_id", "can_mask", "extended"}
    if unknown:
        names = ", ".join(sorted(map(repr, unknown)))
        raise ValueError(f"can_filters[{index}] has unknown keys: {names}")
    numbers = []
    for key in ("can_id", "can_mask"):
        value = plain(entry.get(key))
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 32:
            raise ValueError(
                f"can_filters[{index}][{key!r}] must be 0 to 0xffffffff, got {value!r}"
            )
        numbers.append(value)
    extended = plain(entry.get("extended"))
    if extended is not None and not isinstance(extended, (bool, int)):
        raise ValueError(f"can_filters[{index}]['extended'] must be a bool, got {extended!r}")
    return Filter(numbers[0], numbers[1], None if extended is None else bool(extended))


def _without_flags(index: int, item: Filter) -> list[Filter]:
    """What the kernel takes an entry for, as ``Documentation/networking/can.rst`` and
    ``net/can/af_can.c`` (find_rcv_list) say."""
    can_id, can_mask, extended, _ = item
    wanted = can_id & can_mask & MAX_EXTENDED_ID
    if can_mask & _EFF_FLAG or extended is not None:
        flagged = bool(can_id & _EFF_FLAG)
        if extended is False and flagged:
            raise ValueError(
                f"can_filters[{index}] asks for 29-bit identifiers (can_id {can_id:#x}) and with"
                " extended=False for 11-bit ones"
            )
        extended = flagged or bool(extended)
    say = f"{{'can_id': {wanted:#x}, 'can_mask': {can_mask & MAX_EXTENDED_ID:#x}"
    say += "}" if extended is None else f", 'extended': {extended}}}"
    if can_mask & _ERR_FLAG:
        raise ValueError(
            f"can_filters[{index}]: SocketCAN takes can_mask {can_mask:#x} for one of error frames"
            f" alone, by its bit 0x20000000; for identifiers say {say}"
        )
    if can_mask & _RTR_FLAG:
        raise ValueError(
            f"can_filters[{index}]: can_mask {can_mask:#x} tells remote frames from data frames"
            f" (0x40000000), which filters here cannot; for both say {say}"
        )
    can_mask &= MAX_EXTENDED_ID if extended is not False else MAX_STANDARD_ID
    if can_id & _INV_FILTER:
        return _inverted(can_id, can_mask, extended)
    return [Filter(can_id & can_mask, can_mask, extended)]


def _inverted(can_id: int, can_mask: int, extended: bool | None) -> list[Filter]:
    """The filters that together pass what differs from ``can_id`` in a bit of ``can_mask``, or, if
    ``extended`` is given, in its format."""
    bits = (1 << index for index in range(can_mask.bit_length()) if can_mask >> index & 1)
    differs = [Filter(~can_id & bit, bit) for bit in bits]
    if extended is not None:
        differs.append(Filter(0, 0, not extended))
    return differs


def _parse_entry(text: str) -> Filter:
    match = re.fullmatch(_ENTRY, text)
    if match is None or not text:
        raise ValueError(f"filter {text!r} is not [s|x][id:mask][!|^] in lower-case hexadecimal")
    frame_format, can_id, can_mask, kind = match.groups()
    return Filter(
        int(can_id or "0", 16), int(can_mask or "0", 16), _FORMATS[frame_format], _KINDS[kind]
    )


def _normalise(item: Filter) -> Filter | None:
    """The filter with nothing in it that does not matter; ``None`` if no frame can pass it."""
    can_id, can_mask, extended, error = item
    can_id &= can_mask
    if can_id > MAX_EXTENDED_ID:
        return None  # asks for identifier bits that no frame has
    can_mask &= MAX_EXTENDED_ID
    if can_id > MAX_STANDARD_ID:
        if extended is False:
            return None
        extended = True  # no 11-bit identifier has these bits
    if extended is False:
        can_mask &= MAX_STANDARD_ID
    return Filter(can_id, can_mask, extended, error)
