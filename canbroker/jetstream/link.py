"""A connection to NATS for readers: requests that fail at once and say why, and news of it."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Self

from canbroker.errors import CanError, CanOperationError, CanPermissionError
from canbroker.jetstream.server import Server, connect

if TYPE_CHECKING:
    from nats.aio.client import Client

#: Where JetStream is asked.
API: Final = "$JS.API"

#: Servers answer in milliseconds; one of a cluster may be electing a leader.
ANSWER_S: Final = 3.0

_DENIED: Final = "permissions violation"
_REFUSED: Final = "authorization violation"

_logger = logging.getLogger(__name__)


class NoAnswerError(CanError):
    """The server does not answer, or has no JetStream: it may be about to."""


class RefusalError(CanError):
    """JetStream has refused a request. ``code`` is 404 if there is no such stream."""

    def __init__(self, code: int, description: str) -> None:
        super().__init__(description)
        self.code = code


class Link:
    """Connected, or connecting again; belongs to one event loop.

    ``cuts`` counts how often the connection was lost. ``news`` is set when that happens, when it
    is there again, and when it is over. The waiting task clears it.
    """

    def __init__(self, server: Server) -> None:
        self.server = server
        self.cuts = 0
        self.news = asyncio.Event()
        self._client: Client | None = None
        self._fault = ""  # why nothing can follow
        self._denial = ""
        self._futile = asyncio.Event()  # no answer will come: denied, or the connection is lost

    @classmethod
    async def open(cls, server: Server, name: str) -> Self:
        """Connects.

        :param name: what the server's monitoring shows.
        :raises CanInitializationError: no server can be used; says why.
        """
        link = cls(server)
        link._client = await connect(
            server,
            name,
            reconnects=True,
            error_cb=link._on_error,
            disconnected_cb=link._on_disconnect,
            reconnected_cb=link._on_reconnect,
            closed_cb=link._on_close,
        )
        return link

    @property
    def client(self) -> Client:
        """The connection, as nats-py has it."""
        if self._client is None:
            raise RuntimeError("a link is made by open()")
        return self._client

    @property
    def is_up(self) -> bool:
        return self.client.is_connected

    def check(self) -> None:
        """
        :raises CanOperationError: the server does not let us in any more.
        :raises CanPermissionError: it has refused what was no request.
        """
        if self._fault:
            raise CanOperationError(f"NATS at {self.server.shown}: {self._fault}")
        if self._denial:
            raise self.refusal("to read frames")

    async def request(self, method: str, body: Mapping[str, Any], what: str) -> dict[str, Any]:
        """What JetStream answers.

        :param method: such as ``STREAM.INFO.NAME``.
        :param what: is to be done, for errors: ``"to read stream X"``.
        :raises NoAnswerError: nobody answers now.
        :raises RefusalError: JetStream does not do it.
        :raises CanPermissionError: the account lacks a permission. Without this, a request that
            is refused looks like one that nobody answers.
        """
        from nats.errors import Error  # noqa: PLC0415 - of an extra

        self._denial = ""
        self._futile.clear()
        payload = json.dumps(body).encode() if body else b""
        asked = self.client.request(f"{API}.{method}", payload, timeout=ANSWER_S)
        answer = asyncio.ensure_future(asked)
        futile = asyncio.ensure_future(self._futile.wait())
        try:
            await asyncio.wait({answer, futile}, return_when=asyncio.FIRST_COMPLETED)
            if self._denial:
                raise self.refusal(what)
            if not answer.done():
                raise NoAnswerError(f"NATS at {self.server.shown}: the connection was lost")
            return _checked((await answer).data)
        except (Error, OSError) as error:
            self.check()
            text = str(error).removeprefix("nats: ") or type(error).__name__
            raise NoAnswerError(f"NATS at {self.server.shown}: {text}") from error
        finally:
            answer.cancel()
            futile.cancel()
            await asyncio.gather(answer, futile, return_exceptions=True)

    def refusal(self, what: str) -> CanPermissionError:
        """What to raise if the account lacks a permission."""
        return CanPermissionError(
            f"NATS at {self.server.shown} does not allow us {what}: {self._denial}"
        )

    async def close(self) -> None:
        """Ends the connection. May be called again."""
        await self.client.close()

    async def _on_error(self, error: Exception) -> None:
        text = str(error).removeprefix("nats: ")
        if _DENIED in text.lower():
            self._denial = text
            self._futile.set()
        elif _REFUSED in text.lower():
            self._fault = "it refuses our credentials"
        else:
            _logger.debug("NATS at %s: %s", self.server.shown, text or type(error).__name__)
        self.news.set()

    async def _on_disconnect(self) -> None:
        self.cuts += 1
        self._futile.set()
        if self._client is not None and not self._client.is_closed:
            _logger.warning("connection to NATS at %s lost, connecting again", self.server.shown)
        self.news.set()

    async def _on_reconnect(self) -> None:
        _logger.warning("connected to NATS again")
        self.news.set()

    async def _on_close(self) -> None:
        self._fault = self._fault or "the connection was closed"
        self.news.set()


def _checked(data: bytes) -> dict[str, Any]:
    """:raises RefusalError: the answer is an error.
    :raises NoAnswerError: it is one that a server gives which is about to be ready, or no answer.
    """
    try:
        answer = json.loads(data)
        error = answer.get("error")
        if error is None:
            return dict(answer)
        code, description = int(error["code"]), str(error.get("description", ""))
    except (ValueError, AttributeError, KeyError, TypeError) as fault:
        raise NoAnswerError(f"JetStream's answer is not one: {data[:100]!r}") from fault
    if code == 503:
        raise NoAnswerError(f"JetStream: {description}")
    raise RefusalError(code, description)
