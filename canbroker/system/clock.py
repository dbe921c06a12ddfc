"""Times: integer nanoseconds inside, float seconds at the API.

Deadlines use the monotonic clock, which all processes of a host share and nobody can set. Frames
carry the wall clock.
"""

from __future__ import annotations

import math
import time

from canbroker.model.plain_numbers import plain

monotonic_ns = time.monotonic_ns
wall_ns = time.time_ns

SECOND = 1_000_000_000
MILLISECOND = 1_000_000
MICROSECOND = 1_000


def deadline_after(timeout: float | None) -> int | None:
    """The monotonic time ``timeout`` seconds from now, in ns; ``None`` means never.

    :raises ValueError: ``timeout`` is NaN.
    :raises TypeError: ``timeout`` is not a number.
    """
    if timeout is None:
        return None
    # More than the monotonic clock can count is the same as never. Compared before it is converted:
    # an integer may be too large for a float.
    number = timeout if type(timeout) is float else plain(timeout)
    seconds = min(max(number, -1.0), 4e9)
    if math.isnan(seconds):
        raise ValueError("timeout must be a number of seconds or None, got NaN")
    return monotonic_ns() + int(max(seconds, 0.0) * SECOND)


def remaining_ns(deadline: int | None) -> int | None:
    """Nanoseconds until ``deadline``, at least 0; ``None`` without a deadline."""
    return None if deadline is None else max(0, deadline - monotonic_ns())
