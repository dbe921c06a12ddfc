"""Things to do at given times: what is due together comes together, and nothing drifts."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final, TypeVar

from canbroker.system import clock

#: So many at once leave room for progress and for Ctrl-C.
MAX_TOGETHER: Final = 256

#: The system cannot sleep for centuries.
_NAP_S: Final = 3600.0

_T = TypeVar("_T")


class Pace:
    """One clock for items that come in several parts. Its time begins with the first part."""

    def __init__(self) -> None:
        self._start_ns: int | None = None

    def due_together(self, items: Iterable[tuple[int, _T]]) -> Iterator[list[_T]]:
        """Yields the items that are due by now, never before their time, in their order.

        :param items: with the nanoseconds after which each is due, ascending. They count from
            the beginning of the first part, so that a late item delays none of those after it.
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
        """Delays all that comes later by what is done meanwhile."""
        before_ns = clock.monotonic_ns()
        yield
        if self._start_ns is not None:
            self._start_ns += clock.monotonic_ns() - before_ns


def due_together(items: Iterable[tuple[int, _T]]) -> Iterator[list[_T]]:
    """As :meth:`Pace.due_together`, for items that come in one part."""
    return Pace().due_together(items)


def _sleep_until(due_ns: int) -> int:
    """Returns what time it is then."""
    while (now_ns := clock.monotonic_ns()) < due_ns:
        time.sleep(min((due_ns - now_ns) / clock.SECOND, _NAP_S))
    return now_ns
