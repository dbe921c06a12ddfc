"""Libraries in C that drivers of adapters bring along."""

from __future__ import annotations

import ctypes
import sys


def loaded(windows: str, elsewhere: str) -> ctypes.CDLL:
    """A library by its name on this system; if it is loaded already, that one.

    :raises OSError: there is no such library.
    """
    if sys.platform == "win32":
        return ctypes.WinDLL(windows)  # with Windows' own convention of calls
    return ctypes.CDLL(elsewhere)
