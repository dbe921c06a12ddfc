"""Benches that publish to NATS what a bridge would: the same subjects, headers and bodies.

The frames say which they are: number ``n`` of a channel's epoch has its data, so that a reader's
ledger finds every loss, duplicate and inversion.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from canbroker.errors import CanInitializationError
from canbroker.jetstream import heads, streams, subjects
from canbroker.jetstream.heads import Gap, Head
from canbroker.jetstream.server import Server, connect
from canbroker.model.frame import Frame
from canbroker.wire.stream import encode_frames, encode_heartbeat, pack_frame
from tests.support.nats_servers import NatsCluster

if TYPE_CHECKING:
    from nats.aio.client import Client

#: Time of the first frame of each epoch.
BASE_NS: Final = 1_764_547_200_000_000_000

EPOCH: Final = 1_764_547_100_000_000_001

#: Messages that may be without acknowledgement, and for how long.
_WINDOW: Final = 64
_ACK_S: Final = 1.0

_PATIENCE_S: Final = 160.0


def frame(number: int) -> Frame:
    """Number ``number`` of an epoch; of identifiers 0 to 7, and each 16th is an extended one."""
    flags = 0 if number % 16 else 1
    return Frame(BASE_NS + number * 125_000, number % 8, flags, number.to_bytes(8, "big"))


def number_of(data: bytes | bytearray | int) -> int:
    """The number that a frame of :func:`frame` has."""
    assert not isinstance(data, int)
    return int.from_bytes(data, "big")


def message(
    channel: str,
    first: int,
    count: int,
    epoch: int = EPOCH,
    gap: Gap | None = None,
    bench: tuple[str, str] = ("lab", "bench-7"),
) -> tuple[dict[str, str], bytes]:
    """Headers and body of a bridge's message: frames, or a gap before number ``first``.

    :param bench: its site and its name.
    """
    head = Head(epoch, channel, first, count, BASE_NS + first * 125_000, gap, 0, bench)
    if gap is not None:
        return head.headers(), encode_heartbeat(epoch, head.next_seq, 0)
    packed = [pack_frame(frame(number)) for number in range(first, first + count)]
    return head.headers(), encode_frames(epoch, first, 0, packed)


class NatsBench:
    """Channels of one bench; keeps the order of each, with ``window`` messages under way.

    More than one can leave a hole in a cluster: if its leader changes, a later message may be
    stored and an earlier one not.
    """

    def __init__(
        self,
        client: Client,
        site: str,
        bench: str,
        channels: Sequence[str] = ("body",),
        window: int = _WINDOW,
    ) -> None:
        self._window = window
        self._stream = client.jetstream()
        self._names = site, bench
        self.channels = channels
        self.epoch = EPOCH
        self.next = dict.fromkeys(channels, 0)
        self._under_way: deque[asyncio.Future[Any]] = deque()

    def subject(self, channel: str) -> str:
        return subjects.frames(*self._names, channel)

    async def publish(self, channel: str, count: int = 64, epoch: int | None = None) -> None:
        """The next ``count`` frames of a channel."""
        first = self.next[channel]
        await self.put(
            channel, *message(channel, first, count, epoch or self.epoch, None, self._names)
        )
        self.next[channel] = first + count

    async def gap(self, channel: str, gap: Gap, epoch: int | None = None) -> None:
        """Says that frames are missing."""
        first = self.next[channel]
        await self.put(channel, *message(channel, first, 0, epoch or self.epoch, gap, self._names))
        self.next[channel] += gap.lost or 0

    async def put(self, channel: str, headers: dict[str, str], body: bytes) -> None:
        """Any message."""
        sent = await self._stream.publish_async(self.subject(channel), body, headers=headers)
        self._under_way.append(sent)
        while len(self._under_way) >= self._window:
            await asyncio.wait_for(self._under_way.popleft(), _ACK_S)

    async def flush(self) -> None:
        """Waits for the acknowledgements that are missing."""
        while self._under_way:
            await asyncio.wait_for(self._under_way.popleft(), _ACK_S)


async def connected(url: str | list[str], name: str = "bench") -> Client:
    """A connection that comes back by itself."""
    return await connect(Server(url=url), name, reconnects=True)


async def make_streams(client: Client, replicas: int = 1) -> None:
    """Those that a bridge makes. A cluster that has just begun needs some time for it."""
    import nats.errors  # noqa: PLC0415

    deadline = asyncio.get_running_loop().time() + _PATIENCE_S / 4
    for layout in (streams.FRAMES, streams.VALUES):
        while True:
            try:
                await client.jetstream(timeout=2).add_stream(layout.config(replicas))
                break
            except (nats.errors.Error, TimeoutError):
                if asyncio.get_running_loop().time() > deadline:
                    raise
                await asyncio.sleep(0.2)


def make_streams_of(cluster: NatsCluster) -> None:
    """Those that a bridge makes, on all servers; waits until any one of them may go."""

    async def make() -> None:
        client = await connected(cluster.urls)
        await make_streams(client, len(cluster.servers))
        await client.close()

    asyncio.run(make())
    cluster.wait()


class ResumingBench:
    """A bench that goes on where the stream is after each trouble: as a bridge does whose ring is
    endless. Each time with a new connection: nats-py sends what the old one had not, too late."""

    def __init__(
        self, url: str | list[str], bench: str = "bench-7", channels: Sequence[str] = ("body",)
    ) -> None:
        self._url, self._name, self._channels = url, bench, channels
        self._window = _WINDOW if isinstance(url, str) else 1
        self._client: Client | None = None

    async def publish_until(self, channel: str, until: int, together: int = 64) -> None:
        """Publishes frames up to a number; waits for the server."""
        import nats.errors  # noqa: PLC0415

        while True:
            try:
                await self._publish(channel, until, together)
            except (nats.errors.Error, CanInitializationError, TimeoutError, OSError):
                await self.close()
                await asyncio.sleep(0.05)
            else:
                return

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def _publish(self, channel: str, until: int, together: int) -> None:
        if self._client is None:
            self._client = await connect(Server(url=self._url), "bench", error_cb=_ignored)
        bench = NatsBench(self._client, "lab", self._name, self._channels, self._window)
        first = await _next_in_stream(self._client, bench.subject(channel))
        bench.next[channel] = first
        while bench.next[channel] < until:
            await bench.publish(channel, min(together, until - bench.next[channel]))
        await bench.flush()


async def _ignored(error: Exception) -> None:
    """The connection is lost: what waits for it says so, too."""
    del error


async def _next_in_stream(client: Client, subject: str) -> int:
    from nats.js.errors import NotFoundError  # noqa: PLC0415

    try:
        last = await client.jetstream(timeout=_ACK_S).get_last_msg(streams.FRAMES.name, subject)
    except NotFoundError:
        return 0
    return heads.parse(last.headers).next_seq


class Publishing(threading.Thread):
    """Publishes ``count`` frames of each channel of ``bench-7``, whatever the servers do.

    :param pause_s: how much longer it takes than it has to.
    """

    def __init__(
        self,
        url: str | list[str],
        channels: Sequence[str],
        count: int,
        pause_s: float = 0.0,
        replicas: int = 1,
    ) -> None:
        super().__init__(name="publishing")
        self._url, self._channels, self._count = url, channels, count
        self._pause_s, self._replicas = pause_s, replicas
        self._error: BaseException | None = None

    def run(self) -> None:
        try:
            asyncio.run(self._publish())
        except BaseException as error:  # noqa: BLE001 - finish() has it
            self._error = error

    async def _publish(self) -> None:
        client = await connected(self._url)
        try:
            await make_streams(client, self._replicas)
        finally:
            await client.close()
        bench = ResumingBench(self._url, "bench-7", self._channels)
        steps = 20
        for step in range(1, steps + 1):
            for channel in self._channels:
                await bench.publish_until(channel, self._count * step // steps)
            await asyncio.sleep(self._pause_s / steps)
        await bench.close()

    def finish(self) -> None:
        """Waits until everything is in the stream."""
        self.join(_PATIENCE_S)
        assert not self.is_alive()
        assert self._error is None, self._error
