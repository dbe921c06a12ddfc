"""The parameters of python-can's interfaces. Does not import python-can."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Any, ClassVar, Final, TypeAlias

import msgspec

from canbroker.backends.base import Options
from canbroker.backends.python_can.known import DRIVERS, Driver, driver
from canbroker.configuration.bus_settings import PLUGIN
from canbroker.errors import CanInitializationError
from canbroker.model.wording import validation_fault

Scalar: TypeAlias = str | int | float | bool

#: Arguments of ``can.Bus`` that are refused, and why.
_NOT_TAKEN: Final[Mapping[str, str]] = {
    "interface": "it is named before",
    "ignore_config": "python-can's own configuration is never read",
    "config_context": "python-can's own configuration is never read",
    "can_filters": "filters belong to each client",
    "receive_own_messages": "it belongs to each client",
    "listen_only": "python-can has no listen-only mode that all its interfaces keep to",
}


#: Parameters for which ``None`` means something: it makes Vector's channel a global one.
_NONE_COUNTS: Final = frozenset({("vector", "app_name")})

#: Rates in bit/s. If they are not numbers, drivers silently use a rate of their own.
_RATES: Final = ("bitrate", "data_bitrate")


class PythonCanOptions(Options, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """``channel`` and ``parameters`` of a python-can interface, as python-can documents them.

    Parameters are strings, numbers and bools, as in a configuration file. Only the driver knows
    which parameters its interface has.
    """

    #: For all drivers together; each driver only uses its own.
    identifying: ClassVar[frozenset[str]] = frozenset().union(
        *(one.identifying for one in (Driver(), *DRIVERS.values()))
    )

    interface: str
    parameters: dict[str, Scalar]

    @property
    def identity(self) -> str:
        known = driver(self.interface)
        if known.identity is not None:
            return known.identity(self.channel, self.parameters)
        which = sorted(known.identifying & self.parameters.keys())
        return ",".join([self.channel, *(f"{key}={self.parameters[key]}" for key in which)])

    def written(self) -> dict[str, Any]:
        own = {} if self.coalesce_us is None else {"coalesce_us": self.coalesce_us}
        return {"channel": self.channel, **own, **self.parameters}


def is_installed() -> bool:
    """Whether python-can is installed. Does not import it."""
    return importlib.util.find_spec("can") is not None


def parse(interface: str, given: Mapping[str, Any]) -> PythonCanOptions:
    """Converts a user's parameters; ``None`` means "not given".

    Except for Vector's ``app_name``, where ``None`` means an empty string.

    :raises CanInitializationError: a parameter is refused for all interfaces, or is not a scalar;
        or the interface is canbroker's own plugin for python-can.
    """
    if interface == PLUGIN:  # a broker would connect to itself
        raise CanInitializationError(
            f"interface {interface!r} is canbroker itself: name the interface of the adapter"
        )
    written = {
        key: "" if value is None else value  # "" is how a file says None
        for key, value in given.items()
        if value is not None or (interface, key) in _NONE_COUNTS
    }
    for key in written:
        if key in _NOT_TAKEN:
            raise CanInitializationError(
                f"interface {interface!r} takes no {key}: {_NOT_TAKEN[key]}"
            )
    channel = written.pop("channel", None)
    coalesce_us = written.pop("coalesce_us", None)
    if channel is None:
        raise CanInitializationError(f"interface {interface!r} needs a channel")
    if isinstance(channel, bool) or not isinstance(channel, (str, int)):
        raise CanInitializationError(
            f"interface {interface!r}: channel must be a text or a number, got {channel!r}"
        )
    for key, value in written.items():
        if not isinstance(value, (str, int, float)):
            raise CanInitializationError(
                f"interface {interface!r}: {key} must be a text, a number or a bool, got {value!r}"
            )
    _check_rates(interface, written)
    fields = {
        "channel": str(channel),
        "interface": interface,
        "coalesce_us": coalesce_us,
        "parameters": written,
    }
    try:
        return msgspec.convert(fields, PythonCanOptions)
    except msgspec.ValidationError as error:
        fault = validation_fault(error, fields)
        raise CanInitializationError(f"interface {interface!r}: {fault}") from error


def _check_rates(interface: str, written: Mapping[str, Any]) -> None:
    for key in _RATES:
        value = written.get(key, 1)
        if type(value) is not int or value <= 0:
            raise CanInitializationError(
                f"interface {interface!r}: {key} must be a number of bit/s, got {value!r}"
            )
    if not isinstance(written.get("fd", False), bool):
        raise CanInitializationError(
            f"interface {interface!r}: fd must be true or false, got {written['fd']!r}"
        )
