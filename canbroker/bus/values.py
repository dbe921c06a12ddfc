"""What a bus says of itself: its state, its protocol, its account."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import msgspec

from canbroker.model.message import Message
from canbroker.transport.sockets import Context
from canbroker.wire import control

ON_LOSS: Final = ("count", "raise")
ON_SLOW: Final = ("repair", "latest", "disconnect")
MAX_HISTORY_S: Final = 86_400


class BusState(enum.Enum):
    """What the controller may do: take part, only listen, or nothing."""

    ACTIVE = "active"
    PASSIVE = "passive"
    ERROR = "error"


class CanProtocol(enum.Enum):
    """The protocol that the channel was opened for; of a ``virtual`` one, that was asked for."""

    CAN_20 = "CAN 2.0"
    CAN_FD = "CAN FD"


@dataclass(frozen=True)
class Receiving:
    """How a bus receives.

    ``own``: also what it has sent. ``on_loss``: ``count`` what is lost, or ``raise``, too.
    ``on_slow``: when it has missed frames because it was slow, ``repair`` that, ``disconnect``,
    or have only the ``latest`` frame of each identifier, always. ``history``: seconds of the past
    to begin with. Messages are of the class ``message_type``.

    :raises ValueError: one of them is something else.
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


class Membership(NamedTuple):
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

    ``received``: arrived under the filters, this bus's own included, whether returned or not.
    ``lost``: sent to us and never arrived. ``repaired``: did not arrive, were asked for, and were
    received in their place. ``skipped``: older than the latest of their identifier, and not wanted
    (``on_slow="latest"``). ``dropped_upstream``: lost before the broker saw them.
    ``restarts``: times that the channel actor was replaced, and frames may have been missed.
    ``interruptions``: times that the adapter was lost, or closed to change its mode; what was on
    the bus then, nobody received. ``held_errors``: error frames of the channel beyond the broker's
    ``error_rate``, which it counts and passes on to nobody.
    ``receive_queue``: decoded and not yet taken. ``transmit_queue``: sent and not yet answered.
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
