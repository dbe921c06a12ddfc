"""Interfaces that canbroker does not have itself, opened through python-can.

:mod:`.options` what a user says, :mod:`.driver` the edge to python-can and its plugins,
:mod:`.messages` their messages and our frames, :mod:`.exchange` what the actor's threads and the
driver's share, :mod:`.receiving` and :mod:`.sending` the driver's two threads, :mod:`.backend`
all of it together. Importing this package does not import python-can; opening does.
"""

from __future__ import annotations

from canbroker.backends.base import Backend, Options
from canbroker.backends.python_can.options import PythonCanOptions, is_installed, parse

__all__ = ["OPTIONS", "PythonCanOptions", "is_installed", "open", "parse"]

OPTIONS = PythonCanOptions


def open(options: Options) -> Backend:  # noqa: A001 - the name that every backend module has
    """Opens the interface, in the process that shall own the adapter.

    :raises CanInterfaceNotImplementedError: python-can is missing, or does not know it either.
    :raises CanInitializationError: python-can or its driver cannot open it; says why.
    """
    if not isinstance(options, PythonCanOptions):
        raise TypeError(f"python-can takes PythonCanOptions, got {options!r}")
    from canbroker.backends.python_can import backend  # noqa: PLC0415 - imports python-can

    return backend.open_bus(options)
