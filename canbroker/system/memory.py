"""How much memory a process may use."""

from __future__ import annotations

import contextlib
import sys


def limit_memory(at_most: int) -> None:
    """Limits the address space of this process, in bytes. Windows has no such limit."""
    if sys.platform == "win32":
        return
    import resource  # noqa: PLC0415 - POSIX only

    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    with contextlib.suppress(ValueError, OSError):  # the system allows less, or has no such limit
        resource.setrlimit(resource.RLIMIT_AS, (at_most, hard))
