"""Reads a stream's messages in its order, each once, whatever happens to the server in between.

An ordered consumer: the server keeps one for us, in memory and without acknowledgements, and
numbers what it delivers. If a number is missing, or the server is silent, or was away, another one
takes its place behind the last message. Messages are pulled: a slow reader leaves them there.

nats-py has an ordered consumer, too. It is pushed to: a reader that is too slow loses messages.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import deque
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from canbroker.errors import CanInitializationError, CanOperationError
from canbroker.jetstream.heads import MESSAGE_ID
from canbroker.jetstream.link import API, Link, NoAnswerError, RefusalError
from canbroker.jetstream.stream_state import StreamState, state_of
from canbroker.system import clock

if TYPE_CHECKING:
    from nats.aio.msg import Msg

#: Messages that the server may send ahead. A bridge's have 256 frames or fewer.
_AHEAD: Final = 128
_FEW: Final = _AHEAD // 2

#: The server says that often that it is there, if it has nothing else to say; and for how long one
#: request is valid.
_HEARTBEAT_S: Final = 1.0
_REQUEST_S: Final = 20.0
_SILENCE_S: Final = 2.5 * _HEARTBEAT_S

#: The server forgets a consumer that asks for nothing for so long.
_FORGOTTEN_S: Final = 60.0

#: Between two tries, in seconds.
_PAUSES_S: Final = (0.05, 0.1, 0.2, 0.5, 1.0)

#: A server that loses power loses what it had not synced, which is by default that of two minutes.
#: What it lost is read again, and known by its numbers.
_BACK_NS: Final = 600 * clock.SECOND

_STATUS: Final = "Status"
_HERE: Final = "100"
_REQUEST_IS_OVER: Final = frozenset({"404", "408"})
_PENDING: Final = "Nats-Pending-Messages"

_logger = logging.getLogger(__name__)


class Start(NamedTuple):
    """Where to begin: at the first message with this sequence or a later one, or that the server
    has stored at this time or later. Without both: the last message of each subject."""

    sequence: int | None = None
    time_ns: int | None = None


class Last(NamedTuple):
    """The last message that was read. ``time_ns``: when the server stored it."""

    sequence: int
    message_id: str
    time_ns: int


class StreamMessage(NamedTuple):
    """A message. ``pending``: how many more there are for us at the moment."""

    subject: str
    headers: Mapping[str, str]
    data: bytes
    sequence: int
    time_ns: int
    pending: int

    @property
    def last(self) -> Last:
        """To go on behind it."""
        return Last(self.sequence, self.headers.get(MESSAGE_ID, ""), self.time_ns)


class OrderedReader:
    """Messages of some subjects of a stream; belongs to one event loop.

    ``state``: of the stream, when a consumer was last made; ``server_ns``: what the server's clock
    showed then.
    """

    def __init__(
        self,
        link: Link,
        state: StreamState,
        subjects: Sequence[str],
        start: Start | Last,
        end: int | None = None,
    ) -> None:
        """
        :param end: the sequence of the last message to read; ``None``: there is no end.
        """
        self.state = state
        self.server_ns = 0
        self._link = link
        self._subjects = subjects
        self._start = start
        self._end = end
        self._inbox = ""
        self._arrived: deque[Msg] = deque()
        self._consumer: str | None = None
        self._cuts = 0  # of the connection, when the consumer was made
        self._delivered = 0  # by this consumer
        self._wanted = 0  # messages that we have asked for, and that have not come
        self._is_over = False

    async def begin(self, patience_s: float) -> None:
        """Makes the consumer.

        :raises CanInitializationError: the server cannot do it, or not in time; says why.
        :raises CanPermissionError: we may not read these subjects.
        """
        try:
            async with asyncio.timeout(patience_s):
                await self._open()
        except TimeoutError as error:
            text = f"NATS at {self._link.server.shown} gives us no consumer for {patience_s:g} s"
            raise CanInitializationError(text) from error

    async def next(self) -> StreamMessage | None:
        """The next message; ``None`` at the end. Waits for it. May be cancelled.

        :raises CanOperationError: the stream was deleted, or the server does not let us in again.
        """
        try:
            return await self._next()
        except CanOperationError:  # CanPermissionError is both
            raise
        except CanInitializationError as error:
            raise CanOperationError(str(error)) from error

    def ready(self) -> StreamMessage | None:
        """The next message if it is here already, and no request is due."""
        while self._arrived and self._wanted > _FEW and self._is_current:
            if (message := self._take(self._arrived.popleft())) is not None:
                return message
        return None

    async def close(self) -> None:
        """Tells the server to forget the consumer, if it listens; else it does so by itself."""
        name, self._consumer = self._consumer, None
        if name is not None and self._link.is_up:
            await self._delete(name)

    async def _next(self) -> StreamMessage | None:
        link = self._link
        while not self._is_over:
            link.news.clear()
            link.check()
            if not self._is_current:
                self._consumer = None
                await self._open()
                continue
            await self._ask()
            if not self._arrived:
                await self._wait()
            elif (message := self._take(self._arrived.popleft())) is not None:
                return message
        return None

    @property
    def _is_current(self) -> bool:
        """Whether the server has our consumer, as far as we know."""
        return self._consumer is not None and self._cuts == self._link.cuts and not self._is_over

    # ------------------------------------------------------------------------------ the consumer

    async def _open(self) -> None:
        """Makes a consumer that goes on where the last one was; waits for the server."""
        for attempt in range(1 << 62):
            self._link.check()
            self._cuts = self._link.cuts
            try:
                if self._link.is_up:
                    await self._make()
                    return
            except NoAnswerError as error:
                _logger.debug("%s", error)
            await asyncio.sleep(_PAUSES_S[min(attempt, len(_PAUSES_S) - 1)])

    async def _make(self) -> None:
        """:raises NoAnswerError: the server is not ready."""
        self.state = self._still_the_same(await state_of(self._link, self.state.name))
        if not self._inbox:
            self._inbox = self._link.client.new_inbox()
            await self._link.client.subscribe(
                f"{self._inbox}.*",
                cb=self._on_message,
                pending_msgs_limit=0,  # none: we have asked for as many as we can take
                pending_bytes_limit=0,
            )
        # With its name and filter in the subject, for which there can be permissions.
        name = f"canbroker-{self._link.client.new_inbox().rpartition('.')[2]}"
        method = f"CONSUMER.CREATE.{self.state.name}.{name}"
        if len(self._subjects) == 1:
            method += f".{self._subjects[0]}"
        request = {"stream_name": self.state.name, "config": self._config(name)}
        what = f"to read {' '.join(self._subjects)} of stream {self.state.name}"
        try:
            made = await self._link.request(method, request | {"action": "create"}, what)
        except RefusalError as error:
            if error.code >= 500:
                raise NoAnswerError(str(error)) from error
            raise CanOperationError(f"NATS does not let us {what[3:]}: {error}") from error
        self.server_ns = _moment(made.get("ts"))
        self._consumer = name
        self._arrived.clear()
        self._delivered = self._wanted = 0
        self._is_over = self._end is not None and not made.get("num_pending")

    def _config(self, name: str) -> dict[str, Any]:
        config: dict[str, Any] = {
            "name": name,
            "ack_policy": "none",
            "replay_policy": "instant",
            "inactive_threshold": int(_FORGOTTEN_S * clock.SECOND),
            "num_replicas": 1,
            "mem_storage": True,
        }
        if len(self._subjects) == 1:
            config["filter_subject"] = self._subjects[0]
        else:
            config["filter_subjects"] = [*self._subjects]
        start = self._start
        if isinstance(start, Last):  # once more, to see that it is still the same
            return config | {"deliver_policy": "by_start_sequence", "opt_start_seq": start.sequence}
        if start.time_ns is not None:
            return config | {
                "deliver_policy": "by_start_time",
                "opt_start_time": _utc(start.time_ns),
            }
        if start.sequence is None:
            return config | {"deliver_policy": "last_per_subject"}
        return config | {"deliver_policy": "by_start_sequence", "opt_start_seq": start.sequence}

    def _still_the_same(self, state: StreamState) -> StreamState:
        """:raises CanOperationError: the stream was deleted, and made anew."""
        if state.created != self.state.created:
            raise CanOperationError(
                f"stream {state.name} was made anew at {state.created}: its sequences have begun "
                "again, and what the old one had is gone"
            )
        if isinstance(self._start, Last) and state.last < self._start.sequence:
            self._go_back(self._start)
        return state

    def _go_back(self, last: Last) -> None:
        """The stream does not have any more what we have read: others may take its sequences."""
        _logger.warning(
            "stream %s has lost its newest messages, up to number %d at least: reading it again "
            "from ten minutes before",
            self.state.name,
            last.sequence,
        )
        self._consumer = None
        self._start = Start(time_ns=max(0, last.time_ns - _BACK_NS))

    async def _delete(self, name: str) -> None:
        try:
            await self._link.request(
                f"CONSUMER.DELETE.{self.state.name}.{name}", {}, "to delete our consumer"
            )
        except (NoAnswerError, RefusalError, CanOperationError) as error:
            _logger.debug("consumer %s: %s", name, error)  # it is forgotten in a minute

    # ------------------------------------------------------------------------------ its messages

    async def _ask(self) -> None:
        """Asks for more messages if few are on their way."""
        if self._wanted > _FEW:
            return
        more = _AHEAD - self._wanted
        self._wanted = _AHEAD
        request = {
            "batch": more,
            "expires": int(_REQUEST_S * clock.SECOND),
            "idle_heartbeat": int(_HEARTBEAT_S * clock.SECOND),
        }
        await self._link.client.publish(
            f"{API}.CONSUMER.MSG.NEXT.{self.state.name}.{self._consumer}",
            json.dumps(request).encode(),
            reply=f"{self._inbox}.{self._consumer}",
        )

    async def _on_message(self, message: Msg) -> None:
        self._arrived.append(message)
        self._link.news.set()

    async def _wait(self) -> None:
        """Waits for news. A server that is silent has forgotten us."""
        try:
            async with asyncio.timeout(_SILENCE_S):
                await self._link.news.wait()
        except TimeoutError:
            if not self._link.news.is_set():
                self._consumer = None

    def _take(self, message: Msg) -> StreamMessage | None:
        """The message, if it is the next one."""
        if not message.reply:
            if message.subject == f"{self._inbox}.{self._consumer}":
                self._note_status(message.headers or {})
            return None
        told = message.metadata
        if told.consumer != self._consumer:
            return None  # of an earlier one
        self._wanted -= 1
        self._delivered += 1
        if told.sequence.consumer != self._delivered:
            self._consumer = None
            return None
        taken = StreamMessage(
            message.subject,
            message.headers or {},
            message.data,
            told.sequence.stream,
            int(told.timestamp.timestamp() * clock.SECOND),
            told.num_pending,
        )
        return self._after_last(taken)

    def _after_last(self, message: StreamMessage) -> StreamMessage | None:
        """The message, unless it is the last one again, or behind the end."""
        last, end = self._start, self._end
        if self._delivered == 1 and isinstance(last, Last) and message.sequence == last.sequence:
            if message.last.message_id != last.message_id:
                self._go_back(last)
                return None
            self._is_over = end is not None and not message.pending
            return None
        if end is not None:
            self._is_over = message.sequence >= end or not message.pending
            if message.sequence > end:
                return None
        self._start = message.last
        return message

    def _note_status(self, headers: Mapping[str, str]) -> None:
        """What the server says of a request, or of the consumer."""
        status = headers.get(_STATUS, "")
        if status == _HERE:
            return
        if status in _REQUEST_IS_OVER:
            left = headers.get(_PENDING, "")
            self._wanted -= min(self._wanted, int(left) if left.isdecimal() else self._wanted)
            return
        _logger.debug("consumer %s: %s", self._consumer, dict(headers))
        self._consumer = None  # the server has deleted it, or is about to end


def _utc(time_ns: int) -> str:
    """A time as JSON has it for NATS, with its nanoseconds."""
    seconds, rest = divmod(time_ns, clock.SECOND)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"


def _moment(text: object) -> int:
    """A time of NATS' answers in nanoseconds; that of our clock if there is none."""
    try:
        return int(datetime.fromisoformat(str(text)).timestamp() * clock.SECOND)
    except ValueError:  # older servers say none
        return clock.wall_ns()
