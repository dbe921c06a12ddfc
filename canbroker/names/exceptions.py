"""python-can's name for where the exceptions are."""

from canbroker.errors import (
    CanError,
    CanInitializationError,
    CanInterfaceNotImplementedError,
    CanLossError,
    CanOperationError,
    CanPermissionError,
    CanTimeoutError,
)

__all__ = [
    "CanError",
    "CanInitializationError",
    "CanInterfaceNotImplementedError",
    "CanLossError",
    "CanOperationError",
    "CanPermissionError",
    "CanTimeoutError",
]
