"""A bus whose messages keep the time of their frame in nanoseconds."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Self

from canbroker.client import Bus
from canbroker.model.frame import Frame
from canbroker.model.message import Message


class TimedMessage(Message):
    """A received message. Its ``timestamp``, a float, holds some 240 ns; ``timestamp_ns`` is exact,
    and can be cut to the microseconds that candump would print."""

    __slots__ = ("timestamp_ns",)

    timestamp_ns: int

    @classmethod
    def from_frames(cls, frames: Iterable[Frame], channel: Any, is_rx: bool = True) -> list[Self]:
        frames = tuple(frames)
        messages = super().from_frames(frames, channel, is_rx)
        for message, frame in zip(messages, frames, strict=True):
            message.timestamp_ns = frame.timestamp_ns
        return messages


class TimedBus(Bus):
    """As :class:`canbroker.Bus`; what it receives is a :class:`TimedMessage`."""

    _message_type = TimedMessage
