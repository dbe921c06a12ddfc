"""python-can's table of interfaces and their drivers: whatever ``can.interfaces`` has."""

from __future__ import annotations

from typing import Any

from canbroker.names import borrowed


def __getattr__(name: str) -> Any:
    return borrowed.from_python_can(name, "can.interfaces")
