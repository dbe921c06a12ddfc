"""Short sleeps, and which of them the system ends in time."""

from __future__ import annotations

import sys
import threading
import time
from typing import Final

#: Whether a wait for descriptors of less than 16 ms ends in time. That of Windows does not.
ARE_EXACT: Final = sys.platform != "win32"


class Nap:
    """A sleep of less than a millisecond or so that another thread can end. On Windows, which would
    wait 16 ms for a lock, no other thread ends it."""

    def __init__(self) -> None:
        self._ended = threading.Event()

    def take(self, seconds: float) -> None:
        """Sleeps until it is over, or :meth:`end` is called; not if it was since the last sleep."""
        if ARE_EXACT:
            self._ended.wait(seconds)
        else:
            time.sleep(seconds)
        self._ended.clear()

    def end(self) -> None:
        """[any thread] Ends the sleep that is under way."""
        self._ended.set()
