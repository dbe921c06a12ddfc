"""A broker with a gateway, its address, and what is different for a remote client."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from canbroker import Bus, CanInitializationError, Message
from canbroker.bus.history import recent_frames
from canbroker.bus.lease import lease
from canbroker.keys.known_brokers import known_brokers_path
from canbroker.transport.curve import new_pair
from canbroker.transport.place import ADDRESS_VARIABLE
from canbroker.transport.runtime import Runtime
from tests.support.brokers import private_runtime, status_of, wait_until
from tests.support.commands import run
from tests.support.ledger import serving
from tests.support.remote import Lab, free_port, lab

CHANNELS = """
[channels.can0]
interface = "virtual"
pool = "bench"

[channels.past]
interface = "virtual"
"""


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    directory = tmp_path_factory.mktemp("keys")
    with private_runtime() as runtime, lab(runtime, directory, config=CHANNELS) as made:
        wait_until(lambda: made.gateway, "it listens")
        yield made


def test_a_taken_port_is_named_and_nothing_stays_open(runtime: Runtime) -> None:
    port = free_port()
    with socket.create_server(("127.0.0.1", port)):
        ended = run("serve", "--listen", f"tcp://127.0.0.1:{port}")
    assert ended.returncode == 1
    said = f"cannot listen on tcp://127.0.0.1:{port}: the port is taken by another program"
    assert said in ended.stderr
    assert list(runtime.directory.iterdir()) == []


def test_a_local_client_is_not_far_away(bench: Lab) -> None:
    with Bus("can0") as bus:
        assert (bus.stats.round_trip, bus.stats.clock_offset) == (None, None)


def test_the_environment_names_a_remote_broker(bench: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ADDRESS_VARIABLE, bench.address)
    with Bus("can0") as sender, Bus("can0") as receiver:
        sender.send(Message(arbitration_id=0x123, data=b"far"), timeout=20)
        received = receiver.recv(20)
        assert received is not None
        assert bytes(received.data) == b"far"
        stats = sender.stats
    assert stats.sent == 1
    assert stats.round_trip is not None
    assert 0 < stats.round_trip < 20
    assert stats.clock_offset is not None
    assert abs(stats.clock_offset) < 20, "it is the same clock"


def test_status_of_a_remote_broker_shows_how_far_it_is(bench: Lab) -> None:
    told = run("status", "--broker", bench.address)
    assert told.stderr == ""
    host, port = bench.endpoint
    assert f"remote tcp://{host}:{port}  running, " in told.stdout
    assert "round trip " in told.stdout
    assert "\nprocesses" not in told.stdout
    everything = json.loads(run("status", "--json", "--broker", bench.address).stdout)
    assert everything["gateway"]["key"] == str(bench.key)
    assert everything["silent"] == []
    assert everything["round_trip_s"] > 0


def test_a_lease_belongs_to_the_connection(bench: Lab) -> None:
    leased = lease("bench", 20, broker=bench.address)
    assert [found.pid for found in status_of(bench.runtime).leases] == [None]
    with Bus(leased.channel, broker=bench.address):
        leased.release()
    assert status_of(bench.runtime).leases == []


def test_the_recent_past_is_there_from_afar(bench: Lab) -> None:
    with Bus("past", broker=bench.address) as sender, Bus("past") as keeper:
        sender.send(Message(arbitration_id=0x77), timeout=20)
        assert keeper.recv(20) is not None
        frames = recent_frames(bench.address, "past", 60).frames
    assert [frame.arbitration_id for frame in frames] == [0x77]


def test_each_known_key_of_a_broker_is_tried(bench: Lab) -> None:
    """While its key is replaced, it has two."""
    host, port = bench.endpoint
    known = known_brokers_path()
    known.write_text(f'"tcp://{host}:{port}" = ["{new_pair()[0]}", "{bench.key}"]\n')
    with Bus("can0", broker=f"tcp://{host}:{port}") as bus:
        assert bus.stats.round_trip is not None


def test_a_broker_that_has_another_key_says_which(bench: Lab) -> None:
    host, port = bench.endpoint
    with pytest.raises(CanInitializationError, match="canbroker keys trust") as caught:
        Bus("can0", broker=f"tcp://{host}:{port}?key={new_pair()[0]}")
    assert f"it says that its key is {bench.key} now" in str(caught.value)


def test_within_a_host_a_connection_may_be_unencrypted(runtime: Runtime, tmp_path: Path) -> None:
    address = f"tcp://127.0.0.1:{free_port()}?key=none"
    config = f'[remote]\nlisten = "{address}"\n{CHANNELS}'
    with serving(runtime, tmp_path, config):

        def shown() -> tuple[str, str, str] | None:
            found = status_of(runtime).gateway
            return None if found is None else (found.phase, found.listen, found.key)

        wait_until(lambda: shown() == ("running", address, ""), "it listens", timeout=20)
        with Bus("can0", broker=address) as bus:
            bus.send(Message(arbitration_id=1), timeout=20)
            assert bus.stats.sent == 1


def test_a_channel_that_is_not_there_is_named(bench: Lab) -> None:
    with pytest.raises(CanInitializationError, match="no channel 'can7'; channels of this broker"):
        Bus("can7", broker=bench.address)


def test_a_test_session_leases_channels_of_a_remote_bench(bench: Lab, tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "from canbroker import Bus\n"
        "def test_it(canbroker_channel, canbroker_broker):\n"
        "    assert canbroker_broker.startswith('tcp://')\n"
        "    with Bus(canbroker_channel(pool='bench')) as bus:\n"
        "        assert bus.stats.round_trip is not None\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    environment = {**os.environ, ADDRESS_VARIABLE: bench.address}
    ended = subprocess.run(
        command, capture_output=True, text=True, timeout=50, env=environment, check=False
    )
    assert "1 passed" in ended.stdout, ended.stdout
    assert status_of(bench.runtime).leases == []
