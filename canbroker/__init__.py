"""Share CAN adapters between processes, through the Bus API that python-can documents.

Importing does next to nothing: a name's module is imported when the name is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from canbroker.client import (
        Bus,
        BusABC,
        BusState,
        BusStats,
        CanProtocol,
        Lease,
        ThreadSafeBus,
        lease,
    )
    from canbroker.detect import detect_available_configs
    from canbroker.errors import (
        CanError,
        CanInitializationError,
        CanInterfaceNotImplementedError,
        CanLossError,
        CanOperationError,
        CanTimeoutError,
    )
    from canbroker.listeners import (
        AsyncBufferedReader,
        BufferedReader,
        Listener,
        Printer,
        RedirectReader,
    )
    from canbroker.message import Message
    from canbroker.notifier import Notifier
    from canbroker.periodic.cyclic import (
        CyclicSendTaskABC,
        CyclicTask,
        LimitedDurationCyclicSendTaskABC,
        ModifiableCyclicTaskABC,
        RestartableCyclicTaskABC,
    )
    from canbroker.periodic.task import PeriodicTask
    from canbroker.protection import E2E, Counter, Crc8

__all__ = [
    "E2E",
    "AsyncBufferedReader",
    "BufferedReader",
    "Bus",
    "BusABC",
    "BusState",
    "BusStats",
    "CanError",
    "CanInitializationError",
    "CanInterfaceNotImplementedError",
    "CanLossError",
    "CanOperationError",
    "CanProtocol",
    "CanTimeoutError",
    "Counter",
    "Crc8",
    "CyclicSendTaskABC",
    "CyclicTask",
    "Lease",
    "LimitedDurationCyclicSendTaskABC",
    "Listener",
    "Message",
    "ModifiableCyclicTaskABC",
    "Notifier",
    "PeriodicTask",
    "Printer",
    "RedirectReader",
    "RestartableCyclicTaskABC",
    "ThreadSafeBus",
    "detect_available_configs",
    "lease",
    "rc",
]

#: What ``Bus`` takes for arguments that it is not given, by name; before environment and files.
rc: dict[str, Any] = {}

_HOMES: Final = {
    "canbroker.client": (
        "Bus",
        "BusABC",
        "BusState",
        "BusStats",
        "CanProtocol",
        "Lease",
        "ThreadSafeBus",
        "lease",
    ),
    "canbroker.detect": ("detect_available_configs",),
    "canbroker.errors": (
        "CanError",
        "CanInitializationError",
        "CanInterfaceNotImplementedError",
        "CanLossError",
        "CanOperationError",
        "CanTimeoutError",
    ),
    "canbroker.listeners": (
        "AsyncBufferedReader",
        "BufferedReader",
        "Listener",
        "Printer",
        "RedirectReader",
    ),
    "canbroker.message": ("Message",),
    "canbroker.notifier": ("Notifier",),
    "canbroker.periodic.cyclic": (
        "CyclicSendTaskABC",
        "CyclicTask",
        "LimitedDurationCyclicSendTaskABC",
        "ModifiableCyclicTaskABC",
        "RestartableCyclicTaskABC",
    ),
    "canbroker.periodic.task": ("PeriodicTask",),
    "canbroker.protection": ("E2E", "Counter", "Crc8"),
}
_HOME_OF: Final = {name: home for home, names in _HOMES.items() for name in names}


if not TYPE_CHECKING:  # where a name that is not there shall be an error

    def __getattr__(name: str) -> Any:
        home = _HOME_OF.get(name)
        if home is None:
            raise AttributeError(f"module 'canbroker' has no attribute {name!r}")
        value = globals()[name] = getattr(importlib.import_module(home), name)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
