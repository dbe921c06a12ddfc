"""What a Bus is made of, in the user's process.

It finds the broker, is given a channel, receives, sends, watches the channel, and ends in order.
Also python-can's name for where ``BusABC`` and what a bus says of itself are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from canbroker.client import BusABC, BusState, CanProtocol

__all__ = ["BusABC", "BusState", "CanProtocol"]

if not TYPE_CHECKING:  # where a name that is not there shall be an error

    def __getattr__(name: str) -> Any:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from canbroker import client  # noqa: PLC0415 - it is made of what is in this package

        return getattr(client, name)
