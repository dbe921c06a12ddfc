"""The page as a service: listens, serves until it is told to end, and says how it is doing."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Sequence
from typing import Any, Final

from canbroker.actors.ending import ended_by
from canbroker.actors.web.guard import Guard
from canbroker.actors.web.hosts import Hosts
from canbroker.actors.web.hub import Hub
from canbroker.actors.web.options import WebAddress, WebOptions
from canbroker.actors.web.page import Page
from canbroker.actors.web.server import PageServer, listen
from canbroker.errors import CanInitializationError
from canbroker.keys.web_tokens import TokensFile, tokens_path
from canbroker.transport.waiter import Descriptor

_REPORT_S: Final = 1.0

_logger = logging.getLogger(__name__)


class WebService:
    """Once made, it listens; nothing is answered before :meth:`run`.

    ``address``: where, with the port that it has got. ``tokens``: those in force.
    """

    def __init__(
        self, options: WebOptions, broker: str | None, databases: Sequence[str] = ()
    ) -> None:
        """
        :param options: with an address to listen at.
        :param broker: address.
        :param databases: for channels that have none of their own.
        :raises CanInitializationError: it cannot listen there, a file of TLS cannot be used, or
            there are no tokens and they cannot be made.
        """
        if options.address is None:
            raise CanInitializationError("[web] has no address to listen at")
        try:
            self._tls = options.tls()
        except ValueError as error:
            raise CanInitializationError(f"[web] {error}") from error
        self.tokens = TokensFile(tokens_path())
        self._options = options
        self._broker = broker
        self._databases = databases
        self._socket = listen(options.address)
        port = self._socket.getsockname()[1]
        self.address = WebAddress(options.address.host, port)
        self._hub: Hub | None = None
        self._guard: Guard | None = None

    def __repr__(self) -> str:
        return f"<WebService {self.url}>"

    @property
    def url(self) -> str:
        """The address of the page, without a token."""
        address = self.address
        if address.host == "*":
            address = address._replace(host=(*self._options.names, socket.gethostname())[0])
        return f"{'https' if self._tls else 'http'}://{address}/"

    def run(self, ends: Sequence[Descriptor], report: Callable[[dict[str, Any]], None]) -> None:
        """Serves until one of ``ends`` becomes readable; calls ``report`` every second."""
        asyncio.run(self._run(ends, report))

    def close(self) -> None:
        """Gives up the socket, if :meth:`run` was never called."""
        self._socket.close()

    async def _run(
        self, ends: Sequence[Descriptor], report: Callable[[dict[str, Any]], None]
    ) -> None:
        with ended_by(ends) as is_over:
            await self._serve(is_over, report)

    async def _serve(
        self, is_over: asyncio.Event, report: Callable[[dict[str, Any]], None]
    ) -> None:
        secure = self._tls is not None
        hosts = Hosts(self.address, self._options.names, secure=secure)
        hub = Hub(self._broker, self._databases, self._note)
        guard = Guard(
            Page(hub, self._options).app, hosts, lambda: self.tokens.current, secure=secure
        )
        self._hub, self._guard = hub, guard
        logging.getLogger("uvicorn").setLevel(logging.WARNING)  # it tells of each connection
        server = PageServer(guard, self._tls, self._note)
        tasks = [
            asyncio.create_task(server.serve([self._socket])),
            asyncio.create_task(hub.run()),
            asyncio.create_task(self._report(report)),
            asyncio.create_task(is_over.wait()),
        ]
        _logger.info("the web page is at %s", self.url)
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()  # raises what has ended it
        finally:
            server.should_exit = True
            await asyncio.wait(tasks[:1])
            for task in tasks[1:]:
                task.cancel()
            await asyncio.gather(*tasks[1:], return_exceptions=True)
            hub.close()

    def _note(self, kind: str, detail: str) -> None:
        if self._guard is not None:
            self._guard.note(kind, detail)

    async def _report(self, report: Callable[[dict[str, Any]], None]) -> None:
        while True:
            self._follow_tokens()
            report(self.report())
            await asyncio.sleep(_REPORT_S)

    def report(self) -> dict[str, Any]:
        """What the broker shows of it."""
        guard, hub = self._guard, self._hub
        return {
            "url": self.url,
            "pages": 0 if hub is None else hub.pages,
            "refusals": {} if guard is None else dict(guard.refused),
            "fault": self.tokens.fault[:500],
        }

    def _follow_tokens(self) -> None:
        if self.tokens.poll():
            _logger.info("the tokens of the page have changed")
            if self._guard is not None:
                self._guard.end_sockets()
