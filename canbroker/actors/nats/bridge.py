"""The bridge: keeps the channels open, connects to NATS, again and again, and says how it is."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final

import msgspec
from nats.aio.client import Client
from nats.errors import Error

from canbroker.actors.ending import ended_by
from canbroker.actors.nats.commands import Commands
from canbroker.actors.nats.line import Line
from canbroker.actors.nats.options import NatsOptions
from canbroker.actors.nats.session import Session, TroubleError
from canbroker.actors.nats.values import Values
from canbroker.errors import CanError
from canbroker.jetstream.server import Server, connect
from canbroker.system import clock
from canbroker.transport.waiter import Descriptor

_LOOK_S: Final = 0.1
_REPORT_NS: Final = clock.SECOND

#: The least time between the beginnings of two connections: longer each time, until one has worked.
_FIRST_S: Final = 0.1
_MOST_S: Final = 2.0

#: A dead server is noticed after twice this time without an answer, also if nothing is published.
_PING_S: Final = 3

#: What is on the way when the broker ends us has this long to arrive; see ``actors.lifelines``.
_LAST_S: Final = 1.0

#: A server that is there answers sooner that it has got everything.
_CLOSE_S: Final = 2.0

#: Characters of what the broker is told is wrong.
_SHOWN: Final = 500

_logger = logging.getLogger(__name__)


class Bridge:
    """One event loop.

    ``trouble``: why nothing is published; empty if all is well.
    """

    def __init__(self, options: NatsOptions, broker: str) -> None:
        """``broker``: its address. Opens nothing."""
        self.trouble = "not connected yet"
        self._options = options
        self._lines = [Line(options.site, options.bench, name, broker) for name in options.channels]
        self._values = Values(options, broker)
        self._commands = Commands(options, broker)
        self._session: Session | None = None
        self._server = ""
        self._stream = ""  # which has our frames, if we have found it
        self._has_values = False  # there is a stream of states and signals
        self._connections = 0
        self._turn = 0  # which server of a cluster is tried first
        self._recent = ""  # the last trouble, until it was reported

    def __repr__(self) -> str:
        return f"<Bridge {self._options.server.shown} {self.trouble or 'publishes'}>"

    def run(self, ends: Sequence[Descriptor], report: Callable[[dict[str, Any]], None]) -> None:
        """Publishes until one of ``ends`` becomes readable; calls ``report`` every second."""
        asyncio.run(self._run(ends, report))

    async def _run(
        self, ends: Sequence[Descriptor], report: Callable[[dict[str, Any]], None]
    ) -> None:
        with ended_by(ends) as is_over:
            await self._work(is_over, report)

    async def _work(self, is_over: asyncio.Event, report: Callable[[dict[str, Any]], None]) -> None:
        tasks = [
            asyncio.create_task(self._look_after_channels(report)),
            asyncio.create_task(self._connect_again(is_over)),
        ]
        over = asyncio.create_task(is_over.wait())
        try:
            await asyncio.wait([*tasks, over], return_when=asyncio.FIRST_COMPLETED)
            is_over.set()
            await asyncio.wait(tasks[1:])
        finally:
            for task in (*tasks, over):
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            self._commands.close()
            self._values.close()
            for line in self._lines:
                line.close()
        for result in results:
            if isinstance(result, Exception):
                raise result

    async def _look_after_channels(self, report: Callable[[dict[str, Any]], None]) -> None:
        """Opens channels, also those that have ended, and reports."""
        report_ns = 0
        while True:
            now_ns = clock.monotonic_ns()
            for line in self._lines:
                line.poll(now_ns)
            if now_ns >= report_ns:
                report_ns = now_ns + _REPORT_NS
                report(self.report())
            await asyncio.sleep(_LOOK_S)

    # ------------------------------------------------------------------------------ connecting

    async def _connect_again(self, is_over: asyncio.Event) -> None:
        pause_s = _FIRST_S
        loop = asyncio.get_running_loop()
        while not is_over.is_set():
            published, began = self._published(), loop.time()
            try:
                await self._connect(is_over)
            except (TroubleError, CanError) as error:
                if str(error) != self.trouble:
                    _logger.warning("%s", error)
                self.trouble = self._recent = str(error)
            pause_s = _FIRST_S if self._published() > published else min(2 * pause_s, _MOST_S)
            try:
                await asyncio.wait_for(is_over.wait(), max(0.0, began + pause_s - loop.time()))
            except TimeoutError:
                continue

    def _published(self) -> int:
        return sum(line.totals.messages for line in self._lines)

    async def _connect(self, is_over: asyncio.Event) -> None:
        """One connection, until it fails, or all is over."""
        options = self._options
        session: Session | None = None

        async def on_error(error: Exception) -> None:
            if session is not None:
                await session.on_error(error)

        async def on_closed() -> None:
            if session is not None:
                await session.on_closed()

        client = await connect(
            self._servers(),
            f"canbroker {options.site}/{options.bench}",
            error_cb=on_error,
            closed_cb=on_closed,
            ping_interval=_PING_S,
            max_outstanding_pings=2,
            dont_randomize=True,
        )
        session = Session(client, self._lines, options.window, self._stream)
        try:
            await session.begin()
            self._stream = session.stream
            await self._commands.begin(client, session.fail)
            self._session = session
            self._server = client.connected_url.netloc if client.connected_url else ""
            self._connections += 1
            self.trouble = ""
            _logger.info("published at NATS %s", self._server)
            await self._publish(session, client, is_over)
        finally:
            session.fail("the session is over")
            self._session, self._server = None, ""
            await self._commands.end()
            await _close(client)

    def _servers(self) -> Server:
        """All of them, another one first each time: one may answer, but not for its streams."""
        urls = self._options.server.urls
        first, self._turn = self._turn % len(urls), self._turn + 1
        return msgspec.structs.replace(self._options.server, url=urls[first:] + urls[:first])

    async def _publish(self, session: Session, client: Client, is_over: asyncio.Event) -> None:
        running = asyncio.create_task(session.run(self._values.look))
        values = asyncio.create_task(self._begin_values(session, client))
        over = asyncio.create_task(is_over.wait())
        try:
            await asyncio.wait([running, over], return_when=asyncio.FIRST_COMPLETED)
            if running.done():
                running.result()
            running.cancel()
            await asyncio.wait([running])
            await self._finish(session)
        finally:
            for task in (running, values, over):
                task.cancel()
            await asyncio.gather(running, values, over, return_exceptions=True)

    async def _begin_values(self, session: Session, client: Client) -> None:
        """States and signals begin when their stream is found, or was on an earlier connection;
        frames do not wait for it."""
        with suppress(TroubleError):
            if self._has_values:
                self._values.begin(client)
            problem = await session.find_values()
            if not self._has_values:
                self._values.begin(client)
                session.warning = session.warning or problem
                self._has_values = not problem

    async def _finish(self, session: Session) -> None:
        """Publishes what has arrived until now, and that we end."""
        deadline = clock.deadline_after(_LAST_S)
        await session.step(self._values.look, self._lines)
        while not session.is_idle and clock.remaining_ns(deadline):
            await asyncio.sleep(_LOOK_S / 5)
            await session.step(self._values.look, self._lines)
        await self._values.end(self._lines)

    # ---------------------------------------------------------------------------------- status

    def report(self) -> dict[str, Any]:
        """What the broker shows of it."""
        now_ns = clock.monotonic_ns()
        lines, session = self._lines, self._session
        problems = [f"channel {line.name!r}: {line.problem}" for line in lines if line.problem]
        warnings = [self._values.problem, session.warning if session is not None else ""]
        troubles = filter(None, [self.trouble or self._recent, *problems, *warnings])
        self._recent = ""
        return {
            "server": self._server,
            "connections": self._connections,
            "frames": sum(line.totals.frames for line in lines),
            "messages": sum(line.totals.messages for line in lines),
            "unacknowledged": sum(line.unacknowledged for line in lines),
            "lag_s": round(max((line.lag_s(now_ns) for line in lines), default=0.0), 3),
            "duplicates": sum(line.totals.duplicates for line in lines),
            "lost": sum(line.totals.lost for line in lines),
            "gaps": sum(line.totals.gaps for line in lines),
            "commands": self._commands.done,
            "refused": self._commands.refused,
            "trouble": "; ".join(troubles)[:_SHOWN],
        }


async def _close(client: Client) -> None:
    """Closes a connection, whatever state it is in: the next one must not wait for it."""
    try:
        await asyncio.wait_for(client.close(), _CLOSE_S)
    except (Error, OSError, TimeoutError) as error:
        _logger.info("the connection to NATS did not close: %s", error)
