"""Adapter families behind one small interface, and the table of their names."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping
from typing import Any, Protocol, cast

import msgspec

from canbroker.backends import python_can
from canbroker.backends.base import (
    LISTEN_ONLY,
    AdapterGoneError,
    Backend,
    BusCondition,
    Options,
    RepeatKey,
    Repetition,
    StampClock,
    Transmit,
)
from canbroker.errors import CanInitializationError, CanInterfaceNotImplementedError
from canbroker.model.wording import validation_fault

__all__ = [
    "BACKENDS",
    "LISTEN_ONLY",
    "AdapterGoneError",
    "Backend",
    "BusCondition",
    "Options",
    "RepeatKey",
    "Repetition",
    "StampClock",
    "Transmit",
    "identity_of",
    "open_backend",
    "parse_options",
]

#: interface name -> module with ``OPTIONS`` (its Options class) and ``open`` (returns a Backend)
BACKENDS: dict[str, str] = {
    "slcan": "canbroker.backends.slcan",
    "socketcan": "canbroker.backends.socketcan",
    "virtual": "canbroker.backends.virtual",
}

#: Arguments that python-can's command line tools pass to every interface; meaningless here.
IGNORED_PARAMETERS = frozenset({"single_handle"})

#: Parameters of python-can that we do not have -> what to do instead. Those of a single interface
#: are in its :attr:`Options.instead`.
_PYTHON_CANS: dict[str, str] = {
    "databitrate": "it is data_bitrate",
    "dbitrate": "it is data_bitrate",
    "tty_baudrate": "it is for serial adapters",
    "ttyBaudrate": "it is for serial adapters, and tty_baudrate there",
    "rx_queue_size": "a bus keeps what it has not received yet, and counts what it had to drop",
    "protocol": "fd=True asks for CAN FD",
    "timeout": "recv and send take one with each call",
}


class _BackendModule(Protocol):
    OPTIONS: type[Options]

    def open(self, options: Options) -> Backend: ...


def parse_options(interface: str, parameters: Mapping[str, Any]) -> Options:
    """The typed and checked options of an interface, from the parameters that a user wrote.

    An interface that is not in the table is left to python-can, which checks it on opening.

    :raises CanInterfaceNotImplementedError: unknown interface.
    :raises CanInitializationError: an unknown parameter, or a bad value; the message names it.
    """
    given = {key: value for key, value in parameters.items() if key not in IGNORED_PARAMETERS}
    if interface in BACKENDS:
        parsed = _convert(interface, _module(interface).OPTIONS, given)
    elif interface.strip().casefold() in BACKENDS:
        raise CanInterfaceNotImplementedError(_unknown(interface))
    elif python_can.is_installed():
        parsed = python_can.parse(interface, given)
    else:
        raise CanInterfaceNotImplementedError(
            f"{_unknown(interface)}; others need python-can: pip install canbroker[python-can]"
        )
    if not parsed.channel.isprintable():  # neither a device nor a file system has such a name
        raise CanInitializationError(
            f"interface {interface!r}: channel {parsed.channel!r} is not printable"
        )
    return parsed


def identity_of(interface: str, channel: str, parameters: Mapping[str, Any]) -> str:
    """Identifies the adapter, whatever its other parameters; see ``Options.identity``.

    :raises CanError: as :func:`parse_options`.
    """
    options = _module(interface).OPTIONS if interface in BACKENDS else python_can.OPTIONS
    which = {key: value for key, value in parameters.items() if key in options.identifying}
    return parse_options(interface, {"channel": channel, **which}).identity


def open_backend(interface: str, options: Options) -> Backend:
    """Opens the adapter.

    :raises CanInterfaceNotImplementedError: the interface is unknown; lists the known ones.
    :raises CanInitializationError: it cannot be opened, or refuses its configuration.
    """
    if interface in BACKENDS:
        return _module(interface).open(options)
    try:
        return python_can.open(options)
    except CanInterfaceNotImplementedError as error:
        raise CanInterfaceNotImplementedError(f"{_unknown(interface)}; {error}") from error


def _convert(interface: str, options: type[Options], given: Mapping[str, Any]) -> Options:
    known = {field.name for field in msgspec.structs.fields(options)}
    named: dict[str, Any] = {}
    for key, value in given.items():
        name = options.renamed.get(key, key)
        if name in options.without_effect:
            continue
        if name not in known:
            hints = {**_PYTHON_CANS, **options.instead}
            hint = hints.get(key, "python-can may ignore what an interface does not have")
            raise CanInitializationError(
                f"interface {interface!r} has no parameter {key!r} ({hint}); it has: "
                + ", ".join(sorted(known))
            )
        if name in named:
            raise CanInitializationError(
                f"interface {interface!r}: {key!r} is another name of {name!r}; give one of them"
            )
        named[name] = value
    try:
        return msgspec.convert(named, options)
    except msgspec.ValidationError as error:
        fault = validation_fault(error, named)
        raise CanInitializationError(f"interface {interface!r}: {fault}") from error


def _module(interface: str) -> _BackendModule:
    """Imports and returns the module of an interface of the table."""
    return cast(_BackendModule, importlib.import_module(BACKENDS[interface]))


def _unknown(interface: str) -> str:
    close = difflib.get_close_matches(interface.strip().casefold(), BACKENDS, 1)
    meant = f" (did you mean {close[0]!r}?)" if close else ""
    return f"unknown interface {interface!r}{meant}; canbroker has: {', '.join(sorted(BACKENDS))}"
