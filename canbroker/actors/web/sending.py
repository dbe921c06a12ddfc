"""Sends a frame for a page, if the configuration permits it."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from canbroker.actors.web.options import WebOptions
from canbroker.client import Bus
from canbroker.errors import CanInitializationError
from canbroker.logs.candump import parse_frame
from canbroker.model.filters import NOTHING
from canbroker.model.frame import ERROR, EXTENDED, Frame
from canbroker.model.message import Message

#: A driver that works takes a frame at once; a busy bus may need the time.
_TAKEN_S: Final = 1.0


class SendRequest(msgspec.Struct, forbid_unknown_fields=True):
    """``channel``: the broker's name for it. ``frame``: in cansend's notation."""

    channel: Annotated[str, msgspec.Meta(min_length=1, max_length=300)]
    frame: Annotated[str, msgspec.Meta(max_length=300)]


def check(request: SendRequest, options: WebOptions) -> Frame:
    """The frame to send.

    :raises ValueError: it is not one.
    :raises PermissionError: it may not be sent from the page.
    """
    frame = parse_frame(request.frame.strip())
    extended = bool(frame.flags & EXTENDED)
    if not options.transmit:
        raise PermissionError("the configuration permits no frames from here: [web] transmit")
    if frame.flags & ERROR or not options.may_transmit(frame.arbitration_id, extended):
        raise PermissionError(
            f"the configuration permits {', '.join(options.transmit)} from here: [web] transmit"
        )
    return frame


def send(broker: str | None, channel: str, frame: Frame) -> None:
    """Returns when the driver has taken the frame. Takes about 20 ms.

    :raises CanError: it was not sent.
    """
    try:
        bus = Bus(channel, broker=broker, can_filters=NOTHING, ignore_config=True)
    except ValueError as error:
        raise CanInitializationError(str(error)) from error
    with bus:
        bus.send(Message.from_frame(frame, None, is_rx=False), timeout=_TAKEN_S)
