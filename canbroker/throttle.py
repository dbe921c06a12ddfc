"""Logging of things that a noisy line can cause a thousand times a second."""

from __future__ import annotations

import logging
from collections import Counter
from typing import Final

from canbroker import clock

#: Characters of a detail, which may quote what somebody sent.
_SHOWN: Final = 200


class Throttle:
    """Counts every occurrence of every kind; logs each kind at most once per ``interval_s``.

    One thread. ``counts`` is the exact account, whatever was logged.
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
        """Counts one ``kind``; logs it with ``detail`` if the kind was quiet for an interval.

        ``error`` is logged with its traceback.
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
