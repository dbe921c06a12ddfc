"""The values that a bus is asked for, and those that its parts share."""

from __future__ import annotations

import enum
from typing import Any, Final

import msgspec

from canbroker.model.message import Message
from canbroker.transport.sockets import Context
from canbroker.wire import control

ON_LOSS: Final = ("count", "raise")
ON_SLOW: Final = ("repair", "latest", "disconnect")
MAX_HISTORY_S: Final = 86_400


class BusState(enum.Enum):
    """Whether the controller takes part, only listens, or can do neither."""

    ACTIVE = "active"
    PASSIVE = "passive"
    ERROR = "error"


class CanProtocol(enum.Enum):
    """The protocol that the channel was opened for; for ``virtual``, the one that was asked for."""

    CAN_20 = "CAN 2.0"
    CAN_FD = "CAN FD"


class Receiving(msgspec.Struct, frozen=True):
    """How a bus receives.

    ``own``: whether it receives its own frames. ``on_loss``: ``count`` lost frames, or ``raise``
    as well. ``on_slow``: after missing frames because it was slow, ``repair`` the gap or
    ``disconnect``; ``latest`` always returns only the latest frame of each identifier.
    ``history``: seconds of the past to begin with. ``message_type``: the class of messages.

    :raises ValueError: an attribute has another value.
    """

    own: bool = False
    on_loss: Any = "count"
    on_slow: Any = "repair"
    history: Any = 0.0
    message_type: type[Message] = Message

    def __post_init__(self) -> None:
        for name, known in (("on_loss", ON_LOSS), ("on_slow", ON_SLOW)):
            value = getattr(self, name)
            if value not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}; got {value!r}")
        if not isinstance(self.history, (int, float)) or not 0 <= self.history <= MAX_HISTORY_S:
            raise ValueError(f"history must be 0 to {MAX_HISTORY_S} seconds, got {self.history!r}")


class Membership(msgspec.Struct, frozen=True):
    """A bus on its channel: what its parts need to take part there.

    ``attached`` has the endpoints. ``label`` is the user's name for the channel, which messages
    carry. ``claim`` describes us to people if we want the sole right to transmit.
    """

    context: Context
    attached: control.Attached
    client_id: str
    label: Any
    claim: str | None = None


class BusStats(msgspec.Struct, frozen=True, kw_only=True):
    """The account of one bus, in frames.

    ``received``: passed the filters and arrived, this bus's own included, returned or not.
    ``lost``: sent to us and never arrived. ``repaired``: did not arrive at first, were requested
    again, and were received in their place. ``skipped``: not returned, as a newer frame had the
    same identifier (``on_slow="latest"``). ``dropped_upstream``: lost before the broker saw them.
    ``restarts``: how often the channel actor was replaced, so that frames may be missing.
    ``interruptions``: how often the adapter was lost, or closed to change its mode; frames on the
    bus at such a time were received by nobody. ``held_errors``: error frames beyond the broker's
    ``error_rate``, which are counted only. ``receive_queue``: decoded and not yet returned.
    ``transmit_queue``: sent and not yet answered.

    For a broker that is reached by TCP, ``round_trip`` is how long a message takes there and back,
    and ``clock_offset`` what the wall clock there, which time stamps are from, shows more than
    ours; both in seconds, ``None`` for a broker of this host.
    """

    received: int
    sent: int
    failed: int
    lost: int
    repaired: int
    skipped: int
    dropped_upstream: int
    restarts: int
    interruptions: int
    held_errors: int
    receive_queue: int
    transmit_queue: int
    round_trip: float | None = None
    clock_offset: float | None = None
