"""How full an adapter's own transmit queue is, estimated from the time that frames take.

The adapter says when its queue is full, by refusing; then a frame behind the refused one may
already be under way, and be taken. Knowing roughly how full the queue is keeps it from that.
"""

from __future__ import annotations

from typing import Final

from canbroker.model.bus_time import nominal_time_ns
from canbroker.model.frame import Frame

#: However long a burst or a busy bus: the queue itself is not longer than this.
_LONGEST: Final = 64

#: A frame is longer by stuff bits, at most one for each four (ISO 11898-1). The estimate shall not
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
        self._until_ns = 0  # when the adapter will have sent all that it was given
        self._frame_ns = 0  # one frame, as of the last

    def sent(self, frame: Frame, now_ns: int) -> None:
        """The adapter was given a frame."""
        if self._bitrate:
            self._frame_ns = self._time(self._bitrate, frame)
            start = max(now_ns, self._until_ns)
            self._until_ns = min(start, now_ns + _LONGEST * self._frame_ns) + self._frame_ns

    def received(self, frame: Frame, now_ns: int) -> None:
        """Another node had the bus for a frame, while ours were waiting."""
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
