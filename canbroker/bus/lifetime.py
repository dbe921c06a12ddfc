"""What happens to open buses and leases when their owner forgets them, forks, or ends.

Importing this module does nothing. The first bus or lease registers what ends all of them.
"""

from __future__ import annotations

import atexit
import functools
import logging
import warnings
import weakref
from collections.abc import Callable
from typing import Any, Protocol

from canbroker.errors import CanError
from canbroker.system import handles
from canbroker.system.undisturbed import in_background

_logger = logging.getLogger("canbroker.bus")


class Owned(Protocol):
    """A bus or a lease, as far as its end is concerned."""

    def _abandon(self) -> None:
        """The process ends and its owner has not closed it: calls :func:`end`."""

    def _forked(self) -> None:
        """[forked child] It is the parent's."""


#: In the order in which they were opened: a lease before the bus that uses it.
_open: weakref.WeakKeyDictionary[Owned, None] = weakref.WeakKeyDictionary()
_registered: list[bool] = []

#: Objects needed to end their owners. The keys are weak references to the owners.
_needed: dict[weakref.ref[Any], object] = {}

#: For each forgotten one that is being ended: whether that is done, and a function to wait for it.
_waits: list[tuple[list[bool], Callable[[], None]]] = []


def needs(owner: object, needed: object) -> None:
    """Keeps ``needed``, which does not refer to ``owner``, for as long as that exists.

    The garbage collector clears the weak references to all of its garbage, then finalizes it in
    any order, so sockets may be closed before the bus that they belong to. With this reference,
    ``needed`` becomes garbage after ``owner``.
    """
    _needed[weakref.ref(owner, _needed.pop)] = needed


def opened(owned: Owned) -> None:
    """Ends ``owned`` at the end of the process at the latest."""
    _open[owned] = None
    if not _registered:
        _registered.append(True)
        atexit.register(_end_all)
        handles.register(in_child=_forked)


def closed(owned: Owned) -> None:
    """The owner has ended ``owned``."""
    _open.pop(owned, None)


def end(owned: Owned, end: Callable[[], None], done: str) -> None:
    """Calls ``end``, then warns that the owner has not ``done`` it.

    :raises ResourceWarning: if warnings are errors; ``owned`` has been ended all the same.
    """
    name = repr(owned)
    try:
        end()
    except CanError:
        _logger.exception("%s was not %s, and cannot be in order", name, done)
    finally:
        warnings.warn(f"{name} was not {done}", ResourceWarning, stacklevel=3, source=owned)


def forgotten(owned: Owned, name: str, end: Callable[[], None], done: str) -> None:
    """[finalizer] As :func:`end`, without waiting for it.

    A finalizer may interrupt anything, and Python drops exceptions of signal handlers in it. So
    this does as little as possible, and does not even look up the state of ``owned``.

    :raises ResourceWarning: as :func:`end`.
    """
    end_later(functools.partial(_end_quietly, end, name, done))
    warnings.warn(f"{name} was not {done}", ResourceWarning, stacklevel=3, source=owned)


def end_later(job: Callable[[], None]) -> None:
    """[finalizer] Does ``job`` on a thread of its own."""
    ended: list[bool] = []
    _waits[:] = [(over, wait) for over, wait in _waits if not over]
    _waits.append((ended, in_background(functools.partial(_do, job, ended), "canbroker-cleanup")))


def _do(job: Callable[[], None], ended: list[bool]) -> None:
    try:
        job()
    finally:
        ended.append(True)


def _end_quietly(end: Callable[[], None], name: str, done: str) -> None:
    try:
        end()
    except CanError:
        _logger.exception("%s was not %s, and cannot be in order", name, done)


def _end_all() -> None:
    """Ends all of them, even if some raise."""
    for _, wait in _waits:
        wait()
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
    _waits.clear()
