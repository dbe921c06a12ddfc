"""How long a thread has waited for a processor."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

from canbroker.system.closing import Closing

#: Nanoseconds on a processor, those of waiting for one, and how often it got one.
_FILE: Final = Path("/proc/thread-self/schedstat")


class ProcessorWaits(Closing):
    """Of the thread that makes it. Where the system does not tell, the thread never waits."""

    def __init__(self) -> None:
        try:
            self._descriptor = os.open(_FILE, os.O_RDONLY)
        except OSError:  # only Linux has it, and not each kernel
            self._descriptor = -1

    def total_ns(self) -> int:
        """Since the thread began."""
        if sys.platform != "linux" or self._descriptor < 0:
            return 0
        return int(os.pread(self._descriptor, 100, 0).split()[1])

    def close(self) -> None:
        """Idempotent."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)
