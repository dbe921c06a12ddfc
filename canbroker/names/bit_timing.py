"""python-can's name for where its bit timings are, which are its own."""

from __future__ import annotations

from typing import Any

from canbroker.names import borrowed


def __getattr__(name: str) -> Any:
    if name not in {"BitTiming", "BitTimingFd"}:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return borrowed.from_python_can(name)
