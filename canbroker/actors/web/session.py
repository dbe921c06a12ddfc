"""One open page: what it looks at, and what it is told of that every 100 ms."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final, Protocol

import msgspec
from starlette.websockets import WebSocket, WebSocketDisconnect

from canbroker.actors.web import requests
from canbroker.actors.web.decoders import Signals
from canbroker.actors.web.guard import POLICY
from canbroker.actors.web.rows import told_frames, told_row
from canbroker.actors.web.watching import Watched
from canbroker.model.filters import EVERYTHING, FilterSet
from canbroker.system import clock
from canbroker.view.table import Row, Table

#: Limits of a page's requests: how many in a row, and how many a second.
_BURST: Final = 40
_PER_SECOND: Final = 20

#: Frames of a live trace in one tick: nobody reads more.
_TRACED: Final = 40

#: Code of the end of a socket that sends other than text (RFC 6455).
_UNSUPPORTED: Final = 1003


class Source(Protocol):
    """Where a session finds what it tells."""

    @property
    def status(self) -> tuple[int, msgspec.Raw]:
        """Version and JSON of what the broker says of itself."""

    def enter(self, channel: str) -> Watched | None:
        """Begins to look at a channel; ``None``: pages look at too many already."""

    def leave(self, watched: Watched) -> None:
        """Ends that."""

    def want_tasks(self, number: int) -> None:
        """Adds to the number of pages that show the periodic tasks; a negative number subtracts."""

    async def tick(self) -> None:
        """Returns at the next tick."""

    def note(self, kind: str, detail: str) -> None:
        """Counts what was refused."""


class Session:
    """A page's socket. A message is only made when the page has taken the one before it, and has
    what changed since then; so a slow page costs one message."""

    def __init__(self, socket: WebSocket, source: Source) -> None:
        self._socket = socket
        self._source = source
        self._watched: Watched | None = None
        self._known: tuple[int, int] | None = None  # the table that the page has
        self._tick = 0  # up to which it has it
        self._shown: frozenset[int] = frozenset()
        self._decoded: frozenset[int] = frozenset()  # rows whose signals the page has
        self._plotted: list[tuple[str, str]] = []
        self._traces = False
        self._filters: FilterSet = EVERYTHING
        self._traced: int | None = None  # frames of the channel that the page has, or skipped
        self._trace_fault: str | None = None  # that the page is to be told
        self._status = 0
        self._tasks = False
        self._problem: str | None = None
        self._missed = 0
        self._tokens = float(_BURST)
        self._counted_ns = clock.monotonic_ns()

    async def run(self, greeting: dict[str, Any]) -> None:
        """Serves until the page is closed. ``greeting`` is what it is told first."""
        await self._socket.accept()
        listening = asyncio.create_task(self._listen())
        telling = asyncio.create_task(self._tell(greeting))
        try:
            await asyncio.wait((listening, telling), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (listening, telling):
                task.cancel()
            for task in (listening, telling):
                with suppress(asyncio.CancelledError, WebSocketDisconnect):
                    await task
            self._leave()
            if self._tasks:
                self._source.want_tasks(-1)

    # ------------------------------------------------------------------------- what it asks for

    async def _listen(self) -> None:
        while True:
            message = await self._socket.receive()
            if message["type"] == "websocket.disconnect":
                return
            text = message.get("text")
            if text is None:
                await self._refuse(_UNSUPPORTED, "a page sends text")
                return
            if not self._is_slow_enough():
                await self._refuse(POLICY, f"more than {_PER_SECOND} requests a second")
                return
            try:
                self._serve(requests.parse(text))
            except ValueError as error:
                await self._refuse(POLICY, str(error))
                return

    async def _refuse(self, code: int, why: str) -> None:
        self._source.note("request", why)
        await self._socket.close(code, why[:100])

    def _is_slow_enough(self) -> bool:
        now_ns = clock.monotonic_ns()
        gained = (now_ns - self._counted_ns) / clock.SECOND * _PER_SECOND
        self._tokens = min(float(_BURST), self._tokens + gained) - 1
        self._counted_ns = now_ns
        return self._tokens >= 0

    def _serve(self, request: requests.Request) -> None:
        """:raises ValueError: it asks for what makes no sense."""
        match request:
            case requests.Watch(channel):
                self._watch(channel)
            case requests.Show(keys):
                self._shown = frozenset(keys)
                self._decoded &= self._shown
            case requests.Plot(signals):
                self._plotted = signals
            case requests.Trace(on, filters):
                self._trace_what(on, filters)
            case requests.Tasks(on):
                if on != self._tasks:
                    self._source.want_tasks(1 if on else -1)
                self._tasks = on

    def _trace_what(self, on: bool, filters: str) -> None:
        """A person types filters: what is wrong with them is told, and nothing is shown."""
        self._traced, self._traces, self._trace_fault = None, on, ""
        try:
            self._filters = requests.parse_filters(filters)
        except ValueError as error:
            self._traces, self._trace_fault = False, str(error)

    def _watch(self, channel: str | None) -> None:
        self._leave()
        if channel is not None:
            self._watched = self._source.enter(channel)
            if self._watched is None:
                raise ValueError("too many channels are looked at")

    def _leave(self) -> None:
        if self._watched is not None:
            self._source.leave(self._watched)
        self._watched = None
        self._known, self._tick, self._problem, self._missed = None, 0, None, 0
        self._shown = self._decoded = frozenset()
        self._plotted, self._traced = [], None

    # --------------------------------------------------------------------------- what it is told

    async def _tell(self, greeting: dict[str, Any]) -> None:
        await self._send(greeting)
        while True:
            await self._source.tick()
            if told := self._news():
                await self._send(told)

    async def _send(self, told: dict[str, Any]) -> None:
        await self._socket.send_text(msgspec.json.encode(told).decode())

    def _news(self) -> dict[str, Any]:
        """What has changed since the last message, if anything."""
        told: dict[str, Any] = {}
        version, status = self._source.status
        if version != self._status:
            self._status = version
            told["status"] = status
        if self._watched is not None and (channel := self._channel_news(self._watched)):
            told["channel"] = {"name": self._watched.name, **channel}
        return told

    def _channel_news(self, watched: Watched) -> dict[str, Any]:
        told: dict[str, Any] = {}
        if self._trace_fault is not None:
            told["traced"], self._trace_fault = self._trace_fault, None
        if watched.problem != self._problem:
            self._problem = told["problem"] = watched.problem
        follower = watched.follower
        if follower is None:
            return told
        with follower.lock:
            table = follower.view.table
            known = (watched.opened, table.generation)
            if known != self._known:
                self._known, self._tick, self._decoded = known, 0, frozenset()
                told["new"] = True
                told["signals"] = watched.signals.told()
                told["fault"] = watched.signals.problem
                self._traced = None
            changed = table.changed_since(self._tick)
            rows = watched.told(self._tick, lambda: list(map(told_row, changed)))
            decoded = self._decode(watched, table, changed)
            plotted = self._plot(watched.signals, table)
            self._tick = watched.ticked
            traced = self._trace(watched) if self._traces else {}
            missed = follower.view.missed + table.unlisted
        if missed != self._missed:
            self._missed = told["missed"] = missed
        if changed:
            told["rows"] = rows
        if decoded:
            told["decoded"] = decoded
        if plotted:
            told["plot"] = plotted
        return told | traced

    def _decode(self, watched: Watched, table: Table, changed: Sequence[Row]) -> dict[int, Any]:
        """What the rows mean that can be seen, and have changed or come into view."""
        if watched.signals.decoder is None or not self._shown:
            return {}
        keys = {row.key for row in changed if row.key in self._shown}
        keys |= self._shown - self._decoded
        self._decoded = self._shown
        decoded = {}
        for key in keys:
            row = table.rows.get(key)
            if row is not None:
                decoded[key] = watched.decoded(row)
        return decoded

    def _plot(self, signals: Signals, table: Table) -> list[Any]:
        """The time (ms, wall) and the values now; ``None`` where there is none."""
        if not self._plotted or signals.decoder is None:
            return []
        wanted = {message for message, _ in self._plotted}
        values: dict[tuple[str, str], float | None] = {}
        newest: dict[str, int] = {}
        for row in table.rows.values():
            name = signals.decoder.name_of(row.last)
            if name not in wanted or row.last.timestamp_ns < newest.get(name, 0):
                continue
            newest[name] = row.last.timestamp_ns
            decoded = signals.decoder.decode(row.last)
            for each in decoded.signals if decoded is not None else ():
                values[name, each.name] = each.value
        told = [values.get(each) for each in self._plotted]
        return [clock.wall_ns() // clock.MILLISECOND, *told]

    def _trace(self, watched: Watched) -> dict[str, Any]:
        """New frames; ``skipped``: how many more there were."""
        recent = watched.recent
        since = recent.count if self._traced is None else self._traced
        self._traced = recent.count
        frames = recent.since(since)
        skipped = recent.count - since - len(frames)
        if self._filters is not EVERYTHING:
            frames = [
                each for each in frames if self._filters.matches(each.arbitration_id, each.flags)
            ]
        shown = frames[-_TRACED:]
        skipped += len(frames) - len(shown)
        if not shown and not skipped:
            return {}
        return {"trace": told_frames(shown, watched.signals), "skipped": skipped}
