"""What a user may say about an interface of python-can. Does not import python-can."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Any, ClassVar, Final, TypeAlias

import msgspec

from canbroker.backends.base import Options
from canbroker.errors import CanInitializationError
from canbroker.settings import PLUGIN

Scalar: TypeAlias = str | int | float | bool

#: Arguments of ``can.Bus`` that are not the user's to give, and why.
_NOT_TAKEN: Final[Mapping[str, str]] = {
    "interface": "it is named before",
    "ignore_config": "python-can's own configuration is never read",
    "config_context": "python-can's own configuration is never read",
    "can_filters": "filters belong to each client",
    "receive_own_messages": "it belongs to each client",
    "listen_only": "python-can has no listen-only mode that all its interfaces keep to",
}


class PythonCanOptions(Options, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """``channel`` and ``parameters`` of one of python-can's interfaces, as it documents them.

    Parameters are texts, numbers and bools: what can be written in a configuration file. Which
    ones an interface has is known to its driver alone.
    """

    #: By these python-can's drivers tell adapters apart whose channels have the same name.
    identifying: ClassVar[frozenset[str]] = frozenset(
        {
            *("serial", "unique_hardware_id", "device_id", "device_number", "device"),  # vendors
            *("index", "bus", "address"),  # gs_usb
            *("host", "port"),  # socketcand, udp_multicast
        }
    )

    interface: str
    parameters: dict[str, Scalar]

    @property
    def identity(self) -> str:
        which = sorted(self.identifying & self.parameters.keys())
        return ",".join([self.channel, *(f"{key}={self.parameters[key]}" for key in which)])

    def written(self) -> dict[str, Any]:
        return {"channel": self.channel, **self.parameters}


def is_installed() -> bool:
    """Whether there is something to import; looks for it only."""
    return importlib.util.find_spec("can") is not None


def parse(interface: str, given: Mapping[str, Any]) -> PythonCanOptions:
    """Options of an interface from what a user wrote; ``None`` is the same as not written.

    :raises CanInitializationError: a parameter that no interface may be given, or no scalar; or
        the interface is our own plugin of python-can.
    """
    if interface == PLUGIN:  # a broker would connect to itself
        raise CanInitializationError(
            f"interface {interface!r} is canbroker itself: name the interface of the adapter"
        )
    written = {key: value for key, value in given.items() if value is not None}
    for key in written:
        if key in _NOT_TAKEN:
            raise CanInitializationError(
                f"interface {interface!r} takes no {key}: {_NOT_TAKEN[key]}"
            )
    channel = written.pop("channel", None)
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
    fields = {"channel": str(channel), "interface": interface, "parameters": written}
    return msgspec.convert(fields, PythonCanOptions)
