"""Checks each request before the page's server answers it: its sender, its origin, its size.

Against a page of another origin that a browser has open beside ours: it could ask for our address
under a name of its own (DNS rebinding), so ``Host`` must be one of ours; it could send requests to
us, so everything but reading must have our ``Origin``, as sockets must. Against everybody else on
this host and beyond: without a token nothing is answered.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from http.cookies import CookieError, SimpleCookie
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from canbroker.actors.web.hosts import Hosts
from canbroker.keys.authorized import Role
from canbroker.keys.web_tokens import Tokens, cookie_of
from canbroker.system.throttle import Throttle

#: The most bytes of a request's body: the page sends a frame at a time.
MAX_BODY: Final = 64 << 10

#: The most open sockets of pages.
MAX_SOCKETS: Final = 64

#: Where the role of a request is in its scope.
ROLE: Final = "canbroker.role"

_READING: Final = frozenset({"GET", "HEAD"})

#: Code of the end of a socket that has broken a rule (RFC 6455).
POLICY: Final = 1008

_METRICS: Final = "/metrics"

_HEADERS: Final = (
    (
        b"content-security-policy",
        b"default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        b"object-src 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)

_LOCKED: Final = (
    "This page is locked. Open the address that 'canbroker web' prints on the broker's host."
)

_logger = logging.getLogger(__name__)


class _RefusedError(Exception):
    """``kind`` to count, ``status`` and a sentence for the answer."""

    def __init__(self, kind: str, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.kind = kind
        self.status = status


class _Head(NamedTuple):
    """What the guard reads of a request. ``headers``: all values of each, by its name."""

    method: str
    path: str
    headers: dict[str, list[str]]

    @classmethod
    def of(cls, scope: Scope) -> _Head:
        headers: dict[str, list[str]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
        return cls(scope.get("method", "GET"), scope["path"], headers)

    def one(self, name: str) -> str | None:
        """The only value of a header; ``None`` if there is none, or more of them."""
        values = self.headers.get(name, [])
        return values[0] if len(values) == 1 else None


class Guard:
    """Passes on to ``app`` what is permitted, with the role in the scope; counts all else."""

    def __init__(
        self, app: ASGIApp, hosts: Hosts, tokens: Callable[[], Tokens], *, secure: bool
    ) -> None:
        """
        :param tokens: returns those in force.
        :param secure: whether connections are encrypted.
        """
        self._app = app
        self._hosts = hosts
        self._tokens = tokens
        self._scheme = "https" if secure else "http"
        self._refused = Throttle(_logger, 10.0)
        self._ends: set[asyncio.Event] = set()  # of each open socket

    @property
    def refused(self) -> Counter[str]:
        """Requests and sockets that were refused, by why."""
        return self._refused.counts

    def note(self, kind: str, detail: str) -> None:
        """Counts a refusal of another part of the server."""
        self._refused.note(kind, detail, logging.INFO)

    def end_sockets(self) -> None:
        """Ends all sockets, as other tokens are in force. Pages with a valid one come back."""
        for end in self._ends:
            end.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        head = _Head.of(scope)
        try:
            answer = self._judge(scope, head)
        except _RefusedError as error:
            self.note(error.kind, f"{head.method} {head.path!r} of {_peer(scope)}: {error}")
            answer = _Answer(error.status, f"{error}\n", ())
            if error.status == 401:
                answer = answer._replace(headers=((b"www-authenticate", b"Bearer"),))
        if answer is not None:
            await _answer(scope, receive, send, answer)
        elif scope["type"] == "websocket":
            end = asyncio.Event()
            self._ends.add(end)
            try:
                await self._app(scope, _until(end, receive), send)
            finally:
                self._ends.remove(end)
        else:
            await self._app(scope, self._bounded(receive), _with_headers(send))

    def _judge(self, scope: Scope, head: _Head) -> _Answer | None:
        """The answer, if it is not the page's to give.

        :raises _RefusedError: it is not permitted.
        """
        host = head.one("host") or ""
        if not self._hosts.is_ours(host, scope.get("server")):
            raise _RefusedError("host", 421, "this host has no such name")
        if scope["type"] != "websocket" and head.method not in {*_READING, "POST"}:
            raise _RefusedError("method", 405, "no such method")
        needs_origin = scope["type"] == "websocket" or head.method not in _READING
        origin = head.one("origin")
        if ("origin" in head.headers or needs_origin) and origin != f"{self._scheme}://{host}":
            raise _RefusedError("origin", 403, "another page may not ask for this")
        length = head.one("content-length") or "0"
        if not length.isdecimal() or int(length[:20]) > MAX_BODY:
            raise _RefusedError("size", 413, f"a request has {MAX_BODY} bytes at most")
        if scope["type"] == "http" and head.path == "/" and b"token=" in scope["query_string"]:
            return self._log_in(scope, head, host)
        scope[ROLE] = self._role(scope, head)
        if scope["type"] == "websocket" and len(self._ends) >= MAX_SOCKETS:
            raise _RefusedError("sockets", 503, f"{MAX_SOCKETS} pages are open already")
        return None

    def _log_in(self, scope: Scope, head: _Head, host: str) -> _Answer:
        """Takes the token out of the address, where it would stay visible, into a cookie."""
        try:
            fields = dict(parse_qsl(scope["query_string"].decode("latin-1"), max_num_fields=4))
        except ValueError:
            fields = {}
        token = fields.get("token", "")
        if head.method != "GET" or self._tokens().role_of(token) is None:
            raise _RefusedError("token", 403, _LOCKED)
        cookie = f"{_cookie_name(host)}={cookie_of(token)}; Path=/; HttpOnly; SameSite=Strict"
        if self._scheme == "https":
            cookie += "; Secure"
        return _Answer(303, "", ((b"location", b"/"), (b"set-cookie", cookie.encode())))

    def _role(self, scope: Scope, head: _Head) -> Role:
        """:raises _RefusedError: neither a cookie nor, for the metrics, a token."""
        tokens = self._tokens()
        if head.path == _METRICS and scope["type"] == "http":
            kind, _, token = (head.one("authorization") or "").partition(" ")
            role = tokens.role_of(token.strip()) if kind.lower() == "bearer" else None
            if role is None:
                raise _RefusedError("token", 401, "metrics need the token of a role: Bearer")
            return role
        name = _cookie_name(head.one("host") or "")
        role = tokens.role_of_cookie(_cookie(head.headers.get("cookie", []), name))
        if role is None:
            raise _RefusedError("token", 403, _LOCKED)
        return role

    def _bounded(self, receive: Receive) -> Receive:
        """``receive`` of no more than :data:`MAX_BODY`, also if the length was not told."""
        count = 0

        async def bounded() -> Message:
            nonlocal count
            message = await receive()
            count += len(message.get("body", b""))
            if count > MAX_BODY:
                self.note("size", f"more than {MAX_BODY} bytes")
                return {"type": "http.disconnect"}
            return message

        return bounded


def _until(end: asyncio.Event, receive: Receive) -> Receive:
    """``receive`` that says after ``end`` that the socket has ended."""

    async def receive_or_end() -> Message:
        receiving = asyncio.ensure_future(receive())
        ending = asyncio.ensure_future(end.wait())
        try:
            await asyncio.wait((receiving, ending), return_when=asyncio.FIRST_COMPLETED)
            if receiving.done():
                return receiving.result()
            return {"type": "websocket.disconnect", "code": POLICY}
        finally:
            receiving.cancel()
            ending.cancel()

    return receive_or_end


class _Answer(NamedTuple):
    status: int
    text: str
    headers: tuple[tuple[bytes, bytes], ...]


async def _answer(scope: Scope, receive: Receive, send: Send, answer: _Answer) -> None:
    kind = "http"
    if scope["type"] == "websocket":
        kind = "websocket.http"
        await receive()  # that it wants to connect
    body = answer.text.encode()
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", b"%d" % len(body)),
        (b"connection", b"close"),
        *answer.headers,
        *_HEADERS,
    ]
    start = {"type": f"{kind}.response.start", "status": answer.status, "headers": headers}
    await send(start)
    await send({"type": f"{kind}.response.body", "body": body})


def _with_headers(send: Send) -> Send:
    async def with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            given = {name for name, _ in message.get("headers", ())}
            more = [header for header in _HEADERS if header[0] not in given]
            message = {**message, "headers": [*message.get("headers", ()), *more]}
        await send(message)

    return with_headers


def _cookie_name(host: str) -> str:
    """Cookies of all ports of a host are sent to each: pages of two brokers need two names."""
    port = host.rpartition(":")[2]
    return f"canbroker-{port if port.isdecimal() else 'page'}"


def _cookie(lines: list[str], name: str) -> str:
    try:
        found: SimpleCookie = SimpleCookie("; ".join(lines))
    except CookieError:
        return ""
    return found[name].value if name in found else ""


def _peer(scope: Scope) -> Any:
    return (scope.get("client") or ("?",))[0]
