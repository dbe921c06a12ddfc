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

__all__ = [
    "Bus",
    "BusState",
    "BusStats",
    "CanError",
    "CanInitializationError",
    "CanInterfaceNotImplementedError",
    "CanOperationError",
    "CanProtocol",
    "CanTimeoutError",
    "Message",
    "ThreadSafeBus",
    "detect_available_configs",
]
