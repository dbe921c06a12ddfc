"""What was on a channel just now, for the report of a test."""

from __future__ import annotations

from typing import Final

from canbroker.bus.history import recent_frames
from canbroker.errors import CanOperationError
from canbroker.logs.candump import format_log_line
from canbroker.model.frame import HARDWARE_TIMESTAMP, EchoFrame

#: Nobody reads more in a report.
_MAX_LINES: Final = 1000


def candump(broker: str, channel: str, seconds: float, since_ns: int) -> str:
    """The last frames of a channel as lines of ``candump -L``, or why they are not there.

    :param broker: address.
    :param channel: the broker's name for it.
    :param seconds: frames that are older are left out, and of the others all but the last 1000.
    :param since_ns: wall clock; so are frames from before, as far as their timestamps tell.
    """
    try:
        frames = recent_frames(broker, channel, seconds).frames
    except CanOperationError as error:
        return f"cannot be read: {error}"
    frames = [frame for frame in frames if _is_since(frame, since_ns)]
    left_out = len(frames) - _MAX_LINES
    lines = [format_log_line(frame, channel) for frame in frames[-_MAX_LINES:]]
    if left_out > 0:
        lines.insert(0, f"({left_out} frames before these)")
    return "\n".join(lines) or "no frame"


def _is_since(frame: EchoFrame, since_ns: int) -> bool:
    # An adapter's own clock may be any.
    return frame.timestamp_ns >= since_ns or bool(frame.flags & HARDWARE_TIMESTAMP)
