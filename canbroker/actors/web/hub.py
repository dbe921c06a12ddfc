"""What all open pages share: the clock of their ticks, the broker's status, channels, databases."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

import msgspec

from canbroker.actors.web.decoders import Databases
from canbroker.actors.web.overview import Overview
from canbroker.actors.web.watching import Watched, Watching
from canbroker.system import clock
from canbroker.wire.tasks import TaskStatus

#: Pages are told what has changed this often.
TICK_S: Final = 0.1

_ASK_NS: Final = clock.SECOND

#: What takes time and is done for pages at once; others wait.
_THREADS: Final = 4
MAX_WAITING: Final = 16

_T = TypeVar("_T")

_logger = logging.getLogger(__name__)


class BusyError(Exception):
    """Too much is being done for pages already."""


class Hub:
    """Used in the event loop. :meth:`run` is its clock."""

    def __init__(
        self,
        address: str | None,
        databases: Sequence[str],
        note: Callable[[str, str], None],
    ) -> None:
        """
        :param address: the broker's.
        :param databases: files for channels that have none of their own.
        :param note: counts what was refused: its kind, and more about it.
        """
        self.address = address
        self.note = note
        self.pages = 0
        self.overview = Overview(address)
        self.databases = Databases(address, databases)
        self._watching = Watching(address, self.databases)
        self._with_tasks = 0
        self._ticked = asyncio.Event()
        self._asked: asyncio.Future[None] | None = None
        self._ask_at = 0
        self._asking = ThreadPoolExecutor(1, thread_name_prefix="status")
        self._working = ThreadPoolExecutor(_THREADS, thread_name_prefix="page")
        self._waiting = 0

    # ---------------------------------------------------------------------- what a session needs

    @property
    def status(self) -> tuple[int, msgspec.Raw]:
        """Version and JSON of what the broker says of itself."""
        return self.overview.version, self.overview.told

    def enter(self, channel: str) -> Watched | None:
        return self._watching.enter(channel)

    def leave(self, watched: Watched) -> None:
        self._watching.leave(watched)

    def want_tasks(self, number: int) -> None:
        """As :class:`~canbroker.actors.web.session.Source` has it."""
        self._with_tasks += number
        self._ask_at = 0

    async def tick(self) -> None:
        """Returns at the next tick."""
        await self._ticked.wait()

    # ---------------------------------------------------------------------- what a request needs

    async def work(self, what: Callable[..., _T], *arguments: Any) -> _T:
        """What ``what`` returns, called in a thread, as it takes time.

        :raises BusyError: too much waits for that already.
        """
        if self._waiting >= MAX_WAITING:
            self.note("busy", what.__name__)
            raise BusyError("too much is asked for at once")
        self._waiting += 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._working, what, *arguments)
        finally:
            self._waiting -= 1

    async def all_tasks(self) -> Sequence[TaskStatus]:
        """The periodic tasks, now; none if the broker or its scheduler does not answer."""
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._asking, lambda: self.overview.ask(tasks=True))
        return self.overview.tasks

    # -------------------------------------------------------------------------------- its clock

    async def run(self) -> None:
        """Ticks until it is cancelled."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            now_ns = clock.monotonic_ns()
            self._watching.step(now_ns)
            self._ask(now_ns)
            ticked, self._ticked = self._ticked, asyncio.Event()
            ticked.set()
            due = max(due + TICK_S, loop.time())  # what was late is not made up for
            await asyncio.sleep(due - loop.time())

    def _ask(self, now_ns: int) -> None:
        """Asks the broker for its status every second, while there are pages."""
        if self._asked is not None and self._asked.done():
            self._asked.result()
            self._asked = None
        if self._asked is None and now_ns >= self._ask_at and self.pages:
            self._ask_at = now_ns + _ASK_NS
            wanted = bool(self._with_tasks)
            self._asked = asyncio.get_running_loop().run_in_executor(
                self._asking, lambda: self.overview.ask(tasks=wanted)
            )

    def close(self) -> None:
        """Closes all. What is being done in threads goes on, as it cannot be interrupted."""
        for pool in (self._asking, self._working):
            pool.shutdown(wait=False, cancel_futures=True)
        self._watching.close()
        self.overview.close()
