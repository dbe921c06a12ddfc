"""The page's server: uvicorn, with limits of our own on what connects."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from canbroker.actors.web.options import WebAddress
from canbroker.errors import CanInitializationError

#: The most connections; a browser makes six to one host.
MAX_CONNECTIONS: Final = 256

#: The most bytes of one message on a socket, and of a request's head.
MAX_MESSAGE: Final = 64 << 10
_MAX_HEAD: Final = 32 << 10

#: A connection that has sent no whole request by then ends; so does a socket that does not answer.
_REQUEST_S: Final = 10.0
_PING_S: Final = 15.0
_PONG_S: Final = 15.0
_KEEP_ALIVE_S: Final = 15

#: Responses that are on their way when the server ends.
_GRACE_S: Final = 1

_BACKLOG: Final = 128


def listen(address: WebAddress) -> socket.socket:
    """A socket that listens there.

    :raises CanInitializationError: it cannot.
    """
    is_any = address.host == "*"
    is_six = is_any or ":" in address.host
    family = socket.AF_INET6 if is_six else socket.AF_INET
    try:
        if is_any and not socket.has_dualstack_ipv6():
            return socket.create_server(("", address.port), backlog=_BACKLOG)
        return socket.create_server(
            ("" if is_any else address.host, address.port),
            family=family,
            backlog=_BACKLOG,
            dualstack_ipv6=is_any,
        )
    except OSError as error:
        raise CanInitializationError(
            f"the web page cannot listen at {address}: {error.strerror or error}"
        ) from error


class _Http(H11Protocol):
    """A connection that counts, and has to send its first request in time."""

    _first: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS:
            note: Callable[[str, str], None] = self.config.note_refusal  # type: ignore[attr-defined]
            note("connections", f"more than {MAX_CONNECTIONS}")
            transport.abort()
            return
        self._first = self.loop.call_later(_REQUEST_S, self._give_up)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_first()
        super().connection_lost(exc)

    def handle_websocket_upgrade(self, event: Any) -> None:
        self._end_first()
        super().handle_websocket_upgrade(event)

    def _give_up(self) -> None:
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is None or cycle.more_body:
            self.transport.abort()

    def _end_first(self) -> None:
        if self._first is not None:
            self._first.cancel()
            self._first = None


class _Socket(WebSocketsSansIOProtocol):
    """A socket whose connection ends at once when the browser is stopped or gone: what it has not
    taken would be kept for it."""

    def keepalive_timeout(self) -> None:
        super().keepalive_timeout()
        self.transport.abort()


class _Config(uvicorn.Config):
    note_refusal: Callable[[str, str], None]


class PageServer(uvicorn.Server):
    """Serves an application at a socket, in an event loop of the caller's."""

    def __init__(
        self,
        app: ASGIApp,
        tls: ssl.SSLContext | None,
        note_refusal: Callable[[str, str], None],
    ) -> None:
        """``note_refusal``: is told the kind of a refused connection, and more about it."""
        config = _Config(
            app,
            http=_Http,
            ws=_Socket,
            ws_max_size=MAX_MESSAGE,
            ws_ping_interval=_PING_S,
            ws_ping_timeout=_PONG_S,
            ws_per_message_deflate=False,
            h11_max_incomplete_event_size=_MAX_HEAD,
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=_GRACE_S,
            lifespan="off",
            loop="asyncio",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
        )
        config.note_refusal = note_refusal
        config.load()
        config.ssl = tls
        super().__init__(config)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leaves signals alone: an actor's lifelines and a command's handlers end the server."""
        yield
