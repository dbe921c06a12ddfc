"""Share CAN adapters between processes, through the Bus API that python-can documents.

Importing does next to nothing: a name's module is imported when the name is first used. So is
python-can, some of whose names are handed on as they are: ``import canbroker as can``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    # isort: off
    from can import (
        VALID_INTERFACES as VALID_INTERFACES,
        ASCReader as ASCReader,
        ASCWriter as ASCWriter,
        BitTiming as BitTiming,
        BitTimingFd as BitTimingFd,
        BLFReader as BLFReader,
        BLFWriter as BLFWriter,
        CanutilsLogReader as CanutilsLogReader,
        CanutilsLogWriter as CanutilsLogWriter,
        CSVReader as CSVReader,
        CSVWriter as CSVWriter,
        Logger as Logger,
        LogReader as LogReader,
        MessageSync as MessageSync,
        MF4Reader as MF4Reader,
        MF4Writer as MF4Writer,
        SizedRotatingLogger as SizedRotatingLogger,
        SqliteReader as SqliteReader,
        SqliteWriter as SqliteWriter,
        TRCFileVersion as TRCFileVersion,
        TRCReader as TRCReader,
        TRCWriter as TRCWriter,
        io as io,
        typechecking as typechecking,
        util as util,
    )

    from canbroker import bus as bus
    from canbroker.names import (
        bit_timing as bit_timing,
        broadcastmanager as broadcastmanager,
        exceptions as exceptions,
        interface as interface,
        interfaces as interfaces,
        listener as listener,
        message as message,
        notifier as notifier,
    )

    # isort: on
    from canbroker.bus.lease import Lease, lease
    from canbroker.bus.listening.listeners import (
        AsyncBufferedReader,
        BufferedReader,
        Listener,
        Printer,
        RedirectReader,
    )
    from canbroker.bus.listening.notifier import Notifier
    from canbroker.bus.periodic.cyclic import (
        CyclicSendTaskABC,
        CyclicTask,
        LimitedDurationCyclicSendTaskABC,
        ModifiableCyclicTaskABC,
        RestartableCyclicTaskABC,
    )
    from canbroker.bus.periodic.task import PeriodicTask
    from canbroker.bus.recording import recording
    from canbroker.bus.signals import Signals
    from canbroker.client import (
        Bus,
        BusABC,
        BusState,
        BusStats,
        CanProtocol,
        ErrorCounters,
        ThreadSafeBus,
    )
    from canbroker.configuration.detection import detect_available_configs
    from canbroker.errors import (
        CanError,
        CanInitializationError,
        CanInterfaceNotImplementedError,
        CanLossError,
        CanOperationError,
        CanPermissionError,
        CanTimeoutError,
    )
    from canbroker.model.message import Message
    from canbroker.model.protection import E2E, Counter, Crc8
    from canbroker.playback.replaying import replay
    from canbroker.playback.report import ReplayReport

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
    "CanPermissionError",
    "CanProtocol",
    "CanTimeoutError",
    "Counter",
    "Crc8",
    "CyclicSendTaskABC",
    "CyclicTask",
    "ErrorCounters",
    "Lease",
    "LimitedDurationCyclicSendTaskABC",
    "Listener",
    "Message",
    "ModifiableCyclicTaskABC",
    "Notifier",
    "PeriodicTask",
    "Printer",
    "RedirectReader",
    "ReplayReport",
    "RestartableCyclicTaskABC",
    "Signals",
    "ThreadSafeBus",
    "detect_available_configs",
    "lease",
    "rc",
    "recording",
    "replay",
]

# "from can.message import Message", and others of python-can's modules: each is a file there.
__path__.append(f"{__path__[0]}/names")

#: What ``Bus`` takes for arguments that it is not given, by name; before environment and files.
rc: dict[str, Any] = {}

_HOMES: Final = {
    "canbroker.client": (
        "Bus",
        "BusABC",
        "BusState",
        "BusStats",
        "CanProtocol",
        "ErrorCounters",
        "ThreadSafeBus",
    ),
    "canbroker.configuration.detection": ("detect_available_configs",),
    "canbroker.errors": (
        "CanError",
        "CanInitializationError",
        "CanInterfaceNotImplementedError",
        "CanLossError",
        "CanOperationError",
        "CanPermissionError",
        "CanTimeoutError",
    ),
    "canbroker.bus.listening.listeners": (
        "AsyncBufferedReader",
        "BufferedReader",
        "Listener",
        "Printer",
        "RedirectReader",
    ),
    "canbroker.model.message": ("Message",),
    "canbroker.bus.lease": ("Lease", "lease"),
    "canbroker.bus.listening.notifier": ("Notifier",),
    "canbroker.bus.periodic.cyclic": (
        "CyclicSendTaskABC",
        "CyclicTask",
        "LimitedDurationCyclicSendTaskABC",
        "ModifiableCyclicTaskABC",
        "RestartableCyclicTaskABC",
    ),
    "canbroker.bus.periodic.task": ("PeriodicTask",),
    "canbroker.bus.recording": ("recording",),
    "canbroker.bus.signals": ("Signals",),
    "canbroker.model.protection": ("E2E", "Counter", "Crc8"),
    "canbroker.playback.replaying": ("replay",),
    "canbroker.playback.report": ("ReplayReport",),
}
#: Names of python-can's own, which is imported when one of them is used.
_PYTHON_CANS: Final = frozenset(
    {
        "ASCReader",
        "ASCWriter",
        "BLFReader",
        "BLFWriter",
        "BitTiming",
        "BitTimingFd",
        "CSVReader",
        "CSVWriter",
        "CanutilsLogReader",
        "CanutilsLogWriter",
        "LogReader",
        "Logger",
        "MF4Reader",
        "MF4Writer",
        "MessageSync",
        "SizedRotatingLogger",
        "SqliteReader",
        "SqliteWriter",
        "TRCFileVersion",
        "TRCReader",
        "TRCWriter",
        "VALID_INTERFACES",
        "io",
        "typechecking",
        "util",
    }
)
#: Modules that are names here, as they are in python-can.
_MODULES: Final = frozenset(
    {
        "bit_timing",
        "broadcastmanager",
        "bus",
        "exceptions",
        "interface",
        "interfaces",
        "listener",
        "message",
        "notifier",
    }
)
_HOME_OF: Final = {name: home for home, names in _HOMES.items() for name in names}


if not TYPE_CHECKING:  # where a name that is not there shall be an error

    def __getattr__(name: str) -> Any:
        if name in _MODULES:
            return importlib.import_module(f"canbroker.{name}")
        if name in _PYTHON_CANS:
            from canbroker.names import borrowed  # noqa: PLC0415 - only these names need it

            value = borrowed.from_python_can(name)
        elif name in _HOME_OF:
            value = getattr(importlib.import_module(_HOME_OF[name]), name)
        else:
            raise AttributeError(f"module 'canbroker' has no attribute {name!r}")
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_MODULES})
