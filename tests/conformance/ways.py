"""The two ways to put canbroker in python-can's place. Importing this imports python-can."""

from __future__ import annotations

import contextlib
import importlib
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import can
from can.interfaces import BACKENDS

import canbroker
from canbroker.integrations.python_can import CanbrokerBus

if TYPE_CHECKING:
    from can.typechecking import AutoDetectedConfig


class VirtualBus(CanbrokerBus):
    """The plugin, as python-can's interface ``virtual``."""

    def __init__(self, channel: Any = None, **others: Any) -> None:
        super().__init__(channel, adapter="virtual", **others)

    @staticmethod
    def _detect_available_configs() -> Sequence[AutoDetectedConfig]:
        found = CanbrokerBus._detect_available_configs()
        return [{"interface": "virtual", "channel": config["channel"]} for config in found]


class SerialBus(VirtualBus):
    """The plugin, as python-can's bus on a serial line whose ends are connected: a pair of them.

    That line carries the timestamp of what is sent.
    """

    def __init__(self, channel: Any) -> None:
        super().__init__(channel, fd=False)
        self._other_end = VirtualBus(channel, fd=False, preserve_timestamps=True)

    def send(self, msg: can.Message, timeout: float | None = None) -> None:
        self._other_end.send(msg, timeout)

    def shutdown(self) -> None:
        super().shutdown()
        self._other_end.shutdown()


class OwnSerialBus(canbroker.Bus):
    """The same without the plugin."""

    def __init__(self, channel: Any) -> None:
        super().__init__(channel, "virtual", fd=False)
        self._other_end = canbroker.Bus(channel, "virtual", fd=False, preserve_timestamps=True)

    def send(self, msg: canbroker.Message, timeout: float | None = None) -> None:
        self._other_end.send(msg, timeout)

    def shutdown(self) -> None:
        super().shutdown()
        self._other_end.shutdown()


class _OneRc(types.ModuleType):
    """Python-can with the ``rc`` of canbroker, also when it is replaced."""

    @property
    def rc(self) -> dict[str, Any]:
        return canbroker.rc

    @rc.setter
    def rc(self, values: dict[str, Any]) -> None:
        canbroker.rc = values


def by_plugin() -> None:
    """Python-can's interface ``virtual`` is the plugin."""
    BACKENDS["virtual"] = (__name__, "VirtualBus")


def by_names() -> None:
    """Classes of python-can are canbroker's, wherever its modules have them."""
    for module_name, _ in BACKENDS.values():  # its drivers are made of its own BusABC
        with contextlib.suppress(Exception):  # a driver's library is missing, as it is later
            importlib.import_module(module_name)
    ours = {
        id(getattr(can, name)): getattr(canbroker, name)
        for name in set(can.__all__) & set(canbroker.__all__)
        if name == "Bus" or isinstance(getattr(can, name), type)
    }
    for module_name, module in list(sys.modules.items()):
        if module_name.partition(".")[0] == "can":
            _replace(vars(module), ours)
    _replace(can.io.logger.MESSAGE_WRITERS, ours)
    del can.rc
    can.__class__ = _OneRc


def _replace(table: dict[str, Any], ours: Mapping[int, Any]) -> None:
    """Puts ours in the place of what has the same ``id``."""
    for name, value in list(table.items()):
        if id(value) in ours:
            table[name] = ours[id(value)]


WAYS: Final[Mapping[str, Callable[[], None]]] = {"plugin": by_plugin, "names": by_names}
SERIAL: Final[Mapping[str, type]] = {"plugin": SerialBus, "names": OwnSerialBus}
