"""How much of a bus's time the periodic tasks ask for."""

from __future__ import annotations

from canbroker.actors.scheduler.schedule import Task
from canbroker.model.bus_time import nominal_time_ns
from canbroker.wire.stream import StateEvent


class BusLoad:
    """The sum for one channel. One thread."""

    def __init__(self) -> None:
        self._shares: dict[Task, float] = {}
        self._sum = 0.0

    def add(self, task: Task, state: StateEvent | None) -> None:
        """``state`` is the channel's; nothing is added if that does not tell the bit rate."""
        if state is None or not state.bitrate:
            return
        times = [nominal_time_ns(frame, state.bitrate, state.data_bitrate) for frame in task.frames]
        share = sum(times) / len(times) / task.period_ns
        self._shares[task] = share
        self._sum += share

    def remove(self, task: Task) -> None:
        self._sum -= self._shares.pop(task, 0)
        if not self._shares:
            self._sum = 0  # and no rounding errors stay

    def warning(self, channel: str, state: StateEvent | None) -> str:
        """Says so if the tasks ask for more than the whole bus; else empty."""
        if self._sum <= 1 or state is None:
            return ""
        return (
            f"the periodic tasks on {channel!r} ask for {self._sum:.0%} "
            f"of the bus at {state.bitrate} bit/s"
        )
