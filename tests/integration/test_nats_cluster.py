"""A cluster of three NATS servers, of which one at a time is killed: each frame comes once."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import time
from array import array
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final

import pytest

from canbroker.integrations.nats import Batches, batches
from canbroker.jetstream.server import Server
from canbroker.jetstream.streams import FRAMES
from canbroker.transport.runtime import Runtime
from canbroker.view.fleet import fleet
from tests.support.bridges import BENCH, SITE, bridge, bridged
from tests.support.brokers import wait_until
from tests.support.ledger import Sender
from tests.support.nats_benches import Publishing, connected, make_streams_of, number_of
from tests.support.nats_servers import CURRENT_S, NatsCluster, nats_cluster

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

CHANNELS: Final = ("body", "drive")
PATIENCE_S: Final = 90.0  # leaders of streams are elected, on a machine that may be busy


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[NatsCluster]:
    with nats_cluster(tmp_path / "nats") as servers:
        yield servers


class Account:
    """What a consumer has received: the number of each frame, by channel, and how many are said to
    be lost. A frame is the one that its number in the epoch says."""

    def __init__(self, stream: Batches) -> None:
        self.lost = 0
        self._stream = stream
        self._numbers: dict[str, array[int]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._numbers.values()))

    def receive(self, seconds: float) -> None:
        """All that comes in this time."""
        for batch in self._stream.take_many(seconds=seconds, frames=1 << 40):
            for gap in batch.gaps:
                assert gap.kind == "lost", gap
                assert gap.lost is not None, gap
                self.lost += gap.lost
            found = [number_of(frame.data) for frame in batch.frames]
            assert found == [*batch.seqs]
            self._numbers.setdefault(batch.channel, array("Q")).extend(found)

    def receive_rest(self, given: int) -> None:
        """Until this many frames have come or are counted, and a little longer."""
        deadline = time.monotonic() + PATIENCE_S
        while len(self) + self.lost < given and time.monotonic() < deadline:
            self.receive(0.5)
        self.receive(0.5)

    def numbers(self, channel: str) -> list[int]:
        return self._numbers[channel].tolist()


def kill_one_at_a_time(
    cluster: NatsCluster, account: Account, seconds: float = 0, *, waits: bool = True
) -> None:
    """Each server is killed twice, and then for so long.

    :param waits: until those that are left have everything, before another server is killed, as an
        operator does. Without it, leaders are missing most of the time.
    """
    chance = random.Random(3)
    end = time.monotonic() + seconds
    for number in itertools.count():
        if number >= 2 * len(cluster.servers) and time.monotonic() > end:
            break
        victim = cluster.servers[number % len(cluster.servers)]
        for action in (victim.kill, partial(victim.start, wait=False), victim.wait):
            account.receive(chance.uniform(0.3, 1.0))
            action()
        deadline = time.monotonic() + CURRENT_S
        while waits and not cluster.is_current:
            assert time.monotonic() < deadline, "the replicas do not become current"
            account.receive(0.2)


def test_a_consumer_gets_each_frame_once(cluster: NatsCluster) -> None:
    publishing = Publishing(cluster.urls, CHANNELS, 100_000, pause_s=8.0, replicas=3)
    publishing.start()
    wait_until(lambda: has_streams(cluster.urls), "the streams are there", timeout=PATIENCE_S)
    with batches(cluster.urls, after=0) as stream:
        account = Account(stream)
        kill_one_at_a_time(cluster, account, waits=False)
        publishing.finish()
        account.receive_rest(200_000)
    assert account.lost == 0
    for channel in CHANNELS:
        assert account.numbers(channel) == [*range(100_000)]


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


def through_kills(
    cluster: NatsCluster, runtime: Runtime, tmp_path: Path, *, waits: bool
) -> tuple[int, Account]:
    """From the adapter through a broker's bridge and the cluster to a consumer, for
    ``CANBROKER_KILLS_S`` seconds: how many frames the adapter gave, and what was received."""

    make_streams_of(cluster)
    with bridged(runtime, tmp_path, cluster.urls), batches(cluster.urls, after=0) as stream:
        account = Account(stream)
        with Sender(("x", "virtual"), 0x100, 8000, each=40) as sender:
            sender.start()
            seconds = float(os.environ.get("CANBROKER_KILLS_S", "0"))
            kill_one_at_a_time(cluster, account, seconds, waits=waits)
            sent = sender.stop()
        account.receive_rest(sent.confirmed)
        found = bridge(runtime)
        assert (found.lost, found.gaps) == (account.lost, 0), found
        (shown,) = fleet(Server(url=cluster.urls), SITE).channels
        assert (shown.bench, shown.channel, shown.word) == (BENCH, "x", "active")
    assert sent.failed == 0
    print(sent.confirmed, "given", len(account), "received", account.lost, "lost")  # noqa: T201
    return sent.confirmed, account


def test_bridge_and_consumer_lose_nothing(
    cluster: NatsCluster, runtime: Runtime, tmp_path: Path
) -> None:
    given, account = through_kills(cluster, runtime, tmp_path, waits=True)
    assert account.lost == 0
    assert account.numbers("x") == [*range(given)]


def test_servers_that_are_killed_too_soon_cost_what_is_counted(
    cluster: NatsCluster, runtime: Runtime, tmp_path: Path
) -> None:
    """Before the last one has caught up: there may be no leader for longer than the ring reaches
    back. What has come and what is lost are together what the adapter gave."""
    given, account = through_kills(cluster, runtime, tmp_path, waits=False)
    numbers = account.numbers("x")
    assert len(numbers) + account.lost == given
    assert numbers == sorted({*numbers})


def test_a_leader_that_hangs_is_left(
    cluster: NatsCluster, runtime: Runtime, tmp_path: Path
) -> None:
    """It holds its connections and answers nothing; the others elect another one."""
    make_streams_of(cluster)
    with bridged(runtime, tmp_path, cluster.urls), batches(cluster.urls, after=0) as stream:
        account = Account(stream)
        with Sender(("x", "virtual"), 0x100, 4000, each=40) as sender:
            sender.start()
            for _ in range(2):
                account.receive(1.0)
                leader = cluster.leader(FRAMES.name)
                leader.pause()
                try:
                    wait_for_more(runtime, 8000)
                finally:
                    leader.resume()
                cluster.wait()
            sent = sender.stop()
        account.receive_rest(sent.confirmed)
        assert bridge(runtime).lost == account.lost == 0
    assert account.numbers("x") == [*range(sent.confirmed)]


def wait_for_more(runtime: Runtime, frames: int) -> None:
    before = bridge(runtime).frames
    what = f"{frames} more are in the stream"
    wait_until(lambda: bridge(runtime).frames > before + frames, what, timeout=PATIENCE_S)
