"""The channels that open pages look at: each is followed while there is a page that does."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import msgspec

from canbroker.actors.web.decoders import NO_SIGNALS, Databases
from canbroker.client import Bus
from canbroker.delivery.tap import Event, Frames
from canbroker.errors import CanError
from canbroker.model.frame import EchoFrame
from canbroker.system import clock
from canbroker.view.channel import ChannelView
from canbroker.view.follower import Follower
from canbroker.view.table import Row

#: Frames of a channel that a live trace can show.
RECENT: Final = 1000

#: The most channels that pages look at.
MAX_WATCHED: Final = 32

#: A channel is followed for this long after the last page has left it: a page may be reloaded.
_LINGER_NS: Final = 5 * clock.SECOND

#: A channel that cannot be opened, or that has ended, is tried again after this time.
_RETRY_NS: Final = clock.SECOND

_logger = logging.getLogger(__name__)


class Recent:
    """The last frames of a channel. ``count``: of all that have come since it was opened."""

    def __init__(self) -> None:
        self.count = 0
        self._frames: deque[EchoFrame] = deque(maxlen=RECENT)

    def note(self, events: Sequence[Event]) -> None:
        """Takes the events of a tap."""
        for event in events:
            if isinstance(event, Frames):
                self.count += len(event.frames)
                self._frames.extend(event.frames)

    def since(self, count: int) -> list[EchoFrame]:
        """The frames behind the first ``count``, as far as they are still here."""
        new = min(self.count - count, len(self._frames))
        if new <= 0:
            return []
        return list(self._frames)[-new:]


class Watched:
    """A channel that pages look at. ``opened`` grows each time that it was opened anew, or that its
    ``signals`` have become known: what pages have of it is out of date then."""

    def __init__(self, name: str, address: str | None, databases: Databases) -> None:
        self.name = name
        self.opened = 0
        self.pages = 0
        self.recent = Recent()
        self.follower: Follower | None = None
        self.ticked = 0  # the last tick of its table
        self.signals = NO_SIGNALS
        self._address = address
        self._databases = databases
        self._fault = ""
        self._retry_at = 0
        self._close_at: int | None = None
        self._working: asyncio.Future[None] | None = None
        # What pages are told of this tick: rows, and their signals.
        self._told: dict[tuple[int, int], msgspec.Raw] = {}
        self._decoded: dict[tuple[int, int], msgspec.Raw] = {}

    @property
    def problem(self) -> str:
        """Why nothing comes; empty if all is well."""
        follower = self.follower
        return self._fault if follower is None else follower.view.problem

    def tick(self, now_ns: int) -> None:
        """Ends a tick of its table. Call it every 100 ms."""
        self._told.clear()
        self._decoded.clear()
        if self.follower is not None:
            with self.follower.lock:
                self.ticked = self.follower.view.table.tick(now_ns)

    def told(self, since: int, rows: Callable[[], list[Any]]) -> msgspec.Raw:
        """``rows()`` as JSON: those that have changed since a tick, encoded once for all pages."""
        key = self.opened, since
        if key not in self._told:
            self._told[key] = msgspec.Raw(msgspec.json.encode(rows()))
        return self._told[key]

    def decoded(self, row: Row) -> msgspec.Raw:
        """The signals of a row as JSON, encoded once for all pages."""
        key = self.opened, row.key
        if key not in self._decoded:
            decoded = self.signals.decode(row.last)
            self._decoded[key] = msgspec.Raw(msgspec.json.encode(decoded))
        return self._decoded[key]

    def step(self, now_ns: int, pool: ThreadPoolExecutor) -> bool:
        """Opens or closes it, as needed. Returns whether it is still needed."""
        if self._working is not None:
            if not self._working.done():
                return True
            self._working = None
        if self.pages:
            self._close_at = None
        elif self._close_at is None:
            self._close_at = now_ns + _LINGER_NS
        is_free = self._close_at is not None and now_ns >= self._close_at
        if self.follower is not None and (is_free or self.follower.view.ended):
            self._fault = self.follower.view.problem
            self._retry_at = now_ns + _RETRY_NS
            self._work(self._close, pool)
            return True
        if self.follower is None and not is_free and now_ns >= self._retry_at:
            self._retry_at = now_ns + _RETRY_NS
            self._work(self._open, pool)
            return True
        return not is_free or self.follower is not None

    def _work(self, what: Callable[[], None], pool: ThreadPoolExecutor) -> None:
        """In a thread: opening an adapter, and closing it, may take seconds."""
        self._working = asyncio.get_running_loop().run_in_executor(pool, what)

    def _open(self) -> None:
        recent = Recent()
        try:
            bus = Bus(self.name, broker=self._address, ignore_config=True)
            try:
                follower = Follower(self.name, bus, recent.note)
            except BaseException:
                bus.shutdown()
                raise
        except (CanError, ValueError) as error:
            if str(error) != self._fault:
                _logger.info("channel %r cannot be shown: %s", self.name, error)
            self._fault = str(error)
            return
        self._fault = ""
        self.recent, self.follower = recent, follower
        self.ticked = 0
        self.opened += 1
        signals = self._databases.of(self.name)  # a large one takes seconds
        if signals != self.signals:
            self.signals = signals
            self.opened += 1

    def _close(self) -> None:
        follower, self.follower = self.follower, None
        if follower is not None:
            try:
                follower.close()
            except CanError as error:  # the channel has gone; so have we
                _logger.info("channel %r: %s", self.name, error)

    def close(self) -> None:
        """Closes it, and waits for that."""
        self._close()


class Watching:
    """All channels that pages look at, by name. Used in the event loop."""

    def __init__(self, address: str | None, databases: Databases) -> None:
        """``address``: of the broker."""
        self.channels: dict[str, Watched] = {}
        self._address = address
        self._databases = databases
        self._pool = ThreadPoolExecutor(4, thread_name_prefix="open")

    def enter(self, name: str) -> Watched | None:
        """One more page looks at this channel; ``None`` if there are too many channels."""
        watched = self.channels.get(name)
        if watched is None:
            if len(self.channels) >= MAX_WATCHED:
                return None
            watched = self.channels[name] = Watched(name, self._address, self._databases)
        watched.pages += 1
        return watched

    def leave(self, watched: Watched) -> None:
        """A page does not look at it any more."""
        watched.pages -= 1

    def step(self, now_ns: int) -> None:
        """Call it every 100 ms."""
        for name, watched in list(self.channels.items()):
            if watched.step(now_ns, self._pool):
                watched.tick(now_ns)
            else:
                del self.channels[name]

    def view(self, name: str) -> ChannelView | None:
        """What is known of a channel that is being followed."""
        watched = self.channels.get(name)
        return None if watched is None or watched.follower is None else watched.follower.view

    def close(self) -> None:
        """Closes all but what is being opened."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        for watched in self.channels.values():
            watched.close()
        self.channels.clear()
