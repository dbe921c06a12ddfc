"""What becomes of open buses and leases when their owner forgets them, forks, or ends.

Importing does nothing, so the first one that is opened registers the end of all of them.
"""

from __future__ import annotations

import atexit
import logging
import os
import warnings
import weakref
from collections.abc import Callable
from typing import Protocol

from canbroker.errors import CanError

_logger = logging.getLogger("canbroker.bus")


class Owned(Protocol):
    """A bus or a lease, as far as its end is concerned."""

    def _abandon(self) -> None:
        """Its owner has not ended it, so that is done with :func:`end`."""

    def _forked(self) -> None:
        """[forked child] It is the parent's."""


#: In the order in which they were opened: a lease before the bus that is opened with it.
_open: weakref.WeakKeyDictionary[Owned, None] = weakref.WeakKeyDictionary()
_registered: list[bool] = []


def opened(owned: Owned) -> None:
    """Has ``owned`` ended at the end of the process, at the latest."""
    _open[owned] = None
    if not _registered:
        _registered.append(True)
        atexit.register(_end_all)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=_forked)


def closed(owned: Owned) -> None:
    """``owned`` has been ended by its owner."""
    _open.pop(owned, None)


def end(owned: Owned, end: Callable[[], None], done: str) -> None:
    """Calls ``end``, then warns that it was not ``done`` by the owner.

    :raises ResourceWarning: where warnings are errors; ``owned`` has been ended all the same.
    """
    name = repr(owned)
    try:
        end()
    except CanError:
        _logger.exception("%s was not %s, and cannot be in order", name, done)
    finally:
        warnings.warn(f"{name} was not {done}", ResourceWarning, stacklevel=3, source=owned)


def _end_all() -> None:
    """Ends each of them, whatever another one raises."""
    errors: list[Exception] = []
    for owned in reversed(list(_open)):
        try:
            owned._abandon()
        except Exception as error:  # noqa: BLE001 - raised below
            errors.append(error)
    if errors:
        raise ExceptionGroup("not ended by their owners", errors)


def _forked() -> None:
    for owned in list(_open):
        owned._forked()
    _open.clear()
