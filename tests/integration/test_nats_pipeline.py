"""From the adapter to the table: server, bridge, channel and consumer are killed at random."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from canbroker.transport.runtime import Runtime
from tests.nats_kills import judge
from tests.support.bridges import (
    SUBJECT,
    bridged,
    kill_bridge,
    kill_channel,
    read_all,
    wait_connected,
)
from tests.support.ledger import Sender
from tests.support.nats_benches import make_streams_of
from tests.support.nats_consumers import SqliteConsumer
from tests.support.nats_servers import NatsCluster, NatsServer, nats_cluster

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

#: What is killed, and how often of so many times.
_KILLS: Final = {"server": 3, "bridge": 3, "channel": 1, "consumer": 4}

_RATE: Final = 8000
_FINISH_S: Final = 200.0


@pytest.fixture(params=["one server", "three servers"])
def nats(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[NatsCluster]:
    if request.param == "one server":
        with NatsServer(tmp_path / "nats") as server:
            yield NatsCluster(server)
        return
    with nats_cluster(tmp_path / "nats") as cluster:
        make_streams_of(cluster)
        yield cluster


def test_what_is_in_the_table_is_what_the_adapter_gave(
    runtime: Runtime, tmp_path: Path, nats: NatsCluster
) -> None:
    """For ``CANBROKER_KILLS_S`` seconds; each kind is killed at least once. A server of a cluster
    only when the others have what it has."""
    duration = float(os.environ.get("CANBROKER_KILLS_S", "25"))
    seed = int(os.environ.get("CANBROKER_SEED", random.SystemRandom().randrange(1 << 32)))
    print("seed", seed)  # noqa: T201 - to repeat a failure
    chance = random.Random(seed)
    consumer = SqliteConsumer(tmp_path)
    with (
        bridged(runtime, tmp_path, nats.urls),
        Sender(("x", "virtual"), 0x100, _RATE, each=40, timeout=5.0) as sender,
    ):
        wait_connected(runtime)
        consumer.start(*nats.urls)
        sender.start()
        due = [*_KILLS]
        end = time.monotonic() + duration
        while due or time.monotonic() < end:
            signal.sigtimedwait([], chance.uniform(0.2, 2.0))
            who = due.pop() if due else chance.choices([*_KILLS], [*_KILLS.values()])[0]
            _kill(who, runtime, nats, consumer, chance)
        sent = sender.stop()
        nats.wait()
        wait_connected(runtime)
        stored = read_all(nats.urls, len(sent.sent), SUBJECT)
        consumer.kill()
        consumer.finish(*nats.urls, timeout=_FINISH_S)
    verdict = judge(sent, stored)
    assert verdict.is_exact, verdict
    landed = [int.from_bytes(data[:4], "big") for data in consumer.landed()["x"]]
    assert landed == stored.numbers
    print(verdict, len(landed), "landed", stored.lost, "lost", sent.rate)  # noqa: T201
    lost = sum(count or 0 for _, kind, count in consumer.gaps() if kind == "lost")
    assert lost == stored.lost
    assert "missing" not in {kind for _, kind, _ in consumer.gaps()}


def _kill(
    who: str, runtime: Runtime, nats: NatsCluster, consumer: SqliteConsumer, chance: random.Random
) -> None:
    """Kills one of them; it is there again afterwards."""
    if who == "server":
        nats.wait()
        server = chance.choice(nats.servers)
        server.kill()
        signal.sigtimedwait([], chance.uniform(0, 2))
        server.start()
    elif who == "bridge":
        kill_bridge(runtime)
    elif who == "channel":
        kill_channel(runtime)
    else:
        consumer.kill()
        if chance.random() < 0.3:
            signal.sigtimedwait([], chance.uniform(0, 2))
        consumer.start(*nats.urls)
