"""python-can's name for where ``BusABC`` and what a bus says of itself are."""

from canbroker.client import BusABC, BusState, CanProtocol

__all__ = ["BusABC", "BusState", "CanProtocol"]
