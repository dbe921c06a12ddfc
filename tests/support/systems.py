"""What tests need of the system that they run on."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import psutil
import pytest

from canbroker.system.portable import PORTABLE


def posix(lacking: str) -> pytest.MarkDecorator:
    """Marks tests for Linux and macOS. ``lacking``: what Windows does not have."""
    return pytest.mark.skipif(sys.platform == "win32", reason=f"Windows has no {lacking}")


#: Tests of what only the native sides have: Linux without CANBROKER_PORTABLE=1.
natively = pytest.mark.skipif(PORTABLE, reason="the portable side is used")

#: Tests that count what is open.
counts_descriptors = posix("list of the descriptors of a process")

#: Tests with hosts and networks of their own.
namespaces = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has name spaces")

#: Tests that ask the kernel about CAN interfaces.
socketcan = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has SocketCAN")

#: Tests of how processes get processors.
processors = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells and binds them")

#: Tests of who may do what with files.
modes = posix("modes of files")

#: Tests in which a handler of signals raises, or another process sends a signal.
signals = posix("signals from another process")

#: Tests of forked children.
forks = posix("os.fork")


def is_root() -> bool:
    """Whether this process has all rights, as far as the system has users with all rights."""
    return sys.platform != "win32" and os.geteuid() == 0


def skip_on_windows(lacking: str) -> None:
    """Skips the test that has called this. ``lacking``: what Windows does not have."""
    if sys.platform == "win32":
        pytest.skip(f"Windows has no {lacking}")


def open_descriptors() -> dict[str, str]:
    """What this process has open, by number. Empty on Windows, which does not tell."""
    if sys.platform == "win32":
        return {}
    found = {}
    for number in os.listdir("/proc/self/fd" if sys.platform == "linux" else "/dev/fd"):  # noqa: PTH208 - the list is open itself
        try:
            found[number] = _described(int(number))
        except OSError:  # that of the list
            continue
    return found


def descriptor_count(process: psutil.Process) -> int:
    """How many descriptors a process has open. 0 on Windows, as above."""
    return 0 if sys.platform == "win32" else process.num_fds()


def _described(descriptor: int) -> str:
    if sys.platform == "linux":
        return str(Path(f"/proc/self/fd/{descriptor}").readlink())
    status = os.fstat(descriptor)
    return f"mode {status.st_mode:o}, inode {status.st_ino} of device {status.st_dev}"
