"""``python -m benchmarks.fleet``: what many benches cost one NATS server and its consumers.

One program stands for the benches: each has a connection of its own and publishes what a bridge
does, every 20 ms a message for each channel, with acknowledgements, and its states. Consumers share
the benches and read what comes. Everything that was published must have been read, once.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias

import psutil
from rich.console import Console
from rich.table import Table

from benchmarks.usage import cpu_s, resident_mb
from canbroker.integrations.nats import batches
from canbroker.jetstream import subjects
from canbroker.jetstream.heads import Head
from canbroker.jetstream.values import REPEAT_S, BenchState
from canbroker.model.frame import Frame
from canbroker.wire.stream import StateEvent, encode_frames, pack_frame
from tests.support.nats_benches import connected, make_streams
from tests.support.nats_servers import NatsServer

_TICK_S: Final = 0.02
_SITE: Final = "fleet"
_PATIENCE_S: Final = 60.0

Pipe: TypeAlias = "Connection[Any, Any]"


class Load(NamedTuple):
    """``rate``: frames a second of each channel."""

    benches: int
    channels: int
    rate: int
    seconds: float


class Published(NamedTuple):
    """What the benches have done. ``slowest_ms``: the longest that an acknowledgement took."""

    frames: int
    messages: int
    refused: int
    cpu: float
    slowest_ms: float


class Read(NamedTuple):
    """What a consumer has done; ``lags_ms``: from a batch's last frame until it was read."""

    frames: int
    gaps: int
    duplicates: int
    cpu: float
    most_pending: int
    lags_ms: list[float]


class Row(NamedTuple):
    """What a load costs."""

    load: Load
    published: Published
    read: list[Read]
    took_s: float
    server_cpu: float
    server_mb: float
    stored: int

    @property
    def is_exact(self) -> bool:
        return (
            sum(each.frames for each in self.read) == self.published.frames
            and not any(each.gaps or each.duplicates for each in self.read)
            and not self.published.refused
        )

    @property
    def keeps_up(self) -> bool:
        """Whether never more messages have waited for a consumer than come in two seconds."""
        most = 2 * self.published.messages / self.load.seconds
        return all(each.most_pending < most for each in self.read)


