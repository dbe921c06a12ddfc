"""A bus whose messages keep the time of their frame in nanoseconds."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from canbroker.client import Bus
from canbroker.frame import Frame
from canbroker.message import Message


class TimedMessage(Message):
    """A received message. Its ``timestamp``, a float, holds some 240 ns; ``timestamp_ns`` is exact,
    and can be cut to the microseconds that candump would print."""

    __slots__ = ("timestamp_ns",)

    timestamp_ns: int

    @staticmethod
    def from_frames(frames: Iterable[Frame], channel: Any, is_rx: bool = True) -> list[Message]:
        messages: list[Message] = []
        for frame in frames:
            plain = Message.from_frame(frame, channel, is_rx)
            values = {name: getattr(plain, name) for name in _VALUES}
            message = TimedMessage(**values)
            message.timestamp_ns = frame.timestamp_ns
            messages.append(message)
        return messages


_VALUES = tuple(name for name in Message.__slots__ if name != "__weakref__")


class TimedBus(Bus):
    """As :class:`canbroker.Bus`; what it receives is a :class:`TimedMessage`."""

    _from_frames = staticmethod(TimedMessage.from_frames)
