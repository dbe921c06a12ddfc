"""Limits log lines that a noisy bus can cause a thousand times a second."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from typing import Final

from canbroker.system import clock

#: Characters of a detail, which may quote a peer's message.
_SHOWN: Final = 200


class Throttle:
    """Counts every event of every kind; logs each kind at most once per ``interval_s``.

    One thread. ``counts`` is exact, whatever was logged.
    """

    def __init__(self, logger: logging.Logger, interval_s: float = 1.0) -> None:
        self.counts: Counter[str] = Counter()
        self._logger = logger
        self._interval_ns = int(interval_s * clock.SECOND)
        self._last: dict[str, tuple[int, int]] = {}  # kind -> (logged at, count then)

    def note(
        self,
        kind: str,
        detail: str,
        level: int = logging.WARNING,
        error: BaseException | None = None,
    ) -> None:
        """Counts one event; logs it with ``detail`` if its kind was not logged for an interval.

        The traceback of ``error`` is logged, too.
        """
        self.counts[kind] += 1
        now = clock.monotonic_ns()
        at, counted = self._last.get(kind, (now - self._interval_ns, 0))
        if now - at < self._interval_ns:
            return
        more = self.counts[kind] - counted - 1
        self._last[kind] = (now, self.counts[kind])
        suffix = f" (and {more} more since the last report)" if more else ""
        if len(detail) > _SHOWN:
            detail = f"{detail[:_SHOWN]}…"
        self._logger.log(level, "%s: %s%s", kind, detail, suffix, exc_info=error)


class ForeignRecords(logging.Filter):
    """Limits the log records of other packages, for each line of code that logs.

    Drivers may log at every read. A filter for handlers; canbroker's own records always pass.
    """

    def __init__(self, records: int = 5, interval_s: float = 5.0) -> None:
        """Each line of code may log ``records`` times per ``interval_s``; the rest is counted."""
        super().__init__()
        self._records = records
        self._interval_ns = int(interval_s * clock.SECOND)
        self._lock = threading.Lock()
        self._seen: dict[tuple[str, int], tuple[int, int]] = {}  # place -> (since, records)

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name.partition(".")[0] in _OURS:
            return True
        place = (record.pathname, record.lineno)
        now = clock.monotonic_ns()
        with self._lock:
            since, count = self._seen.get(place, (now, 0))
            held = 0
            if now - since >= self._interval_ns:
                held = max(0, count - self._records)
                since, count = now, 0
            self._seen[place] = (since, count + 1)
        if held:
            record.msg = f"{record.getMessage()} (and {held} more of that kind)"
            record.args = ()
        return count < self._records


#: First parts of the names of canbroker's own loggers.
_OURS: Final = frozenset({"canbroker", "__main__"})
