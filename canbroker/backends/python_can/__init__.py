"""Interfaces that canbroker does not have itself, opened through python-can.

:mod:`.options` are the parameters, :mod:`.driver` opens and closes python-can's bus,
:mod:`.messages` converts its messages, :mod:`.exchange` connects the actor's threads to the
driver's, which are :mod:`.receiving` and :mod:`.sending`; :mod:`.backend` puts all of it together.
Importing this package does not import python-can; opening does.
"""

from __future__ import annotations

from canbroker.backends.base import Backend, Options
from canbroker.backends.python_can.options import PythonCanOptions, is_installed, parse

__all__ = ["OPTIONS", "PythonCanOptions", "is_installed", "open", "parse"]

OPTIONS = PythonCanOptions


def open(options: Options) -> Backend:  # noqa: A001 - the name that every backend module has
    """Opens the interface, in the process that is to own the adapter.

    :raises CanInterfaceNotImplementedError: python-can is missing, or does not know it either.
    :raises CanInitializationError: python-can or its driver cannot open it; says why.
    """
    if not isinstance(options, PythonCanOptions):
        raise TypeError(f"python-can takes PythonCanOptions, got {options!r}")
    from canbroker.backends.python_can import backend  # noqa: PLC0415 - imports python-can

    return backend.open_bus(options)
