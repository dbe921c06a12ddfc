"""What a bus says of itself: its state, its protocol, its account."""

from __future__ import annotations

import enum

import msgspec


class BusState(enum.Enum):
    """What the controller may do: take part, only listen, or nothing."""

    ACTIVE = "active"
    PASSIVE = "passive"
    ERROR = "error"


class CanProtocol(enum.Enum):
    """The protocol that the channel was opened for."""

    CAN_20 = "CAN 2.0"
    CAN_FD = "CAN FD"


class BusStats(msgspec.Struct, frozen=True, kw_only=True):
    """The account of one bus, in frames.

    ``received``: arrived under the filters, this bus's own included, whether returned or not.
    ``lost``: sent to us and never arrived. ``repaired``: did not arrive, were asked for, and were
    received in their place. ``dropped_upstream``: lost before the broker saw them.
    ``restarts``: times that the channel actor was replaced, and frames may have been missed.
    ``interruptions``: times that the adapter was lost, or closed to change its mode; what was on
    the bus then, nobody received.
    ``receive_queue``: decoded and not yet taken. ``transmit_queue``: sent and not yet answered.
    """

    received: int
    sent: int
    failed: int
    lost: int
    repaired: int
    dropped_upstream: int
    restarts: int
    interruptions: int
    receive_queue: int
    transmit_queue: int
