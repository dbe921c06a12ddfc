"""The share of a bus's time that the periodic tasks need."""

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
        """Adds a task, unless the channel's ``state`` does not tell the bit rate."""
        if state is None or not state.bitrate:
            return
        times = [nominal_time_ns(frame, state.bitrate, state.data_bitrate) for frame in task.frames]
        share = sum(times) / len(times) / task.period_ns
        self._shares[task] = share
        self._sum += share

    def remove(self, task: Task) -> None:
        self._sum -= self._shares.pop(task, 0)
        if not self._shares:
            self._sum = 0  # removes rounding errors

    def warning(self, channel: str, state: StateEvent | None) -> str:
        """A warning if the tasks need more than the whole bus; else empty."""
        if self._sum <= 1 or state is None:
            return ""
        return (
            f"the periodic tasks on {channel!r} ask for {self._sum:.0%} "
            f"of the bus at {state.bitrate} bit/s"
        )
