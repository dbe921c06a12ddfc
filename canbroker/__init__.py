"""Share CAN adapters between processes, through the Bus API that python-can documents.

Importing does nothing but import.
"""

from canbroker.client import Bus, BusState, BusStats, CanProtocol, ThreadSafeBus
from canbroker.detect import detect_available_configs
from canbroker.errors import (
    CanError,
    CanInitializationError,
    CanInterfaceNotImplementedError,
    CanOperationError,
    CanTimeoutError,
)
from canbroker.message import Message
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
    "Bus",
    "BusState",
    "BusStats",
    "CanError",
    "CanInitializationError",
    "CanInterfaceNotImplementedError",
    "CanOperationError",
    "CanProtocol",
    "CanTimeoutError",
    "Counter",
    "Crc8",
    "CyclicSendTaskABC",
    "CyclicTask",
    "LimitedDurationCyclicSendTaskABC",
    "Message",
    "ModifiableCyclicTaskABC",
    "PeriodicTask",
    "RestartableCyclicTaskABC",
    "ThreadSafeBus",
    "detect_available_configs",
]
