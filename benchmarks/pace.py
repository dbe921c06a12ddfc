"""Doing something a number of times a second."""

from __future__ import annotations

import time
from collections.abc import Iterator


def paced(count: int, rate: float | None) -> Iterator[int]:
    """Counts to ``count``, ``rate`` times a second; ``None`` is as fast as the caller takes it."""
    began = time.monotonic()
    for number in range(count):
        if rate is not None:
            time.sleep(max(0.0, began + number / rate - time.monotonic()))
        yield number
