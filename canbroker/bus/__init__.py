"""What a Bus is made of, in the user's process.

It finds the broker, attaches to a channel, receives, sends, follows the channel's state, and ends
in order. In python-can, ``BusABC``, ``BusState`` and ``CanProtocol`` are in a module of this name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from canbroker.client import BusABC, BusState, CanProtocol

__all__ = ["BusABC", "BusState", "CanProtocol"]

if not TYPE_CHECKING:  # so that type checkers report unknown names

    def __getattr__(name: str) -> Any:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from canbroker import client  # noqa: PLC0415 - it imports this package

        return getattr(client, name)
