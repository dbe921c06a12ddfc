"""What becomes of open buses when their owner forgets them, forks, or ends.

Importing does nothing, so the first bus that is opened registers the end of all of them.
"""

from __future__ import annotations

import atexit
import logging
import os
import warnings
import weakref
from typing import Protocol

from canbroker.errors import CanError

_logger = logging.getLogger("canbroker.bus")


class Owned(Protocol):
    """A bus, as far as its end is concerned."""

    def shutdown(self) -> None: ...

    def _forked(self) -> None: ...


_open: weakref.WeakSet[Owned] = weakref.WeakSet()
_registered: list[bool] = []


def opened(bus: Owned) -> None:
    """Has ``bus`` shut down at the end of the process, at the latest."""
    _open.add(bus)
    if not _registered:
        _registered.append(True)
        atexit.register(_end_all)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=_forked)


def closed(bus: Owned) -> None:
    """``bus`` has been shut down by its owner."""
    _open.discard(bus)


def end(bus: Owned) -> None:
    """Shuts down a bus whose owner has not, with a :class:`ResourceWarning`."""
    warnings.warn(f"{bus!r} was not shut down", ResourceWarning, stacklevel=2, source=bus)
    try:
        bus.shutdown()
    except CanError:
        _logger.exception("%r was not shut down, and lost frames", bus)


def _end_all() -> None:
    for bus in list(_open):
        end(bus)


def _forked() -> None:
    for bus in list(_open):
        bus._forked()
    _open.clear()
