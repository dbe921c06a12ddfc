"""Puts actors before those that use their channels, where that is permitted."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Final

from canbroker.system import clock

#: As a sound server has it.
_NICE: Final = -11

_logger = logging.getLogger(__name__)


def raise_priority() -> None:
    """Puts the calling thread, and those that it will start, before others.

    An actor that waits for its turn behind busy test processes is late for everybody. It waits
    for nearly all of its time, so it takes from others little more than it would have got anyway.
    On a single processor it takes the one that its clients need to go on, frame by frame.
    """
    if hasattr(os, "setpriority") and os.cpu_count() != 1:
        try:
            os.setpriority(os.PRIO_PROCESS, 0, _NICE)
        except PermissionError:  # an ordinary user's; docs/guides/systemd.md says what helps
            _logger.debug("the priority stays as it is")


class RealTime:
    """Has the kernel run this process as soon as it can run, while it has something with a time.

    Not for longer: who interrupts those that send to it for each single frame never finds several.
    Where it is not permitted nothing happens.
    """

    def __init__(self) -> None:
        self._on = False
        self._until_ns = 0
        self._permitted = sys.platform == "linux"

    def want(self) -> None:
        """For the next second at least."""
        self._until_ns = clock.monotonic_ns() + clock.SECOND
        if not self._on:
            self._switch(on=True)

    def update(self) -> None:
        """Call it now and then."""
        if self._on and clock.monotonic_ns() > self._until_ns:
            self._switch(on=False)

    def _switch(self, *, on: bool) -> None:
        if not self._permitted or sys.platform != "linux":
            return
        policy, level = (os.SCHED_RR, 1) if on else (os.SCHED_OTHER, 0)
        # All threads: who waits for the interpreter waits for the one that has it.
        for task in Path("/proc/self/task").iterdir():
            try:
                os.sched_setscheduler(int(task.name), policy, os.sched_param(level))
            except ProcessLookupError:  # the thread has just ended
                continue
            except OSError as error:  # as above; or what plays the kernel does not know it
                _logger.debug("no real time: %s", error)
                self._permitted = False
                return
        self._on = on
