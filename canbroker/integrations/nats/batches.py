"""The frames that benches have published to NATS JetStream, with and without asyncio."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from canbroker.errors import CanInitializationError, CanOperationError
from canbroker.integrations.nats.batch import Assembler, Batch
from canbroker.integrations.nats.position import Position
from canbroker.integrations.nats.wish import Names, Wish, tls_of
from canbroker.jetstream.link import Link, NoAnswerError
from canbroker.jetstream.ordered import OrderedReader, StreamMessage
from canbroker.jetstream.server import Server, Tls
from canbroker.jetstream.stream_state import find_stream, state_of
from canbroker.jetstream.streams import FRAMES
from canbroker.model.filters import CanFilters, validate
from canbroker.system.closing import Closing

#: A consumer is made within milliseconds; in a cluster a leader may have to be elected.
_BEGIN_S: Final = 10.0

_Result = TypeVar("_Result")


class Batches(Closing):
    """Batches of frames, in the order of the stream; made by :func:`batches`.

    With asyncio: ``async with``, ``async for``, :meth:`receive`, :meth:`receive_many`. Without:
    ``with``, ``for``, :meth:`take`, :meth:`take_many`; there is no thread, so the server is only
    listened to while one of these waits. One of both ways, in one thread.

    Ends only if it was told not to follow, else when it is closed. While the server is away, or
    connections are, it waits, and goes on behind the last frame.
    """

    def __init__(self, server: Server, wish: Wish) -> None:
        self._server = server
        self._wish = wish
        self._link: Link | None = None
        self._reader: OrderedReader | None = None
        self._assembler: Assembler | None = None
        self._last: StreamMessage | None = None
        self._runner: asyncio.Runner | None = None
        self._is_over = False

    @property
    def is_over(self) -> bool:
        """Whether no batch will follow."""
        return self._is_over

    @property
    def duplicates(self) -> int:
        """Frames that the stream has twice, and that were handed over once."""
        return 0 if self._assembler is None else self._assembler.duplicates

    @property
    def refused(self) -> int:
        """Messages that are not a bridge's, and were left out."""
        return 0 if self._assembler is None else self._assembler.refused

    @property
    def position(self) -> Position | None:
        """Behind the last batch that was handed over; ``None`` before the first, if no position was
        given. Store its ``str()`` in the transaction that stores the frames."""
        if self._last is None or self._assembler is None or self._reader is None:
            return self._wish.position
        state, last = self._reader.state, self._last.last
        return Position(
            stream=state.name,
            created=state.created,
            sequence=last.sequence,
            message_id=last.message_id,
            time_ns=last.time_ns,
            places=dict(self._assembler.places),
        )

    # ------------------------------------------------------------------------------ with asyncio

    async def open(self) -> None:
        """Connects, and makes a consumer at the server. Does nothing if that was done.

        :raises CanInitializationError: the server, the stream or the position cannot be used; says
            why.
        :raises CanPermissionError: our account lacks a permission; says which.
        """
        if self._link is not None:
            return
        link = await Link.open(self._server, f"canbroker consumer {os.getpid()}")
        try:
            reader, assembler = await _begun(link, self._wish)
        except BaseException:
            await link.close()
            raise
        self._link, self._reader, self._assembler = link, reader, assembler

    async def receive(self, timeout: float | None = None) -> Batch | None:
        """The next batch. Waits for it.

        :param timeout: seconds; ``None``: as long as it takes.
        :returns: ``None`` after ``timeout``, and when it :attr:`is_over`.
        :raises CanOperationError: the stream was deleted, or the server does not let us in again.
        """
        await self.open()
        if (batch := self._ready()) is not None:
            return batch
        try:
            async with asyncio.timeout(timeout):
                return await self._received()
        except TimeoutError:
            return None

    async def receive_many(self, frames: int = 100_000, seconds: float = 1.0) -> list[Batch]:
        """The batches of the next ``seconds``, or fewer if they have enough ``frames``. Empty if
        nothing came, and when it :attr:`is_over`.

        :raises CanOperationError: as :meth:`receive` does.
        """
        deadline = asyncio.get_running_loop().time() + seconds
        together: list[Batch] = []
        count = 0
        while count < frames:
            left = deadline - asyncio.get_running_loop().time()
            batch = await self.receive(max(0.0, left)) if left > 0 else None
            if batch is None:
                break
            together.append(batch)
            count += len(batch)
        return together

    async def aclose(self) -> None:
        """Ends the connection. May be called again."""
        link, self._link, self._is_over = self._link, None, True
        if link is None:
            return
        try:
            if self._reader is not None:
                await self._reader.close()
        finally:
            await link.close()

    def _ready(self) -> Batch | None:
        """The next batch if it is here already."""
        reader, assembler = self._reader, self._assembler
        if reader is None or assembler is None or self._link is None:
            return None
        while (message := reader.ready()) is not None:
            self._last = message
            if (batch := assembler.batch(message)) is not None:
                return batch
        return None

    async def _received(self) -> Batch | None:
        if self._reader is None or self._assembler is None or self._link is None:
            return None
        while (message := await self._reader.next()) is not None:
            self._last = message
            if (batch := self._assembler.batch(message)) is not None:
                return batch
        self._is_over = True
        return None

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def __aiter__(self) -> AsyncIterator[Batch]:
        was_open = self._link is not None
        try:
            while (batch := await self.receive()) is not None:
                yield batch
        finally:
            if not was_open:
                await self.aclose()

    # --------------------------------------------------------------------------- without asyncio

    def take(self, timeout: float | None = None) -> Batch | None:
        """As :meth:`receive`."""
        batch = self._ready()  # without the event loop, if it has come already
        return batch if batch is not None else self._run(self.receive(timeout))

    def take_many(self, frames: int = 100_000, seconds: float = 1.0) -> list[Batch]:
        """As :meth:`receive_many`."""
        return self._run(self.receive_many(frames, seconds))

    def close(self) -> None:
        """As :meth:`aclose`."""
        runner, self._runner = self._runner, None
        if runner is not None:
            with runner:
                runner.run(self.aclose())

    def _run(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        if self._runner is None:
            self._runner = asyncio.Runner()
        try:
            return self._runner.run(work)
        finally:
            if self._link is None:  # it could not be opened
                self.close()

    def __enter__(self) -> Self:
        self._run(self.open())
        return self

    def __iter__(self) -> Iterator[Batch]:
        was_open = self._runner is not None
        try:
            while (batch := self.take()) is not None:
                yield batch
        finally:
            if not was_open:
                self.close()


def batches(  # noqa: PLR0913 - what can be asked for
    url: str | list[str],
    *,
    site: Names = None,
    bench: Names = None,
    channel: Names = None,
    after: Position | str | int | None = None,
    since: datetime | float | None = None,
    follow: bool = True,
    can_filters: CanFilters = None,
    credentials: str | Path = "",
    tls: Tls | Mapping[str, str] | None = None,
    stream: str | None = None,
) -> Batches:
    """Frames that benches have published to NATS JetStream, in the order of the stream::

        for batch in batches("nats://nats.lab:4222", site="lab", bench="bench-7"):
            print(batch.channel, batch.stream_seq, batch.messages)

    Without ``after`` and ``since`` it begins with what comes from now on. Nothing is asked of the
    server before the first batch is, or the object is entered (``with``).

    :param url: ``nats://HOST:PORT`` or ``tls://HOST:PORT``; of a cluster, several.
    :param site: one or several; ``None``: all. Likewise ``bench`` and ``channel``. The server sends
        nothing else.
    :param after: begins behind this :class:`Position` (or its text), or behind the message with
        this sequence of the stream; 0 is before the first one. Of a ``Position`` each frame comes
        once, and losses are counted from there.
    :param since: begins with what the server has stored since this time: seconds since 1970, or
        an aware datetime.
    :param follow: waits for what comes later; ``False``: ends behind what the stream has when it is
        opened.
    :param can_filters: as those of ``Bus``; other frames are left out here.
    :param credentials: a file: a NATS user's ``.creds``, the seed of an NKey, or ``USER:PASSWORD``.
    :param tls: PEM files: ``ca``, ``cert``, ``key``.
    :param stream: its name, if several have these subjects.
    :raises CanInitializationError: a parameter is wrong; says which.
    """
    try:
        server = Server(url=url, credentials=str(credentials), tls=tls_of(tls))
        wish = Wish.of(
            names={"site": site, "bench": bench, "channel": channel},
            stream=stream,
            after=after,
            since=since,
            follow=follow,
            filters=validate(can_filters),
        )
    except (ValueError, TypeError) as error:
        raise CanInitializationError(str(error)) from error
    return Batches(server, wish)


async def _begun(link: Link, wish: Wish) -> tuple[OrderedReader, Assembler]:
    """A consumer, where it was wished to be.

    :raises CanInitializationError: there is no such place.
    """
    try:
        name = wish.stream or await find_stream(link, wish.widest, FRAMES.name)
        state = await state_of(link, name)
    except NoAnswerError as error:
        raise CanInitializationError(str(error)) from error
    start = wish.start(state)
    reader = OrderedReader(link, state, wish.subjects, start, None if wish.follow else state.last)
    try:
        await reader.begin(_BEGIN_S)
    except CanOperationError as error:
        if isinstance(error, CanInitializationError):
            raise
        raise CanInitializationError(str(error)) from error
    is_late = isinstance(wish.after, int) and state.first > wish.after + 1
    return reader, Assembler(wish.filters, wish.position, is_late)