def main() -> int:
    """Prints the table; returns 1 if frames are missing or there twice, 2 if a consumer lags."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fleet", description=__doc__)
    parser.add_argument("--benches", default="5,15,50", help="how many, one after another")
    parser.add_argument("--channels", type=int, default=2, help="of each bench")
    parser.add_argument("--rate", type=int, default=500, help="frames/s of each channel")
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--consumers", type=int, default=1)
    given = parser.parse_args()
    rows = []
    for count in map(int, given.benches.split(",")):
        load = Load(count, given.channels, given.rate, given.seconds)
        rows.append(measured(load, given.consumers))
    Console(width=None if sys.stdout.isatty() else 200).print(_table(rows))
    if not all(row.is_exact for row in rows):
        return 1
    return 0 if all(row.keeps_up for row in rows) else 2


def measured(load: Load, consumers: int) -> Row:
    """Runs a server, the benches and the consumers."""
    context = multiprocessing.get_context("spawn")
    with (
        tempfile.TemporaryDirectory(prefix="fleet-") as directory,
        NatsServer(Path(directory)) as server,
    ):
        asyncio.run(_streams(server.url))
        names = [f"bench-{number}" for number in range(load.benches)]
        readers = []
        for part in range(min(consumers, load.benches)):
            ours, theirs = context.Pipe()
            wanted = None if consumers == 1 else names[part::consumers]
            process = context.Process(target=_consume, args=(server.url, wanted, theirs))
            process.start()
            readers.append((process, ours))
            ours.recv()  # it is ready
        ours, theirs = context.Pipe()
        generator = context.Process(target=_generate, args=(server.url, load, theirs))
        began, cpu = time.monotonic(), cpu_s(server.pid)
        generator.start()
        published: Published = ours.recv()
        generator.join()
        took = time.monotonic() - began
        for _, pipe in readers:
            pipe.send("the benches have ended")
        read: list[Read] = [pipe.recv() for _, pipe in readers]
        for process, _ in readers:
            process.join()
        stored = sum(path.stat().st_size for path in Path(directory).rglob("*.blk"))
        used = cpu_s(server.pid) - cpu
        return Row(load, published, read, took, used, resident_mb(server.pid), stored)


async def _streams(url: str) -> None:
    client = await connected(url)
    await make_streams(client)
    await client.close()


# -------------------------------------------------------------------------------- the benches


class _Bench:
    """A bench, with its own connection."""

    def __init__(self, client: Any, name: str, load: Load) -> None:
        self.client = client
        self.frames = self.messages = self.acknowledged = self.refused = 0
        self.slowest_s = 0.0
        self._name, self._load = name, load
        self._epoch = time.time_ns()
        self._sent: dict[str, float] = {}
        self._inbox = client.new_inbox()
        self._subjects = {
            channel: subjects.frames(_SITE, name, channel)
            for channel in (f"can{number}" for number in range(load.channels))
        }

    async def run(self, number: int) -> None:
        await self.client.subscribe(f"{self._inbox}.*", cb=self._answered)
        # Benches do not tick at the same time.
        begin = time.monotonic() + _TICK_S * (1 + number / self._load.benches)
        told = 0.0
        for tick in itertools.count():
            due = begin + tick * _TICK_S
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            if due - begin > self._load.seconds:
                break
            first = self.frames // self._load.channels
            last = int((tick + 1) * _TICK_S * self._load.rate)
            for channel in self._subjects:
                await self._publish(channel, first, last - first)
            if due - told > REPEAT_S:
                told = due
                await self._tell()
        deadline = time.monotonic() + _PATIENCE_S
        while self._sent and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        self.refused += len(self._sent)
        await self.client.close()

    async def _publish(self, channel: str, first: int, count: int) -> None:
        if not count:
            return
        now_ns = time.time_ns()
        head = Head(self._epoch, channel, first, count, now_ns, None, 0, (_SITE, self._name))
        packed = [
            pack_frame(Frame(now_ns, number & 0x3F, 0, number.to_bytes(8, "big")))
            for number in range(first, first + count)
        ]
        body = encode_frames(self._epoch, first, 0, packed)
        reply = f"{self._inbox}.{self.messages}"
        self._sent[reply] = time.monotonic()
        await self.client.publish(self._subjects[channel], body, reply, head.headers())
        self.frames += count
        self.messages += 1

    async def _tell(self) -> None:
        state = StateEvent(state="active", received_rate=float(self._load.rate))
        told = BenchState(time.time_ns(), self._epoch, state)
        for channel in self._subjects:
            subject = subjects.state(_SITE, self._name, channel)
            await self.client.publish(subject, told.body(), headers=told.headers())

    async def _answered(self, message: Any) -> None:
        self.slowest_s = max(self.slowest_s, time.monotonic() - self._sent.pop(message.subject))
        if b'"error"' in message.data or b'"duplicate"' in message.data:
            self.refused += 1


def _generate(url: str, load: Load, pipe: Pipe) -> None:
    pipe.send(asyncio.run(_benches(url, load)))


async def _benches(url: str, load: Load) -> Published:
    benches = [
        _Bench(await connected(url, f"bench-{number}"), f"bench-{number}", load)
        for number in range(load.benches)
    ]
    cpu = time.process_time()
    await asyncio.gather(*(bench.run(number) for number, bench in enumerate(benches)))
    return Published(
        sum(bench.frames for bench in benches),
        sum(bench.messages for bench in benches),
        sum(bench.refused for bench in benches),
        time.process_time() - cpu,
        max(bench.slowest_s for bench in benches) * 1e3,
    )


# ------------------------------------------------------------------------------- the consumers


def _consume(url: str, benches: Sequence[str] | None, pipe: Pipe) -> None:
    frames = gaps = most_pending = 0
    lags_ms = []
    with batches(url, site=_SITE, bench=benches, after=0) as stream:
        pipe.send("ready")
        cpu = time.process_time()
        while True:
            batch = stream.take(0.5)
            if batch is None:
                if pipe.poll():
                    break
                continue
            lags_ms.append((time.time_ns() - batch.frames[-1].timestamp_ns) / 1e6)
            frames += len(batch)
            gaps += len(batch.gaps)
            most_pending = max(most_pending, batch.pending)
        used = time.process_time() - cpu
        pipe.send(Read(frames, gaps, stream.duplicates, used, most_pending, sorted(lags_ms)))


# ----------------------------------------------------------------------------------- the table


def _table(rows: Sequence[Row]) -> Table:
    cores = psutil.cpu_count()
    made = Table(title=f"one server, {len(rows[0].read)} consumers, {cores} cores for everything")
    for column in (
        *("benches", "frames/s", "messages/s", "server cores", "us a message", "server MB"),
        *("bytes a frame", "consumer us a frame", "lag ms p50", "p99", "max", "most pending"),
        *("slowest ack ms", "exact"),
    ):
        made.add_column(column, justify="right")
    for row in rows:
        lags = sorted(itertools.chain.from_iterable(each.lags_ms for each in row.read))
        frames, messages = row.published.frames, row.published.messages
        made.add_row(
            str(row.load.benches),
            f"{frames / row.load.seconds:,.0f}",
            f"{messages / row.load.seconds:,.0f}",
            f"{row.server_cpu / row.took_s:.2f}",
            f"{row.server_cpu / messages * 1e6:.0f}",
            f"{row.server_mb:.0f}",
            f"{row.stored / frames:.1f}",
            f"{sum(each.cpu for each in row.read) / frames * 1e6:.2f}",
            f"{lags[len(lags) // 2]:.1f}",
            f"{lags[len(lags) * 99 // 100]:.1f}",
            f"{lags[-1]:.1f}",
            str(max(each.most_pending for each in row.read)),
            f"{row.published.slowest_ms:.1f}",
            "yes" if row.is_exact else "NO",
        )
    return made


if __name__ == "__main__":
    sys.exit(main())
