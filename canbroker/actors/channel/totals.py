"""Counts of a channel's frames since the epoch, and their rates."""

from __future__ import annotations

from canbroker.backends import Backend, Transmit
from canbroker.model.bus_time import nominal_time_ns
from canbroker.model.frame import EchoFrame, Frame
from canbroker.system import clock


class Totals:
    """Counts since the epoch, and rates and bus load of the last period. Times are monotonic ns."""

    def __init__(self) -> None:
        self.received = 0
        self.transmitted = 0
        self.failed = 0
        self.interruptions = 0  # times that the adapter was lost
        self.dropped_before = 0  # by backends that are closed
        self.received_rate = 0.0
        self.transmitted_rate = 0.0
        self.load = 0.0
        self._busy_ns = 0
        self._since = (0, 0, 0)  # (ns, received, transmitted)

    def count(self, backend: Backend, frames: list[Frame], finished: list[Transmit]) -> None:
        echoed = 0  # in loops, as this is done for each frame
        for frame in frames:
            if isinstance(frame, EchoFrame):
                echoed += 1
        self.received += len(frames) - echoed
        self.transmitted += echoed
        for transmit in finished:
            if transmit.failure is not None:
                self.failed += 1
        bitrate = backend.bitrate
        if bitrate:
            self._busy_ns += sum(
                nominal_time_ns(frame, bitrate, backend.data_bitrate) for frame in frames
            )

    def period(self, now: int) -> None:
        """Ends a period that has lasted at least half a second, and computes its rates."""
        at, received, transmitted = self._since
        seconds = (now - at) / clock.SECOND
        if seconds < 0.5:
            return
        self.received_rate = (self.received - received) / seconds
        self.transmitted_rate = (self.transmitted - transmitted) / seconds
        self.load = min(1.0, self._busy_ns / (now - at))
        self._busy_ns = 0
        self._since = (now, self.received, self.transmitted)
