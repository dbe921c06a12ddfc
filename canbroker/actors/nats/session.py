"""One connection to NATS: finds the streams and the place in them, publishes, awaits answers.

Whatever goes wrong ends the session; the next one reads its place from the stream again.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final, TypeVar

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error
from nats.js import api
from nats.js.client import JetStreamContext
from nats.js.errors import (
    APIError,
    NoStreamResponseError,
    NotFoundError,
    ServiceUnavailableError,
)

from canbroker.actors.nats.line import Last, Line, Message
from canbroker.jetstream import heads, streams, subjects
from canbroker.jetstream.streams import Layout
from canbroker.system import clock
from canbroker.wire import WireError

#: Frames are gathered for this long; each message costs as much as a hundred frames.
TICK_S: Final = 0.02

#: While the channel answers what we have missed, each answer brings 256 frames.
_REPAIR_S: Final = 0.001

#: The most frames of a message: if many are on their way, and if one is.
_FRAMES: Final = 256
_FRAMES_ALONE: Final = 1024

#: A frame of 64 bytes in a batch, and what a message has beside frames.
_FRAME_BYTES: Final = 112
_HEAD_BYTES: Final = 512

#: A server that works answers sooner.
_ANSWER_S: Final = 5.0
_LOOK_S: Final = 3.0
_ANSWER_NS: Final = 5 * clock.SECOND

#: After how long a question is put again, and then after twice that time, since a cluster that
#: elects a leader forgets it.
_AGAIN_S: Final = 0.5

#: A stream must keep at least this many messages of each subject.
_HISTORY: Final = 64

_EXPECTED_STREAM: Final = "Nats-Expected-Stream"
_EXPECTED_SEQUENCE: Final = "Nats-Expected-Last-Subject-Sequence"
_WRONG_SEQUENCE: Final = 10071

#: An error of JetStream: a leader is being elected.
_UNAVAILABLE: Final = 10008

_T = TypeVar("_T")
_logger = logging.getLogger(__name__)


class TroubleError(Exception):
    """Why a session has ended, in one sentence."""


class Session:
    """Publishes the lines until something goes wrong. One event loop.

    ``warning``: what does not work, while frames are published. ``stream``: the name of the stream
    with frames, once it was found.
    """

    def __init__(
        self, client: Client, lines: Sequence[Line], window: int, stream: str = ""
    ) -> None:
        """``stream``: its name on an earlier connection."""
        self.warning = ""
        self.stream = stream
        self._client = client
        self._js: JetStreamContext = client.jetstream(timeout=_LOOK_S)
        self._lines = lines
        self._window = window
        self._alone = False
        self._inbox = client.new_inbox()
        self._sent: dict[str, tuple[Line, Message]] = {}
        self._count = 0
        self._wake = asyncio.Event()
        self._over = asyncio.Event()
        self._trouble = ""
        self._ready: set[Line] = set()  # lines that do not wait for the next tick

    # --------------------------------------------------------------------------- what goes wrong

    def fail(self, text: str) -> None:
        """Ends the session. The first reason counts."""
        self._trouble = self._trouble or text
        self._over.set()
        self._wake.set()

    async def on_error(self, error: Exception) -> None:
        """What the server says besides answers: above all, what is not permitted."""
        text = str(error).removeprefix("nats: ")
        if "permissions violation" not in text.lower():
            _logger.info("NATS: %s", text)
        elif f".{subjects.STATE}" in text or f".{subjects.SIGNAL}." in text:
            self.warning = f"NATS: {text}"
        else:
            self.fail(f"NATS: {text}")

    async def on_closed(self) -> None:
        """The connection is over."""
        self.fail("the connection to NATS was lost")

    async def _sure(self, work: Coroutine[Any, Any, _T]) -> _T:
        """The result of ``work``.

        :raises TroubleError: the session has failed meanwhile.
        """
        task, over = asyncio.create_task(work), asyncio.create_task(self._over.wait())
        try:
            await asyncio.wait([task, over], return_when=asyncio.FIRST_COMPLETED)
            self._raise_trouble()
            return await task
        finally:
            task.cancel()
            over.cancel()

    def _raise_trouble(self) -> None:
        if self._trouble:
            raise TroubleError(self._trouble)

    # -------------------------------------------------------------------------------- beginning

    async def begin(self) -> None:
        """Finds the stream of frames, and in it the place of each line.

        :raises TroubleError: something is not as it should be; says what.
        """
        await self._sure(self._client.subscribe(f"{self._inbox}.*", cb=self._answered))
        self._check(await self._sure(self._find_frames()))
        for line in self._lines:
            line.resume(await self._sure(self._last(line)))

    async def find_values(self) -> str:
        """Finds the stream of states and signals; returns why not. Frames do not need it.

        :raises TroubleError: the session has failed meanwhile.
        """
        subject = self._lines[0].subject.removesuffix(subjects.FRAMES) + subjects.STATE
        try:
            await self._sure(self._find(streams.VALUES, subject))
        except TroubleError as error:
            self._raise_trouble()
            return str(error)
        return ""

    async def _find_frames(self) -> api.StreamInfo:
        """The stream that we know, if it still has our subject: only its leader is asked. Which
        stream has a subject is a question to the leader of the cluster, which may be away longer.
        """
        subject = self._lines[0].subject
        if self.stream:
            with _said(self.stream), suppress(NotFoundError):
                info = await _told(lambda: self._js.stream_info(self.stream))
                if any(subjects.covers(each, subject) for each in info.config.subjects or ()):
                    return info
        return await self._find(streams.FRAMES, subject)

    async def _find(self, layout: Layout, subject: str) -> api.StreamInfo:
        """The stream that has a subject; makes it if there is none."""
        with _said(subject):
            try:
                name = await _told(lambda: self._js.find_stream_name_by_subject(subject))
            except NotFoundError:
                _logger.info("NATS has no stream for %s: making %s", subject, layout.name)
                return await self._js.add_stream(layout.config())
            return await _told(lambda: self._js.stream_info(name))

    def _check(self, info: api.StreamInfo) -> None:
        config = info.config
        name = self.stream = config.name or ""
        limit = min(config.max_msg_size or -1, self._client.max_payload)
        limit = self._client.max_payload if limit <= 0 else limit
        fitting = (limit - _HEAD_BYTES) // _FRAME_BYTES
        per_subject = config.max_msgs_per_subject or -1
        if fitting < 1:
            raise TroubleError(f"NATS: messages of stream {name} are limited to {limit} bytes")
        if config.retention not in {None, api.RetentionPolicy.LIMITS}:
            raise TroubleError(f"NATS: stream {name} has retention {config.retention}, not limits")
        if config.no_ack:
            raise TroubleError(f"NATS: stream {name} acknowledges nothing (no_ack)")
        if config.sealed:
            raise TroubleError(f"NATS: stream {name} is sealed")
        if 0 < per_subject < _HISTORY:
            raise TroubleError(
                f"NATS: stream {name} keeps only {per_subject} messages of each subject"
            )
        # A later message must not be stored if an earlier one is not: in a cluster the leader may
        # change in between, and in a full stream a smaller one may still fit.
        is_cluster = info.cluster is not None and bool(info.cluster.name)
        self._alone = is_cluster or config.discard == api.DiscardPolicy.NEW
        for line in self._lines:
            line.most = min(fitting, _FRAMES_ALONE if self._alone else _FRAMES)

    async def _last(self, line: Line) -> Last:
        with _said(line.subject):
            try:
                found = await _told(lambda: self._js.get_last_msg(self.stream, line.subject))
            except NotFoundError:
                return Last(None, 0)
        try:
            return Last(heads.parse(found.headers), found.seq or 0)
        except WireError as error:
            raise TroubleError(
                f"NATS: the last message of {line.subject} is not a bridge's: {error}"
            ) from error

    # ------------------------------------------------------------------------------- publishing

    async def run(self, look: Callable[[Line, int], Awaitable[None]]) -> None:
        """Publishes until something goes wrong.

        :param look: is called for each line when it was read.
        :raises TroubleError: always, in the end.
        """
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            if is_due := loop.time() >= due:
                due = loop.time() + TICK_S
            repairing = [line for line in self._lines if line.is_repairing]
            await self.step(look, self._lines if is_due else {*self._ready, *repairing})
            self._raise_trouble()
            pause_s = max(0.0, due - loop.time())
            if repairing:
                pause_s = min(pause_s, _REPAIR_S)
            try:
                await asyncio.wait_for(self._wake.wait(), pause_s)
            except TimeoutError:
                continue

    async def step(
        self, look: Callable[[Line, int], Awaitable[None]], lines: Iterable[Line]
    ) -> None:
        """Reads and publishes what there is."""
        self._wake.clear()
        now_ns = clock.monotonic_ns()
        for line in lines:
            self._ready.discard(line)
            if line.begin():
                line.read(1 if self._alone else self._window, now_ns)
            await self._send(line, now_ns)
            await look(line, now_ns)
            self._look_for_answers(line, now_ns)

    @property
    def is_idle(self) -> bool:
        """Whether nothing is on the way."""
        return all(not line.queue and not line.is_behind for line in self._lines)

    async def _send(self, line: Line, now_ns: int) -> None:
        """Publishes what was not yet; one at a time, if that is needed, or to be sure at first that
        nobody else publishes."""
        one_by_one = self._alone or not line.is_sure
        for message in line.queue:
            if not message.sent_ns:
                await self._publish(line, message, now_ns, expects=one_by_one)
            if one_by_one:
                return

    async def _publish(self, line: Line, message: Message, now_ns: int, *, expects: bool) -> None:
        self._count += 1
        token = str(self._count)
        message.sent_ns = now_ns
        self._sent[token] = line, message
        headers = {**message.head.headers(), _EXPECTED_STREAM: self.stream}
        if expects:
            headers[_EXPECTED_SEQUENCE] = str(line.sequence)
        try:
            await self._client.publish(
                line.subject, message.body, f"{self._inbox}.{token}", headers
            )
        except (Error, OSError) as error:
            self.fail(f"NATS: {str(error).removeprefix('nats: ')}")

    async def _answered(self, answer: Msg) -> None:
        found = self._sent.pop(answer.subject.rpartition(".")[2], None)
        if found is None:
            return
        line, message = found
        if not answer.data:
            self.fail(f"NATS: no stream has {line.subject} any more")
            return
        try:
            told: dict[str, Any] = json.loads(answer.data)
            error = told.get("error")
            if error is not None:
                self._refused(line, error)
                return
            sequence, is_duplicate = int(told["seq"]), bool(told.get("duplicate"))
        except (ValueError, KeyError, TypeError, AttributeError):
            self.fail(f"NATS: {line.subject} is answered by something else than a stream")
            return
        if is_duplicate:
            # It was still on its way when we looked, and may have had fewer frames than this one.
            line.totals.duplicates += 1
            self.fail(f"NATS: stream {self.stream} had more than it said: looking again")
            return
        has_more = line.is_behind or (bool(line.queue) and (self._alone or not line.is_sure))
        line.stored(message, sequence)
        if has_more:
            self._ready.add(line)
            self._wake.set()

    def _refused(self, line: Line, error: Mapping[str, Any]) -> None:
        text = str(error.get("description", error))[:300]
        if error.get("err_code") == _WRONG_SEQUENCE:
            text = f"somebody else publishes to {line.subject}, or its stream was emptied: {text}"
        self.fail(f"NATS: stream {self.stream} does not take frames: {text}")

    def _look_for_answers(self, line: Line, now_ns: int) -> None:
        first = line.queue[0] if line.queue else None
        if first is not None and first.sent_ns and now_ns - first.sent_ns > _ANSWER_NS:
            self.fail(f"NATS: stream {self.stream} has not answered for {_ANSWER_S:g} s")


async def _told(ask: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
    """What JetStream answers to a question, which is put again while no answer comes."""
    asked: set[asyncio.Task[_T]] = set()
    again_s = _AGAIN_S
    try:
        while True:
            asked.add(asyncio.create_task(ask()))
            answers, _ = await asyncio.wait(
                asked, timeout=again_s, return_when=asyncio.FIRST_COMPLETED
            )
            if answers:
                return await answers.pop()
            again_s *= 2
    finally:
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)


@contextmanager
def _said(subject: str) -> Iterator[None]:
    """Says in one sentence what JetStream does not do.

    :raises TroubleError: it says no, or nothing.
    """
    try:
        yield
    except (NoStreamResponseError, ServiceUnavailableError) as error:
        if isinstance(error, ServiceUnavailableError) and error.err_code == _UNAVAILABLE:
            raise TroubleError("NATS: JetStream has no leader at the moment") from error
        raise TroubleError("NATS: JetStream is not enabled for this account") from error
    except APIError as error:
        text = (error.description or str(error))[:300]
        raise TroubleError(f"NATS: stream for {subject}: {text}") from error
    except (Error, TimeoutError) as error:
        text = str(error).removeprefix("nats: ") or "no answer"
        raise TroubleError(f"NATS: JetStream does not answer: {text}") from error
