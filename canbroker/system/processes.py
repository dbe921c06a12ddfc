"""Whether a process still runs, and whether it is still the same one."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NamedTuple


class Process(NamedTuple):
    """A process, for ever: numbers are given again, but not with the same start."""

    pid: int
    started: int  # as start_of() says

    @property
    def runs(self) -> bool:
        return start_of(self.pid) == self.started


def is_alive(pid: int) -> bool:
    """Whether a process with this number runs. Zombies, which have ended, do not; nor does 0."""
    if not pid:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's, about whom the system may tell nothing else
        return True
    return start_of(pid) is not None


def start_of(pid: int) -> int | None:
    """When the process with this number started, on a clock that nobody can set.

    Number and start together identify a process until the host restarts. ``None``: it does not
    exist, or is a zombie. Linux: clock ticks since boot (proc_pid_stat(5)); elsewhere milliseconds.
    """
    if sys.platform != "linux":
        return _start_elsewhere(pid)
    try:
        # The program's name stands in brackets before these fields and may contain anything.
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in {b"Z", b"X"} else int(fields[19])


def end_of(pid: int) -> int | None:
    """A descriptor that becomes readable when the process ends; the caller closes it.

    ``None``: the process has ended, no descriptor is left, or the system is not Linux. Then
    :func:`start_of` tells whether it has ended.
    """
    if sys.platform != "linux":
        return None
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None


def _start_elsewhere(pid: int) -> int | None:
    import psutil  # noqa: PLC0415 - slow to import, and Linux does not need it

    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        return int(process.create_time() * 1000)
    except psutil.NoSuchProcess:
        return None
