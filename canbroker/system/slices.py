"""How long the kernel lets a thread run before others that wait get their turn, on Linux.

Python has no function for it. A thread that has just woken up takes the place of one with a longer
slice at once, since Linux 6.12; otherwise it waits for the end of the slice, a few milliseconds,
even if its own priority is higher.
"""

from __future__ import annotations

import os
import platform
import struct
import sys
from typing import Final

from canbroker.system import clock

#: The longest slice that the kernel accepts. Older kernels ignore slices.
_LONGEST_NS: Final = 100 * clock.MILLISECOND

#: Less than the usual ones, 1.4 ms with two processors and 2.8 with eight.
_SHORT_NS: Final = clock.MILLISECOND // 2

#: ``struct sched_attr``: its size, policy, flags, niceness, real-time priority; slice; and what
#: only deadlines have.
_ATTRIBUTES: Final = struct.Struct("=IIQiIQQQ")

#: Numbers of the system call ``sched_setattr``, which few C libraries have.
_CALLS: Final = {"x86_64": 314, "aarch64": 274, "riscv64": 274}


def use_long_slices(niceness: int) -> bool:
    """Gives the calling thread long slices of the processor, and a niceness; and the threads that
    it will start. Returns whether that was possible: a niceness below the current one needs rights.
    """
    if sys.platform != "linux":
        return False
    return _use(os.SCHED_BATCH, niceness, _LONGEST_NS)


def use_short_slices() -> bool:
    """Gives the calling thread short slices, and the threads that it will start. Returns whether
    that was possible; no rights are needed."""
    if sys.platform != "linux":
        return False
    return _use(os.SCHED_OTHER, os.getpriority(os.PRIO_PROCESS, 0), _SHORT_NS)


def _use(policy: int, niceness: int, slice_ns: int) -> bool:
    call = _CALLS.get(platform.machine())
    if call is None or sys.maxsize < 1 << 32:  # 32 bits have other numbers
        return False
    try:
        import ctypes  # noqa: PLC0415 - slow to import, and few processes need it
    except ImportError:  # this Python was built without it
        return False

    attributes = _ATTRIBUTES.pack(_ATTRIBUTES.size, policy, 0, niceness, 0, slice_ns, 0, 0)
    failed: int = ctypes.CDLL(None).syscall(call, 0, attributes, 0)
    return not failed
