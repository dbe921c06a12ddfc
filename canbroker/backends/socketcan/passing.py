"""The kernel's filter: the frames that clients want, and those that this socket has sent.

A raw socket's filter holds for its own frames as well, and they confirm transmits. So every
identifier that is sent passes too, from before it is written.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Final

from canbroker.backends.socketcan.codec import CAN_EFF_FLAG, CAN_EFF_MASK, CAN_SFF_MASK
from canbroker.model.filters import EVERYTHING, FilterSet
from canbroker.model.frame import EXTENDED

#: CAN_RAW_FILTER_MAX (linux/can/raw.h)
MAX_ENTRIES: Final = 512
#: Identifiers that are remembered to pass; 2^29 are possible.
_MAX_KNOWN: Final = 65_536

_ENTRY = struct.Struct("=II")  # struct can_filter: can_id, can_mask
Entries = tuple[tuple[int, int], ...]

_ALL: Final[Entries] = ((0, 0),)


def kernel_entries(filters: FilterSet) -> Entries:
    """``(can_id, can_mask)`` pairs that pass whatever the set passes, error frames apart.

    Error frames have a filter of their own (CAN_RAW_ERR_FILTER). No entry passes no frame.
    """
    if not filters.filters:
        return () if filters.nothing else _ALL
    return tuple(
        (item.can_id, item.can_mask)
        if item.extended is None
        else (item.can_id | (CAN_EFF_FLAG if item.extended else 0), item.can_mask | CAN_EFF_FLAG)
        for item in filters.filters
        if item.error is not True
    )


def pack_entries(entries: Entries) -> bytes:
    """The value of the socket option CAN_RAW_FILTER."""
    return b"".join(_ENTRY.pack(*entry) for entry in entries)


class PassList:
    """Keeps the entries that the kernel should have. Not thread-safe: guarded by its owner.

    When they do not fit the kernel everything passes, and the routes filter alone.
    """

    def __init__(self) -> None:
        self.entries = _ALL
        self._wanted = EVERYTHING
        self._known: set[int] = set()  # identifiers (CAN_EFF_FLAG) that pass, wanted or not

    def want(self, filters: FilterSet, sent: Iterable[int]) -> None:
        """Replaces the wanted filters; of the sent identifiers, only ``sent`` still pass."""
        self._wanted = filters
        self._known = set()
        self.entries = _fitting(kernel_entries(filters))
        self.admit(sent)

    def admit(self, can_ids: Iterable[int]) -> bool:
        """Lets these identifiers pass, too; returns whether :attr:`entries` have changed."""
        if self.entries == _ALL:
            return False
        new = sorted(set(can_ids) - self._known)
        self._known.update(new)
        unwanted = tuple(
            (can_id, CAN_EFF_FLAG | (CAN_EFF_MASK if can_id & CAN_EFF_FLAG else CAN_SFF_MASK))
            for can_id in new
            if not self._is_wanted(can_id)
        )
        before = self.entries
        self.entries = _ALL if len(self._known) > _MAX_KNOWN else _fitting(before + unwanted)
        return self.entries != before

    def _is_wanted(self, can_id: int) -> bool:
        flags = EXTENDED if can_id & CAN_EFF_FLAG else 0
        return self._wanted.matches(can_id & CAN_EFF_MASK, flags)


def _fitting(entries: Entries) -> Entries:
    return entries if len(entries) <= MAX_ENTRIES else _ALL
