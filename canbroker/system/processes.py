"""Whether a process still runs, and whether it is the one that was meant."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def is_alive(pid: int) -> bool:
    """Whether a process of this number runs; one that has ended and only waits to be reaped
    does not. 0 is the number of nobody."""
    if not pid:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    import psutil  # noqa: PLC0415 - costs much at start, and few processes get here

    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def start_of(pid: int) -> int | None:
    """When the process of this number started, on a clock that nobody sets.

    Number and start are those of one process, for as long as the host runs. ``None``: there is
    none, or it only waits to be reaped. Linux: clock ticks since boot (proc_pid_stat(5)).
    """
    if sys.platform != "linux":
        return _start_elsewhere(pid)
    try:
        # The name of the program, in brackets before, may have anything in it.
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in {b"Z", b"X"} else int(fields[19])


def end_of(pid: int) -> int | None:
    """A descriptor that becomes readable when the process ends; the caller closes it.

    ``None`` where there is no such thing: the process has ended, or the system has none (any but
    Linux) or none left. Then :func:`start_of` tells.
    """
    if sys.platform != "linux":
        return None
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None


def _start_elsewhere(pid: int) -> int | None:
    import psutil  # noqa: PLC0415 - as above

    try:
        return int(psutil.Process(pid).create_time() * 1000)
    except psutil.NoSuchProcess:
        return None
