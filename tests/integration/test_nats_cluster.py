"""A cluster of three NATS servers, of which one at a time is killed: each frame comes once."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final

import pytest

from canbroker.integrations.nats import Batch, Batches, batches
from canbroker.jetstream.server import Server
from canbroker.transport.runtime import Runtime
from canbroker.view.fleet import fleet
from tests.support.brokers import status_of, wait_until
from tests.support.ledger import Sender, serving
from tests.support.nats_benches import Publishing, connected, make_streams, number_of
from tests.support.nats_servers import NatsServer, nats_cluster

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

CHANNELS: Final = ("body", "drive")
PATIENCE_S: Final = 90.0  # leaders of streams are elected, on a machine that may be busy


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[list[NatsServer]]:
    with nats_cluster(tmp_path / "nats") as servers:
        yield servers


def urls(cluster: list[NatsServer]) -> list[str]:
    return [server.url for server in cluster]


def kill_one_at_a_time(
    cluster: list[NatsServer], stream: Batches, seconds: float = 0
) -> list[Batch]:
    """What a consumer receives meanwhile: each server is killed twice, and then for so long."""
    chance = random.Random(3)
    received = []
    end = time.monotonic() + seconds
    for number in itertools.count():
        if number >= 2 * len(cluster) and time.monotonic() > end:
            break
        victim = cluster[number % len(cluster)]
        for action in (victim.kill, partial(victim.start, wait=False), victim.wait):
            received += stream.take_many(seconds=chance.uniform(0.3, 1.0), frames=1 << 40)
            action()
    return received


def the_rest(stream: Batches, missing: int) -> list[Batch]:
    """What comes until so many frames have come, and a little longer."""
    received: list[Batch] = []
    deadline = time.monotonic() + PATIENCE_S
    while sum(map(len, received)) < missing and time.monotonic() < deadline:
        received += stream.take_many(seconds=0.5)
    return received + stream.take_many(seconds=0.5)


def numbers_of(received: list[Batch], channel: str) -> list[int]:
    own = [batch for batch in received if batch.channel == channel]
    assert not any(batch.gaps for batch in own)
    found = [number_of(frame.data) for batch in own for frame in batch.frames]
    assert found == [seq for batch in own for seq in batch.seqs]
    return found


def test_a_consumer_gets_each_frame_once(cluster: list[NatsServer]) -> None:
    publishing = Publishing(urls(cluster), CHANNELS, 100_000, pause_s=8.0, replicas=3)
    publishing.start()
    wait_until(lambda: has_streams(urls(cluster)), "the streams are there", timeout=PATIENCE_S)
    with batches(urls(cluster), after=0) as stream:
        received = kill_one_at_a_time(cluster, stream)
        publishing.finish()
        received += the_rest(stream, 200_000 - sum(map(len, received)))
    for channel in CHANNELS:
        assert numbers_of(received, channel) == [*range(100_000)]


def has_streams(servers: list[str]) -> bool:
    async def ask() -> bool:
        client = await connected(servers)
        try:
            return len(await client.jetstream().streams_info()) == 2
        except Exception:  # noqa: BLE001 - not yet
            return False
        finally:
            await client.close()

    return asyncio.run(ask())


def test_bridge_and_consumer_lose_nothing(
    cluster: list[NatsServer], runtime: Runtime, tmp_path: Path
) -> None:
    """From the adapter through a broker's bridge and the cluster to a consumer, for
    ``CANBROKER_KILLS_S`` seconds."""

    async def make() -> None:
        client = await connected(urls(cluster))
        await make_streams(client, replicas=3)
        await client.close()

    asyncio.run(make())
    listed = ", ".join(f'"{url}"' for url in urls(cluster))
    table = f'[nats]\nurl = [{listed}]\nsite = "lab"\nbench = "bench-7"\n'
    config = '[channels.x]\ninterface = "virtual"\n' + table
    with serving(runtime, tmp_path, config), batches(urls(cluster), after=0) as stream:
        with Sender(("x", "virtual"), 0x100, 4000, each=20) as sender:
            sender.start()
            seconds = float(os.environ.get("CANBROKER_KILLS_S", "0"))
            received = kill_one_at_a_time(cluster, stream, seconds)
            sent = sender.stop()
        received += the_rest(stream, sent.confirmed - sum(map(len, received)))
        found = status_of(runtime).nats
        assert found is not None
        assert found.lost == 0, found.trouble
        (shown,) = fleet(Server(url=urls(cluster)), "lab").channels
        assert (shown.bench, shown.channel, shown.word) == ("bench-7", "x", "active")
    assert sent.failed == 0
    assert not any(batch.gaps for batch in received)
    frames = [frame for batch in received for frame in batch.frames]
    assert [number_of(frame.data) for frame in frames] == [*range(sent.confirmed)]
