"""python-can's name for where the classes of periodic tasks are."""

from canbroker.bus.periodic.cyclic import (
    CyclicSendTaskABC,
    CyclicTask,
    LimitedDurationCyclicSendTaskABC,
    ModifiableCyclicTaskABC,
    RestartableCyclicTaskABC,
)

__all__ = [
    "CyclicSendTaskABC",
    "CyclicTask",
    "LimitedDurationCyclicSendTaskABC",
    "ModifiableCyclicTaskABC",
    "RestartableCyclicTaskABC",
]
