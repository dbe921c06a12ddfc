"""A TCP port that leads to another one over a link as bad as a test wants it.

Every byte that one end writes reaches the other one, in order, or the connection ends: that is all
that TCP lets programs see of a bad line. What is slow, and what is lost on the way and sent again,
is time to them.
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, Self, TypeVar

_T = TypeVar("_T")

#: Bytes that TCP sends in one packet over Ethernet.
SEGMENT: Final = 1_460

#: Linux sends a packet again after the round trip and this, if nothing that followed it shows that
#: it was lost (TCP_RTO_MIN).
RETRANSMISSION_S: Final = 0.2

#: Bytes on the way in one direction of one connection. A sender waits beyond, as for a window.
WINDOW: Final = 1 << 20

_READ: Final = 16 * SEGMENT

#: Nobody waits for longer for the thread of a link.
_PATIENCE_S: Final = 20.0


class RoughLink:
    """Listens at :attr:`address`; everything that connects there has a connection to ``target``.

    ``delay_s`` is that of one direction. Of the packets a share ``loss`` is lost, and delays what
    follows it until it is sent again. ``bandwidth`` is in bytes/s and direction, of each
    connection. :meth:`cut` and :meth:`swallow` may be called from any thread.
    """

    def __init__(
        self,
        target: tuple[str, int],
        *,
        delay_s: float = 0.0,
        loss: float = 0.0,
        bandwidth: float | None = None,
        seed: int = 0,
    ) -> None:
        self.target = target
        self.delay_s = delay_s
        self.loss = loss
        self.bandwidth = bandwidth
        #: Connections that were made so far.
        self.accepted = 0
        #: Packets that were lost so far.
        self.lost = 0
        self.random = random.Random(seed)
        self._open: set[_Connection] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="rough link")
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=128)
        host, port = self._listening.getsockname()
        self.address: tuple[str, int] = (host, port)

    def __enter__(self) -> Self:
        self._thread.start()
        self._server = self._call(asyncio.start_server(self._connected, sock=self._listening))
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._call(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def open(self) -> int:
        """Connections that are there now and lead somewhere."""
        return sum(not connection.swallowed for connection in list(self._open))

    def cut(self) -> int:
        """Resets every connection, at both ends; returns how many there were."""
        return self._for_each(_Connection.reset)

    def swallow(self) -> int:
        """Lets every connection that is there now fall silent for ever, as when a router has
        forgotten it: no end is told, and what it sends is gone. New ones work. Returns how many
        there were."""
        return self._for_each(_Connection.swallow)

    def _for_each(self, strike: Callable[[_Connection], None]) -> int:
        async def run() -> int:
            struck = [connection for connection in self._open if not connection.swallowed]
            for connection in struck:
                strike(connection)
            return len(struck)

        return self._call(run())

    def _call(self, job: Coroutine[Any, Any, _T]) -> _T:
        return asyncio.run_coroutine_threadsafe(job, self._loop).result(_PATIENCE_S)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        try:
            await asyncio.sleep(2 * self.delay_s)  # the handshake of TCP
            far = await asyncio.open_connection(*self.target)
        except (OSError, asyncio.CancelledError):  # nobody listens there; or the link ends
            _reset(writer)
            return
        connection = _Connection(self, (reader, writer), far)
        self._open.add(connection)
        # Streams would log that their task was cancelled, because the link ends.
        with suppress(asyncio.CancelledError):
            await connection.run()
        self._open.discard(connection)

    async def _end(self) -> None:
        self._server.close()
        for connection in list(self._open):
            connection.reset()
        ending = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)


class _Connection:
    """A connection of a client, and the one to the target that belongs to it."""

    def __init__(
        self,
        link: RoughLink,
        near: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        far: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        self.swallowed = False
        self._writers = near[1], far[1]
        self._ways = _Way(link, near[0], far[1]), _Way(link, far[0], near[1])

    async def run(self) -> None:
        """Passes on what comes, until both ends have ended or one is reset."""
        try:
            async with asyncio.TaskGroup() as group:
                for way in self._ways:
                    group.create_task(way.read())
                    group.create_task(way.write())
            for writer in self._writers:
                writer.close()
        except* ConnectionError:
            pass  # one end is gone: so is the other, below
        finally:
            self.reset()

    def reset(self) -> None:
        for writer in self._writers:
            _reset(writer)

    def swallow(self) -> None:
        self.swallowed = True
        for way in self._ways:
            way.swallow()


class _Way:
    """One direction of a connection. What is read is written when it has arrived."""

    def __init__(
        self, link: RoughLink, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._link = link
        self._reader = reader
        self._writer = writer
        self._arrivals: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        self._under_way = 0
        self._room = asyncio.Event()
        self._arrived = 0.0  # the last of it
        self._departed = 0.0
        self._swallowed = False

    async def read(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            data = await self._read()
            if self._swallowed:
                if not data:
                    return
                continue
            self._arrivals.put_nowait((self._arrival(loop.time(), len(data)), data))
            if not data:
                return
            self._under_way += len(data)
            while self._under_way > WINDOW and not self._swallowed:
                self._room.clear()
                await self._room.wait()

    async def write(self) -> None:
        """Ends with what it was to pass on; a way that is swallowed stays open."""
        loop = asyncio.get_running_loop()
        while True:
            arrival, data = await self._arrivals.get()
            await asyncio.sleep(arrival - loop.time())
            if self._swallowed:
                continue
            if not data:
                self._writer.write_eof()
                return
            self._writer.write(data)
            await self._drain()
            self._under_way -= len(data)
            self._room.set()

    def swallow(self) -> None:
        self._swallowed = True
        self._room.set()

    async def _read(self) -> bytes:
        try:
            return await self._reader.read(_READ)
        except ConnectionError:
            if self._swallowed:  # the other end must not hear of it
                return b""
            raise

    async def _drain(self) -> None:
        try:
            await self._writer.drain()
        except ConnectionError:
            if not self._swallowed:
                raise

    def _arrival(self, now: float, length: int) -> float:
        """When so many bytes that are written now are at the other end."""
        link = self._link
        dense = now - self._departed < 2 * link.delay_s
        self._departed = max(now, self._departed) if link.bandwidth else now
        if link.bandwidth:
            self._departed += length / link.bandwidth
        arrival = self._departed + link.delay_s
        for _ in range(-(-length // SEGMENT)):
            if link.random.random() < link.loss:
                link.lost += 1
                # What follows soon shows the loss to the other end, and it asks at once.
                arrival += 2 * link.delay_s + (0.0 if dense else RETRANSMISSION_S)
        self._arrived = max(arrival, self._arrived)
        return self._arrived


def _reset(writer: asyncio.StreamWriter) -> None:
    """Ends a connection with RST, without what may be waiting to be sent."""
    if not writer.transport.is_closing():
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
