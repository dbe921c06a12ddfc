"""Gives actors priority over the clients of their channels, where that is permitted."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Final

from canbroker.system import clock
from canbroker.system.portable import PORTABLE
from canbroker.system.slices import use_long_slices, use_short_slices

#: The priority of a sound server.
_NICE: Final = -11

#: The priority of what people look at: a third of what clients get of a processor that both want.
_WATCHED: Final = 5

#: The priority of work that can wait: flight records, conversions.
_BACKGROUND: Final = 10

_logger = logging.getLogger(__name__)


def raise_priority() -> None:
    """Raises the priority of the calling thread, and of the threads that it will start; on Windows
    that of the process.

    An actor that waits for the processor behind busy test processes is late for everybody. It
    sleeps nearly all of the time, so others lose little. Not on a single processor: there it would
    interrupt its clients for every single frame.

    Nor does it wait for the end of a client's slice, which needs no rights.
    """
    if os.cpu_count() != 1:
        _set(0, _NICE)
        if not PORTABLE:
            use_short_slices()


def give_way() -> None:
    """Takes back :func:`raise_priority`, and lets clients of channels go first: for what people
    look at, who do not notice milliseconds."""
    if PORTABLE or not use_long_slices(_WATCHED):
        _set(0, _WATCHED)


def lower_priority(pid: int = 0) -> None:
    """Makes a process less urgent than all that handle frames; 0 is this one."""
    if pid or PORTABLE or not use_long_slices(_BACKGROUND):
        _set(pid, _BACKGROUND)


def _set(pid: int, niceness: int) -> None:
    """``pid``: 0 is the calling thread, or its process on Windows."""
    try:
        if sys.platform == "win32":
            _set_class(pid or os.getpid(), niceness < 0)
        else:
            os.setpriority(os.PRIO_PROCESS, pid, niceness)
    except PermissionError:  # of an ordinary user; docs/guides/systemd.md has a remedy
        _logger.debug("the priority stays as it is")
    except ProcessLookupError:
        _logger.debug("process %d has ended", pid)


if sys.platform == "win32":

    def _set_class(pid: int, is_urgent: bool) -> None:
        import psutil  # noqa: PLC0415 - slow to import, and only Windows needs it

        above, below = psutil.ABOVE_NORMAL_PRIORITY_CLASS, psutil.BELOW_NORMAL_PRIORITY_CLASS
        try:
            psutil.Process(pid).nice(above if is_urgent else below)
        except psutil.AccessDenied as error:
            raise PermissionError(str(error)) from error
        except psutil.NoSuchProcess as error:
            raise ProcessLookupError(str(error)) from error


class RealTime:
    """Real-time priority for this process, while it has frames that are due at a certain time.

    Not for longer: a process that interrupts its senders for each single frame never receives
    several at once. Where it is not permitted, nothing happens.
    """

    def __init__(self) -> None:
        self._on = False
        self._until_ns = 0
        self._permitted = not PORTABLE

    def want(self) -> None:
        """Switches it on for the next second at least."""
        self._until_ns = clock.monotonic_ns() + clock.SECOND
        if not self._on:
            self._switch(on=True)

    def update(self) -> None:
        """Switches it off when its time is over. Call it now and then."""
        if self._on and clock.monotonic_ns() > self._until_ns:
            self._switch(on=False)

    def _switch(self, *, on: bool) -> None:
        if sys.platform != "linux" or not self._permitted:
            return
        policy, level = (os.SCHED_RR, 1) if on else (os.SCHED_OTHER, 0)
        # All threads: a thread that waits for the interpreter waits for the thread that has it.
        for task in Path("/proc/self/task").iterdir():
            try:
                os.sched_setscheduler(int(task.name), policy, os.sched_param(level))
            except ProcessLookupError:  # the thread has just ended
                continue
            except (
                OSError
            ) as error:  # not permitted, or an emulated kernel that does not support it
                _logger.debug("no real time: %s", error)
                self._permitted = False
                return
        self._on = on
