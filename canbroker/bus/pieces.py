"""Lets others run while a client that was away catches up.

The kernel lets a thread that does not wait finish its slice, of 3 to 4 ms, before it runs others
that have woken up for the same processor: other clients, or the channel. A client that was stopped,
or busy, finds thousands of batches, and reads them without any wait. So it pauses now and then.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from canbroker.system import clock

#: How long it works without a pause. Others may have to wait for so long.
PIECE_NS: Final = clock.MILLISECOND // 2

#: The system makes about 0.1 ms of it.
_PAUSE_S: Final = 0.000_05


class Pieces:
    """One thread at a time."""

    def __init__(
        self,
        now: Callable[[], int] = clock.monotonic_ns,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._now = now
        self._sleep = sleep
        self._began_ns = now()

    def begin(self) -> None:
        """The thread has just waited."""
        self._began_ns = self._now()

    def pause(self) -> None:
        """Pauses, if the thread has worked for long enough since it waited."""
        if self._now() - self._began_ns >= PIECE_NS:
            self._sleep(_PAUSE_S)
            self.begin()
