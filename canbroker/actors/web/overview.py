"""What the broker says of itself, asked every second while somebody looks."""

from __future__ import annotations

import logging
from typing import Any, Final

import msgspec

from canbroker.bus import starting
from canbroker.errors import CanError, CanInitializationError
from canbroker.system import clock
from canbroker.view.channel import LoadHistory
from canbroker.view.running import RunningBroker
from canbroker.view.tasks import running_tasks
from canbroker.wire.status import BrokerStatus
from canbroker.wire.tasks import TaskStatus

#: The most tasks that the page is told.
_TASKS: Final = 500

_logger = logging.getLogger(__name__)


class Overview:
    """The broker's status. One thread at a time, as its methods wait.

    ``status``: the last one; ``None`` while no broker answers, and ``problem`` says why.
    ``tasks``: as far as they were asked for. ``loads``: of each channel, over time. ``told``: all
    of it as JSON, for pages; ``version`` grows with each.
    """

    def __init__(self, address: str | None) -> None:
        self.status: BrokerStatus | None = None
        self.problem = "the broker was not asked yet"
        self.tasks: list[TaskStatus] = []
        self.loads: dict[str, LoadHistory] = {}
        self.version = 0
        self.told = msgspec.Raw(b"{}")
        self._address = address
        self._running: RunningBroker | None = None

    def ask(self, *, tasks: bool) -> None:
        """Asks the broker. Never raises."""
        try:
            self.status = self._ask()
            self.tasks = self._ask_tasks(self.status) if tasks else []
            self.problem = ""
        except CanError as error:
            if self.status is not None:
                _logger.info("no status: %s", error)
            self.close()
            self.status, self.problem, self.tasks = None, str(error), []
        self._note_loads()
        self.told = msgspec.Raw(msgspec.json.encode(self._told()))
        self.version += 1

    def close(self) -> None:
        """Closes the connection to the broker; the next :meth:`ask` opens another one."""
        if self._running is not None:
            self._running.close()
            self._running = None

    def _ask(self) -> BrokerStatus:
        if self._running is None:
            self._running = RunningBroker(self._address)
        runtime = self._running.runtime
        if runtime is not None and not starting.is_running(runtime):
            raise CanInitializationError(f"no broker at {runtime.address}")
        return self._running.status()

    def _ask_tasks(self, status: BrokerStatus) -> list[TaskStatus]:
        if self._running is None:
            return []
        return running_tasks(status, (), self._running.context)

    def _note_loads(self) -> None:
        channels = self.status.channels if self.status is not None else []
        for channel in channels:
            if channel.state is not None:
                self.loads.setdefault(channel.name, LoadHistory()).note(channel.state)
        if self.status is not None:
            for name in self.loads.keys() - {channel.name for channel in channels}:
                del self.loads[name]

    def _told(self) -> dict[str, Any]:
        return {
            "at": clock.wall_ns() // clock.MILLISECOND,
            "broker": self.status,
            "problem": self.problem,
            "tasks": self.tasks[:_TASKS],
            "more_tasks": max(0, len(self.tasks) - _TASKS),
        }

    def told_loads(self) -> dict[str, list[tuple[int, float | None, float, float]]]:
        """Of each channel: time (ms, wall), load, frames per second received and sent."""
        return {
            name: [(each.wall_ns // clock.MILLISECOND, *each[1:]) for each in list(history.samples)]
            for name, history in list(self.loads.items())
        }
