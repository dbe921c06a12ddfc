"""What was on a channel just now, as text for people."""

from __future__ import annotations

from typing import Final

from canbroker import clock
from canbroker.candump import format_log_line
from canbroker.fabric.asking import Asker
from canbroker.fabric.sockets import Context
from canbroker.filters import EVERYTHING
from canbroker.frame import HARDWARE_TIMESTAMP, EchoFrame
from canbroker.runtime import Runtime
from canbroker.wire import WireError
from canbroker.wire.topics import route_topic

#: A channel answers at once; a report should not wait long for one that is gone.
_ANSWER_S: Final = 2.0

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
        frames = _recent(Runtime.at(broker), channel, seconds)
    except WireError as error:
        return f"cannot be read: {error}"
    if frames is None:
        return "cannot be read: the channel does not answer"
    frames = [frame for frame in frames if _is_since(frame, since_ns)]
    left_out = len(frames) - _MAX_LINES
    name = "_".join(channel.split())  # blanks separate fields
    lines = [format_log_line(frame, name) for frame in frames[-_MAX_LINES:]]
    if left_out > 0:
        lines.insert(0, f"({left_out} frames before these)")
    return "\n".join(lines) or "no frame"


def _is_since(frame: EchoFrame, since_ns: int) -> bool:
    # An adapter's own clock may be any.
    return frame.timestamp_ns >= since_ns or bool(frame.flags & HARDWARE_TIMESTAMP)


def _recent(runtime: Runtime, channel: str, seconds: float) -> list[EchoFrame] | None:
    """``None``: the channel does not answer."""
    topic = route_topic(channel, EVERYTHING)
    context = Context()
    asker = Asker(context, runtime.channel_endpoint(channel, "ctl"))
    try:
        answer = asker.history(topic, seconds, None, clock.deadline_after(_ANSWER_S))
    finally:
        asker.close()
        context.close()
    return None if answer is None else answer[0]
