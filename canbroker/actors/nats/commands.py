"""Sends frames that requests in NATS ask for, within the configured ranges of identifiers."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final, NamedTuple

import msgspec
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error

from canbroker.actors.nats.options import NatsOptions
from canbroker.client import Bus
from canbroker.errors import CanError, CanTimeoutError
from canbroker.jetstream import subjects
from canbroker.jetstream.commands import (
    DEFAULT_TTL_MS,
    MAX_BYTES,
    MAX_FRAMES,
    MAX_TTL_MS,
    Answer,
)
from canbroker.jetstream.heads import TTL
from canbroker.logs.candump import parse_frame
from canbroker.model.filters import NOTHING
from canbroker.model.frame import ERROR, EXTENDED, Frame, describe
from canbroker.model.message import Message
from canbroker.system import clock
from canbroker.system.throttle import Throttle

#: Requests of a channel that wait for their turn.
_MAX_WAITING: Final = 64

_NUMBER: Final = re.compile(r"[0-9]{1,9}")

_logger = logging.getLogger(__name__)


class Request(NamedTuple):
    """Frames to send, in order, until ``ttl_ms`` after the request has arrived."""

    frames: list[Frame]
    ttl_ms: int

    @classmethod
    def parse(cls, headers: Mapping[str, str] | None, body: bytes) -> Request:
        """:raises ValueError: it is not a request; says what is wrong."""
        ttl = (headers or {}).get(TTL, str(DEFAULT_TTL_MS))
        if not _NUMBER.fullmatch(ttl) or not 1 <= int(ttl) <= MAX_TTL_MS:
            raise ValueError(f"{TTL} must be 1 to {MAX_TTL_MS}, got {ttl[:80]!r}")
        if len(body) > MAX_BYTES:
            raise ValueError(f"a request has {MAX_BYTES} bytes at most, not {len(body)}")
        lines = body.decode().split()
        if not 1 <= len(lines) <= MAX_FRAMES:
            raise ValueError(f"a request has 1 to {MAX_FRAMES} frames, not {len(lines)}")
        return cls([parse_frame(line) for line in lines], int(ttl))


class _Outlet:
    """The way to one channel. Its thread sends one request after the other."""

    def __init__(self, channel: str, broker: str) -> None:
        self.waiting = 0
        self.thread = ThreadPoolExecutor(1, thread_name_prefix=f"send {channel}")
        self._channel = channel
        self._broker = broker
        self._bus: Bus | None = None

    def send(self, frames: list[Frame], deadline: int) -> None:
        """[its thread] Returns when the driver has taken the frames.

        :raises CanError, ValueError: they were not sent, or not all.
        """
        left_ns = clock.remaining_ns(deadline)
        if not left_ns:
            raise CanTimeoutError("the request has expired before its turn came")
        if self._bus is None:
            self._bus = Bus(
                self._channel, broker=self._broker, can_filters=NOTHING, ignore_config=True
            )
        messages = [Message.from_frame(frame, None, is_rx=False) for frame in frames]
        try:
            self._bus.send_batch(messages, timeout=left_ns / clock.SECOND)
        except CanError:
            self.close()  # what it has still to say is not for the next request
            raise

    def close(self) -> None:
        """[its thread]"""
        bus, self._bus = self._bus, None
        if bus is not None:
            try:
                bus.shutdown()
            except CanError as error:
                _logger.info("%s", error)

    def end(self) -> None:
        """Closes it, in its thread, which may still be sending."""
        self.thread.submit(self.close)
        self.thread.shutdown(wait=True, cancel_futures=False)


class Commands:
    """One event loop. ``done`` requests were sent, ``refused`` not."""

    def __init__(self, options: NatsOptions, broker: str) -> None:
        """``broker``: its address."""
        self.done = 0
        self.refused = 0
        self._options = options
        self._outlets = {name: _Outlet(name, broker) for name in options.channels}
        self._tasks: set[asyncio.Task[None]] = set()
        self._denied = Throttle(_logger)

    async def begin(self, client: Client, fail: Callable[[str], None]) -> None:
        """Answers requests on this connection, if any are permitted.

        :param fail: is told that requests cannot be received.
        """
        if not self._options.transmit:
            return
        for name in self._options.channels:
            subject = subjects.commands(self._options.site, self._options.bench, name)
            try:
                await client.subscribe(subject, cb=partial(self._asked, name))
            except (Error, OSError) as error:
                fail(f"NATS: {error}")

    async def end(self) -> None:
        """Waits for what is being sent."""
        if self._tasks:
            await asyncio.wait(self._tasks)

    def close(self) -> None:
        """Closes all channels."""
        for outlet in self._outlets.values():
            outlet.end()

    async def _asked(self, channel: str, message: Msg) -> None:
        """Does not wait: requests of other channels are served meanwhile."""
        task = asyncio.create_task(self._serve(channel, message))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, channel: str, message: Msg) -> None:
        answer = await self._answer(channel, message.headers, message.data)
        self.done += answer.ok
        if not answer.ok:
            self.refused += 1
            self._denied.note(f"a request to transmit on channel {channel!r}", answer.text)
        if message.reply:
            try:
                await message.respond(msgspec.json.encode(answer))
            except (Error, OSError) as error:
                _logger.info("NATS: %s", error)

    async def _answer(self, channel: str, headers: Mapping[str, str] | None, body: bytes) -> Answer:
        outlet = self._outlets[channel]
        try:
            request = Request.parse(headers, body)
            self._check(request)
        except (ValueError, PermissionError) as error:
            kind = "permission" if isinstance(error, PermissionError) else "malformed"
            return Answer(ok=False, error=kind, text=str(error))
        if outlet.waiting >= _MAX_WAITING:
            return Answer(ok=False, error="busy", text=f"{_MAX_WAITING} requests wait already")
        deadline = clock.monotonic_ns() + request.ttl_ms * clock.MILLISECOND
        outlet.waiting += 1
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(outlet.thread, outlet.send, request.frames, deadline)
        except CanTimeoutError as error:
            return Answer(ok=False, error="timeout", text=str(error))
        except (CanError, ValueError) as error:
            return Answer(ok=False, error="operation", text=str(error))
        finally:
            outlet.waiting -= 1
        return Answer(ok=True)

    def _check(self, request: Request) -> None:
        """:raises PermissionError: a frame may not be sent from here."""
        for frame in request.frames:
            is_extended = bool(frame.flags & EXTENDED)
            if frame.flags & ERROR or not self._options.may_transmit(
                frame.arbitration_id, is_extended
            ):
                permitted = ", ".join(self._options.transmit)
                raise PermissionError(
                    f"{describe(frame)}: the configuration permits {permitted} from here: "
                    "[nats] transmit"
                )
