"""The page's application: its files, its socket, and what it asks for besides."""

from __future__ import annotations

import importlib.metadata
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocket

from canbroker.actors.web.guard import MAX_BODY, ROLE
from canbroker.actors.web.hub import BusyError, Hub
from canbroker.actors.web.options import WebOptions
from canbroker.actors.web.past import (
    MAX_FRAMES,
    Place,
    RecordFile,
    frames_before,
    installed_formats,
)
from canbroker.actors.web.requests import parse_filters
from canbroker.actors.web.rows import told_frames
from canbroker.actors.web.sending import SendRequest, check, send
from canbroker.actors.web.session import Session
from canbroker.bus.history import recent_frames
from canbroker.delivery.tap import Frames
from canbroker.errors import CanError
from canbroker.keys.authorized import Role
from canbroker.logs.formats import FORMATS
from canbroker.view import metrics

_STATIC: Final = Path(__file__).parent / "static"

#: As far back as a ring may reach.
_MOST_S: Final = 86_400

_UNSAFE: Final = re.compile(r"[^A-Za-z0-9._-]+")

_Handler = Callable[[Request], Awaitable[Response]]


class _RefusedError(Exception):
    """``status`` of the answer, and a sentence for it."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class Page:
    """Answers the requests that the guard passes on."""

    def __init__(self, hub: Hub, options: WebOptions) -> None:
        self._hub = hub
        self._options = options
        self.app = Starlette(
            routes=[
                Route("/", self._index),
                Route("/metrics", self._metrics),
                Route("/api/trace", _answering(self._trace)),
                Route("/api/record", _answering(self._record)),
                Route("/api/send", _answering(self._send), methods=["POST"]),
                WebSocketRoute("/socket", self._socket),
                Mount("/static", StaticFiles(directory=_STATIC)),
            ]
        )

    async def _index(self, _: Request) -> Response:
        return FileResponse(_STATIC / "index.html")

    async def _socket(self, socket: WebSocket) -> None:
        role: Role = socket.scope[ROLE]
        hub = self._hub
        may_send = role >= Role.TRANSMIT
        greeting = {
            "hello": {
                "version": importlib.metadata.version("canbroker"),
                "role": str(role),
                "transmit": list(map(str, self._options.ranges)) if may_send else [],
                "formats": installed_formats(),
            },
            "loads": hub.overview.told_loads(),
        }
        hub.pages += 1
        try:
            await Session(socket, hub).run(greeting)
        finally:
            hub.pages -= 1

    async def _metrics(self, _: Request) -> Response:
        tasks = await self._hub.all_tasks()
        status = self._hub.overview.status
        if status is None:
            return _text(503, self._hub.overview.problem)
        body = metrics.render(status, tasks)
        return Response(body, headers={"content-type": metrics.CONTENT_TYPE})

    async def _trace(self, request: Request) -> Response:
        """``channel``, ``before`` (nanoseconds, wall clock), ``skip`` (of the frames of that very
        time) and ``filter``; up to 1,000 frames."""
        channel = _given(request.query_params, "channel")
        before_ns = _number(request.query_params, "before", 1 << 63)
        skip = _number(request.query_params, "skip", 10_000)
        try:
            filters = parse_filters(request.query_params.get("filter", ""))
        except ValueError as error:
            raise _RefusedError(400, str(error)) from error

        def past() -> list[list[Any]]:
            place = Place(before_ns, skip)
            frames = frames_before(self._hub.address, channel, filters, place, MAX_FRAMES)
            return told_frames(frames, self._hub.databases.of(channel))

        return _json(await self._hub.work(past))

    async def _record(self, request: Request) -> Response:
        """``channel``, ``seconds`` and ``format``; a file."""
        channel = _given(request.query_params, "channel")
        seconds = _number(request.query_params, "seconds", _MOST_S)
        kind = _given(request.query_params, "format")
        if kind not in FORMATS:
            raise _RefusedError(400, f"format {kind[:40]!r} is not one of {', '.join(FORMATS)}")
        file = await self._hub.work(_write, self._hub.address, channel, float(seconds), kind)
        plain = _UNSAFE.sub("_", channel)[:60]
        name = time.strftime(f"{plain}-%Y%m%d-%H%M%S{file.path.suffix}")
        headers = {"x-canbroker-lost": file.losses} if file.losses.isascii() and file.losses else {}
        return FileResponse(
            file.path,
            filename=name,
            media_type="application/octet-stream",
            headers=headers,
            background=BackgroundTask(file.remove),
        )

    async def _send(self, request: Request) -> Response:
        """JSON with ``channel`` and ``frame``, as cansend writes it."""
        if request.scope[ROLE] < Role.TRANSMIT:
            self._hub.note("role", "a frame to send")
            raise _RefusedError(403, "your token is for looking only")
        try:
            wanted = msgspec.json.decode(await request.body(), type=SendRequest)
            frame = check(wanted, self._options)
        except PermissionError as error:
            self._hub.note("transmit", str(error))
            raise _RefusedError(403, str(error)) from error
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            raise _RefusedError(400, str(error)) from error
        await self._hub.work(send, self._hub.address, wanted.channel, frame)
        return _json({"sent": wanted.frame})


def _write(broker: str | None, channel: str, seconds: float, kind: str) -> RecordFile:
    recent: Frames = recent_frames(broker, channel, seconds)
    return RecordFile(recent, kind)


def _answering(handler: _Handler) -> _Handler:
    """``handler`` whose errors are answers that a person can read."""

    async def answering(request: Request) -> Response:
        try:
            return await handler(request)
        except _RefusedError as error:
            return _text(error.status, str(error))
        except BusyError as error:
            return _text(503, str(error))
        except ClientDisconnect:
            return _text(413, f"a request has {MAX_BODY} bytes at most")
        except CanError as error:
            return _text(502, str(error))
        except OSError as error:
            return _text(500, f"cannot write the file: {error.strerror or error}")

    return answering


def _given(parameters: Mapping[str, str], name: str) -> str:
    """:raises _RefusedError: it is not there, or too long."""
    value = parameters.get(name, "")
    if not 1 <= len(value) <= 300:
        raise _RefusedError(400, f"{name} must have 1 to 300 characters")
    return value


def _number(parameters: Mapping[str, str], name: str, most: int) -> int:
    """:raises _RefusedError: it is not a number from 0 to ``most``."""
    value = parameters.get(name, "0")
    if not (value.isascii() and value.isdecimal() and len(value) < 20 and int(value) <= most):
        raise _RefusedError(400, f"{name} must be a whole number from 0 to {most}")
    return int(value)


def _json(what: Any) -> Response:
    return Response(msgspec.json.encode(what), media_type="application/json")


def _text(status: int, text: str) -> Response:
    return Response(f"{text}\n", status, media_type="text/plain")
