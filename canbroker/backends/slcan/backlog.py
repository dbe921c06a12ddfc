"""Estimates how full an adapter's transmit queue is, from the time that frames take on the bus.

The adapter refuses a frame when its queue is full. By then a later frame may be on its way and be
accepted, out of order. An estimate of the fill level avoids this.
"""

from __future__ import annotations

from typing import Final

from canbroker.model.bus_time import nominal_time_ns
from canbroker.model.frame import Frame

#: No adapter queues more frames than this, however long the burst or busy the bus.
_LONGEST: Final = 64

#: Stuff bits make a frame longer, by one bit in four at most (ISO 11898-1). The estimate must not
#: run ahead of the bus.
_STUFFING: Final = 1.25


class Backlog:
    """Pure; times are monotonic ns. Without a known ``bitrate`` it is always :meth:`deep`.

    ``depth`` is the number of frames that the adapter's queue certainly holds.
    """

    def __init__(self, bitrate: int | None, data_bitrate: int | None, depth: int) -> None:
        self._depth = depth
        self._bitrate = bitrate
        self._data_bitrate = data_bitrate
        self._until_ns = 0  # when the adapter will have sent all its frames
        self._frame_ns = 0  # the duration of the last frame

    def sent(self, frame: Frame, now_ns: int) -> None:
        """The adapter was given a frame."""
        if self._bitrate:
            self._frame_ns = self._time(self._bitrate, frame)
            start = max(now_ns, self._until_ns)
            self._until_ns = min(start, now_ns + _LONGEST * self._frame_ns) + self._frame_ns

    def received(self, frame: Frame, now_ns: int) -> None:
        """Another node used the bus for a frame, while ours were waiting."""
        if self._bitrate and self._until_ns > now_ns:
            self._until_ns += self._time(self._bitrate, frame)

    def deep(self, now_ns: int) -> bool:
        """Whether more than ``depth`` frames may be in the queue."""
        return not self._bitrate or now_ns < self.shallow_ns()

    def shallow_ns(self) -> int:
        """When it will no longer be deep."""
        return self._until_ns - self._depth * self._frame_ns

    def _time(self, bitrate: int, frame: Frame) -> int:
        return int(_STUFFING * nominal_time_ns(frame, bitrate, self._data_bitrate))
