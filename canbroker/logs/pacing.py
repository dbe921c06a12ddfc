"""Yields items at given times: items that are due together come together, without drift."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final, TypeVar

from canbroker.system import clock

#: This limit leaves time for progress reports and Ctrl-C.
MAX_TOGETHER: Final = 256

#: The system cannot sleep for centuries.
_NAP_S: Final = 3600.0

_T = TypeVar("_T")


class Pace:
    """One clock for items that come in several parts. It starts with the first part."""

    def __init__(self) -> None:
        self._start_ns: int | None = None

    def due_together(self, items: Iterable[tuple[int, _T]]) -> Iterator[list[_T]]:
        """Yields the items that are due, in their order and never before their time.

        :param items: pairs of an offset in nanoseconds, ascending, and the item that is due then.
            Offsets count from the start of the first part, so a late item does not delay others.
        """
        now_ns = clock.monotonic_ns()
        if self._start_ns is None:
            self._start_ns = now_ns
        due: list[_T] = []
        for offset_ns, item in items:
            if self._start_ns + offset_ns > now_ns or len(due) == MAX_TOGETHER:
                if due:
                    yield due
                    due = []
                now_ns = _sleep_until(self._start_ns + offset_ns)
            due.append(item)
        if due:
            yield due

    @contextmanager
    def standing_still(self) -> Iterator[None]:
        """Delays all later items by the time that the block takes."""
        before_ns = clock.monotonic_ns()
        yield
        if self._start_ns is not None:
            self._start_ns += clock.monotonic_ns() - before_ns


def due_together(items: Iterable[tuple[int, _T]]) -> Iterator[list[_T]]:
    """Like :meth:`Pace.due_together`, for items that come in one part."""
    return Pace().due_together(items)


def _sleep_until(due_ns: int) -> int:
    """Sleeps until ``due_ns``; returns the time afterwards."""
    while (now_ns := clock.monotonic_ns()) < due_ns:
        time.sleep(min((due_ns - now_ns) / clock.SECOND, _NAP_S))
    return now_ns
