"""What a process has used."""

from __future__ import annotations

import ctypes
import os
import sys
import time

import psutil


def cpu_s(pid: int) -> float:
    """Processor time of a process so far, seconds.

    psutil's counts in steps of 10 ms, the clock of clock_getcpuclockid(3), which Linux has, does
    not.
    """
    if sys.platform != "linux":
        times = psutil.Process(pid).cpu_times()
        return float(times.user + times.system)
    clock = ctypes.c_int()
    error = ctypes.CDLL(None).clock_getcpuclockid(pid, ctypes.byref(clock))
    if error:
        raise OSError(error, os.strerror(error))
    return time.clock_gettime(clock.value)


def resident_mb(pid: int | None = None) -> float:
    """Resident memory of a process, by default this one."""
    return float(psutil.Process(pid or os.getpid()).memory_info().rss) / 1e6
