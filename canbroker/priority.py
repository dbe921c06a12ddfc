"""Puts an actor's process before those that use its channels, where that is permitted."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Final

#: Where real time is not permitted: as a sound server has it.
_NICE: Final = -11

#: Processor time without waiting for anything, in µs, after which a process is not to be waited
#: for any more. An actor waits after each of its turns, which take milliseconds at most.
_RUNAWAY_US: Final = 500_000

_logger = logging.getLogger(__name__)


def raise_priority() -> None:
    """Puts the calling thread, and all that it will start, before everything ordinary.

    An actor that waits for its turn behind busy test processes is late for everybody: on two busy
    cores periodic frames were. It waits for nearly all of its time, so it takes from others
    little more than it would have got anyway; one that does not, because a driver's library
    never waits, loses the privilege.
    """
    for step in (_be_nice, _take_real_time):
        try:
            step()
        except OSError as error:  # an ordinary user's; docs/guides/systemd.md says what helps
            _logger.debug("the priority stays as it is: %s", error)


def _be_nice() -> None:
    if hasattr(os, "setpriority"):
        os.setpriority(os.PRIO_PROCESS, 0, _NICE)


def _take_real_time() -> None:
    """Has the kernel run this thread whenever it can run, in turns with its equals.

    :raises OSError: that is not permitted.
    """
    if sys.platform != "linux":
        return
    import resource  # noqa: PLC0415 - not everywhere

    _, hard = resource.getrlimit(resource.RLIMIT_RTTIME)
    if hard != resource.RLIM_INFINITY and hard <= _RUNAWAY_US:
        raise PermissionError(f"the limit of real time is {hard} µs, at which the kernel kills")
    os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    resource.setrlimit(resource.RLIMIT_RTTIME, (_RUNAWAY_US, hard))
    # Blocked here and in all threads to come, so that it reaches the one that waits for it.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGXCPU})
    threading.Thread(target=_watch, name="priority", daemon=True).start()


def _watch() -> None:
    """Becomes ordinary again when the kernel says that a thread waits for nothing."""
    signal.sigwait({signal.SIGXCPU})
    for task in Path("/proc/self/task").iterdir():
        try:
            os.sched_setscheduler(int(task.name), os.SCHED_OTHER, os.sched_param(0))
        except ProcessLookupError:  # the thread has ended meanwhile
            continue
    _logger.warning("a driver waits for nothing: this actor runs as an ordinary process from now")
