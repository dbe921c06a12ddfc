"""Consumers that are killed at random moments: what they have landed is exact in the end."""

from __future__ import annotations

import importlib.util
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support.nats_benches import Publishing
from tests.support.nats_consumers import SqliteConsumer
from tests.support.nats_servers import NatsServer

EXAMPLES: Final = Path(__file__).parents[2] / "examples"
CHANNELS: Final = ("body", "drive")
DEADLINE_S: Final = 40.0


class DuckDb:
    """The example that lands in DuckDB."""

    def __init__(self, directory: Path) -> None:
        self.program = [sys.executable, str(EXAMPLES / "nats_to_duckdb.py")]
        self.target = str(directory / "frames.duckdb")

    def landed(self) -> dict[str, list[bytes]]:
        import duckdb  # noqa: PLC0415 - may be missing

        with duckdb.connect(self.target) as database:
            query = "SELECT channel, data FROM frames ORDER BY channel, rowid"
            return by_channel(database.execute(query).fetchall())


class Parquet:
    """The example that lands in Parquet files."""

    def __init__(self, directory: Path) -> None:
        self.program = [sys.executable, str(EXAMPLES / "nats_to_parquet.py")]
        self.target = str(directory / "frames")

    def landed(self) -> dict[str, list[bytes]]:
        import pyarrow.parquet as pq  # noqa: PLC0415 - may be missing

        rows: list[tuple[str, bytes]] = []
        for path in sorted(Path(self.target).glob("*.parquet")):
            table = pq.read_table(path, columns=["channel", "data"])
            rows += zip(table["channel"].to_pylist(), table["data"].to_pylist(), strict=True)
        return by_channel(rows)


def by_channel(rows: list[Any]) -> dict[str, list[bytes]]:
    found: dict[str, list[bytes]] = {}
    for channel, data in rows:
        found.setdefault(channel, []).append(bytes(data))
    return found


WAYS: Final[dict[str, Any]] = {"sqlite": SqliteConsumer, "duckdb": DuckDb, "parquet": Parquet}
PACKAGES: Final = {"duckdb": "duckdb", "parquet": "pyarrow"}


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    package = PACKAGES.get(request.param, "sqlite3")
    for needed in {package, "sqlite3" if package == "sqlite3" else "pyarrow"}:
        if importlib.util.find_spec(needed) is None:
            pytest.skip(f"needs {needed}; make ecosystem has it")
    return WAYS[request.param](tmp_path)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NatsServer]:
    with NatsServer(tmp_path / "nats") as server:
        yield server


def consume(way: Any, server: NatsServer, kill_after: float | None) -> None:
    """Runs the consumer until it is killed, or until it has all that the stream has."""
    once = [] if kill_after is not None else ["--once"]
    command = [*way.program, server.url, way.target, *once]
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            _, errors = process.communicate(timeout=DEADLINE_S if once else kill_after)
        except subprocess.TimeoutExpired:
            process.kill()
            assert kill_after is not None, "it does not end"
            process.communicate()
        else:
            assert (process.returncode, errors) == (0, ""), errors


def expect(way: Any, count: int) -> None:
    whole = [number.to_bytes(8, "big") for number in range(count)]
    landed = way.landed()
    assert set(landed) == set(CHANNELS)
    for channel in CHANNELS:
        assert landed[channel] == whole, f"{channel}: {len(landed[channel])} of {count}"
    if isinstance(way, SqliteConsumer):
        assert way.gaps() == []


def test_a_consumer_that_is_killed_twice_lands_each_frame_once(
    way: Any, server: NatsServer
) -> None:
    chance = random.Random(23)
    publishing = Publishing(server.url, CHANNELS, 20_000, pause_s=1.0)
    publishing.start()
    for _ in range(2):
        consume(way, server, kill_after=chance.uniform(0.6, 1.2))
    publishing.finish()
    consume(way, server, kill_after=None)
    expect(way, 20_000)


@pytest.mark.long
@pytest.mark.timeout(240)
def test_ten_kills_of_consumer_and_server_cost_nothing(way: Any, server: NatsServer) -> None:
    seed = int(os.environ.get("CANBROKER_SEED", random.SystemRandom().randrange(1 << 32)))
    print("seed", seed)  # noqa: T201 - to repeat a failure
    chance = random.Random(seed)
    publishing = Publishing(server.url, CHANNELS, 200_000, pause_s=6.0)
    publishing.start()
    for round_number in range(10):
        consume(way, server, kill_after=chance.uniform(0.4, 1.5))
        if round_number % 2:
            server.kill()
            server.start()
    publishing.finish()
    consume(way, server, kill_after=None)
    expect(way, 200_000)


# --------------------------------------------------------------------------- other languages


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment for the example in JavaScript, with the packages that it needs."""
    npm = shutil.which("npm")
    if shutil.which("node") is None or npm is None:
        pytest.skip("needs node and npm")
    place = tmp_path_factory.mktemp("node")
    command = [npm, "install", "--no-fund", "--no-audit", "--prefix", str(place)]
    done = subprocess.run(
        [*command, "nats@2", "@msgpack/msgpack@3"], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"npm cannot install the packages: {done.stderr[-300:]}")
    return {**os.environ, "NODE_PATH": str(place / "node_modules")}


@pytest.mark.long
def test_a_consumer_in_javascript_goes_on_where_the_last_one_was(
    server: NatsServer, node: dict[str, str]
) -> None:
    publishing = Publishing(server.url, CHANNELS, 6400)
    publishing.start()
    publishing.finish()
    lines: list[str] = []
    for count in (3210, 6400 * 2 - 3210 + 10):
        after = max([int(line.split()[0]) for line in lines], default=0)
        lines = [line for line in lines if int(line.split()[0]) < after]
        program = ["node", str(EXAMPLES / "nats_subscriber.mjs"), server.url]
        done = subprocess.run(
            [*program, "can.v1.lab.bench-7.*.rx", str(max(0, after - 1)), str(count)],
            env=node,
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, f"received {count}, lost 0\n")
        lines += done.stdout.splitlines()
    found: dict[str, list[int]] = {}
    for line in lines:
        _, place, channel, _, frame = line.split()
        number = int(place.partition(":")[2])
        assert int(frame.partition("#")[2], 16) == number
        found.setdefault(channel, []).append(number)
    assert found == {f"lab/bench-7/{channel}": [*range(6400)] for channel in CHANNELS}
