"""Things to do at given times: what is due together comes together, and nothing drifts."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Final, TypeVar

from canbroker import clock

#: So many at once leave room for progress and for Ctrl-C.
MAX_TOGETHER: Final = 256

_T = TypeVar("_T")


def due_together(items: Iterable[tuple[int, _T]]) -> Iterator[list[_T]]:
    """Yields the items that are due by now, never before their time, in their order.

    :param items: with the nanoseconds from now after which each is due, ascending. Times count
        from the first call on, so that a late one delays none of those after it.
    """
    start_ns = now_ns = clock.monotonic_ns()
    due: list[_T] = []
    for offset_ns, item in items:
        if start_ns + offset_ns > now_ns or len(due) == MAX_TOGETHER:
            if due:
                yield due
                due = []
            now_ns = _sleep_until(start_ns + offset_ns)
        due.append(item)
    if due:
        yield due


def _sleep_until(due_ns: int) -> int:
    """Returns what time it is then."""
    while (now_ns := clock.monotonic_ns()) < due_ns:
        time.sleep((due_ns - now_ns) / clock.SECOND)
    return now_ns
