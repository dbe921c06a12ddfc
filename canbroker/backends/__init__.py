"""Adapter families behind one small interface, and the table of their names."""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from typing import Any, Protocol, cast

import msgspec

from canbroker.backends.base import AdapterGoneError, Backend, BusCondition, Options, Transmit
from canbroker.errors import CanInitializationError, CanInterfaceNotImplementedError

__all__ = [
    "BACKENDS",
    "AdapterGoneError",
    "Backend",
    "BusCondition",
    "Options",
    "Transmit",
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


#: How msgspec says where: `$.bitrate`.
_AT_PARAMETER = re.compile(r" - at `\$\.(\w+)`")


class _BackendModule(Protocol):
    OPTIONS: type[Options]

    def open(self, options: Options) -> Backend: ...


def _module(interface: str) -> _BackendModule:
    """The module of an interface, imported now.

    :raises CanInterfaceNotImplementedError: an unknown name; lists the known ones.
    """
    name = BACKENDS.get(interface)
    if name is None:
        known = ", ".join(sorted(BACKENDS))
        raise CanInterfaceNotImplementedError(
            f"unknown interface {interface!r}; canbroker has: {known}"
        )
    return cast(_BackendModule, importlib.import_module(name))


def parse_options(interface: str, parameters: Mapping[str, Any]) -> Options:
    """Typed, checked options of an interface from what a user wrote.

    :raises CanInterfaceNotImplementedError: unknown interface.
    :raises CanInitializationError: an unknown parameter, or a bad value; the message names it.
    """
    options = _module(interface).OPTIONS
    given = {key: value for key, value in parameters.items() if key not in IGNORED_PARAMETERS}
    known = {field.name for field in msgspec.structs.fields(options)}
    for key in given:
        if key not in known:
            raise CanInitializationError(
                f"interface {interface!r} has no parameter {key!r}; it has: "
                + ", ".join(sorted(known))
            )
    try:
        parsed = msgspec.convert(given, options)
    except (msgspec.ValidationError, ValueError) as error:
        text = _AT_PARAMETER.sub(r" for \1", str(error))
        raise CanInitializationError(f"interface {interface!r}: {text}") from error
    if not parsed.channel.isprintable():  # no device, and no file system, has such a name
        raise CanInitializationError(
            f"interface {interface!r}: channel {parsed.channel!r} is not printable"
        )
    return parsed


def open_backend(interface: str, options: Options) -> Backend:
    """Opens the adapter.

    :raises CanInitializationError: it cannot be opened, or refuses its configuration.
    """
    return _module(interface).open(options)
