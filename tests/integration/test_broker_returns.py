"""A broker that is killed and comes back: the buses of its clients work again."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import psutil
import pytest

from canbroker import Bus, CanOperationError, Message
from canbroker.backends import parse_options
from canbroker.broker.channel_slot import ChannelSlot
from canbroker.broker.flight_records import FlightRecords
from canbroker.broker.register import Entry, Member
from canbroker.broker.supervisor import Phase
from canbroker.configuration.broker_file import BrokerConfig
from canbroker.system import clock
from canbroker.system.entry_points import EntryPoint
from canbroker.system.processes import start_of
from canbroker.transport.runtime import Runtime
from canbroker.transport.waiter import Waiter
from canbroker.wire.stream import StateEvent
from tests.integration.test_cli import succeed
from tests.support.brokers import status_of, stop_broker, wait_until
from tests.support.processes import Program
from tests.support.simulated import Simulated

pytestmark = pytest.mark.long

BENCH = '[channels.can0]\ninterface = "virtual"\n'


def message(identifier: int, data: bytes = b"") -> Message:
    return Message(arbitration_id=identifier, is_extended_id=False, data=data)


@contextmanager
def serving(runtime: Runtime, bench: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = EntryPoint.COMMAND.command("serve", "-c", str(bench))
    with subprocess.Popen(command) as server:
        try:
            wait_until(lambda: runtime.place.broker_process() == server.pid, "it listens")
            yield server
        finally:
            server.kill()


@pytest.fixture
def bench(tmp_path: Path) -> Path:
    path = tmp_path / "bench.toml"
    path.write_text(BENCH)
    return path


def kill(server: subprocess.Popen[bytes]) -> None:
    """Kills a broker, and waits until its actors have left."""
    actors = psutil.Process(server.pid).children()
    server.kill()
    server.wait()
    _, alive = psutil.wait_procs(actors, timeout=10)
    assert not alive


def received(bus: Bus, identifier: int) -> Message | None:
    """The next message with this identifier, if it comes; others are passed over."""
    try:
        while (found := bus.recv(2)) is not None and found.arbitration_id != identifier:
            pass
    except CanOperationError:
        return None
    return found


def works(bus: Bus, identifier: int) -> bool:
    try:
        bus.send(message(identifier), timeout=1)
    except CanOperationError:
        return False
    return True


def test_the_same_bus_works_again_as_after_a_restart(runtime: Runtime, bench: Path) -> None:
    filters = [{"can_id": 0x100, "can_mask": 0x700, "extended": False}]
    with serving(runtime, bench) as server:
        bus = Bus("can0", can_filters=filters, exclusive=True, receive_own_messages=True)
        other = Bus("can0")
        task = bus.send_periodic(message(0x1FF, b"task"), 0.02)
        assert received(other, 0x1FF) is not None
        wait_until(lambda: _is_written(runtime), "all is written down")
        before = {(c.client_id, c.pid) for c in status_of(runtime).channels[0].clients}
        kill(server)
        with pytest.raises(CanOperationError, match="gone"):
            bus.send(message(0x101), timeout=1)
        assert received(bus, 0x101) is None
    with serving(runtime, bench):
        # The task goes on before anybody uses a bus.
        wait_until(lambda: _sent(runtime) > 0, "the task goes on")
        wait_until(lambda: works(bus, 0x101), "it can be sent")
        wait_until(lambda: received(bus, 0x101), "own messages are received")
        assert (bus.stats.restarts, bus.stats.lost) == (1, 0)
        wait_until(lambda: received(other, 0x1FF), "frames of the task are received")
        with pytest.raises(CanOperationError, match="exclusive"):
            other.send(message(0x102), timeout=1)
        bus.send(message(0x201), timeout=5)  # not within its filters
        bus.send(message(0x103), timeout=5)
        while (found := bus.recv(5)) is not None and found.arbitration_id != 0x103:
            assert found.arbitration_id != 0x201
        assert found is not None
        assert {(c.client_id, c.pid) for c in status_of(runtime).channels[0].clients} == before
        task.stop()
        stopped = time.time()
        while (late := received(other, 0x1FF)) is not None:  # those that were on their way
            assert late.timestamp <= stopped
        bus.shutdown()
        assert works(other, 0x104), "nobody is exclusive any more"
        other.shutdown()
        assert stop_broker(runtime)


def _known(runtime: Runtime) -> str:
    """What a successor would know of channels and their clients."""
    return runtime.channels_path.read_text() if runtime.channels_path.exists() else ""


def _is_written(runtime: Runtime) -> bool:
    """Whether a successor would know all clients of the channel, and that there are tasks."""
    clients = status_of(runtime).channels[0].clients
    known = _known(runtime)
    is_known = all(client.client_id in known for client in clients)
    return is_known and len(clients) == 2 and runtime.journal_path.exists()


def _sent(runtime: Runtime) -> int:
    (channel,) = status_of(runtime).channels
    return channel.state.transmitted if channel.state else 0


def test_a_channel_that_a_client_had_opened_is_opened_again(runtime: Runtime, bench: Path) -> None:
    with Simulated() as adapter, serving(runtime, bench) as server:
        bus = Bus(adapter.path, "slcan", bitrate=500_000)
        name = bus.channel_info.partition(":")[0]
        wait_until(lambda: name in _known(runtime), "it is written down")
        kill(server)
        with serving(runtime, bench):
            wait_until(lambda: works(bus, 0x123), "its adapter is open again")
            wait_until(lambda: received(bus, 1) or bus.stats.restarts == 1, "it is counted")
            bus.shutdown()
            wait_until(lambda: len(status_of(runtime).channels) == 1, "it is closed, as ever")
            assert stop_broker(runtime)


def test_clients_that_have_ended_meanwhile_are_not_waited_for(
    runtime: Runtime, bench: Path
) -> None:
    source = """
    bus = Bus("gone", "virtual")
    bus.send_periodic(Message(arbitration_id=1), 0.02)
    say("up")
    hear()
    """
    with serving(runtime, bench) as server, Program(source) as program:
        program.said()
        wait_until(lambda: "gone" in _known(runtime), "it is written down")
        kill(server)
        program.kill()
        with serving(runtime, bench):
            wait_until(lambda: _phases(runtime) == {"can0": "running"}, "only what is configured")
            assert "no periodic tasks" in succeed("status", "--tasks")
            assert stop_broker(runtime)


def _phases(runtime: Runtime) -> dict[str, str]:
    return {channel.name: channel.phase for channel in status_of(runtime).channels}


@pytest.mark.parametrize("how", ["stop", "SIGTERM"])
def test_a_broker_that_was_told_to_end_ends_its_buses(
    runtime: Runtime, bench: Path, how: str
) -> None:
    reason = "the broker was told to " + ("stop" if how == "stop" else "end")
    with serving(runtime, bench) as server:
        bus, other, asleep = Bus("can0"), Bus("can0", exclusive=True), Bus("can0")
        if how == "stop":
            assert stop_broker(runtime)
        else:
            os.kill(server.pid, signal.SIGTERM)
        server.wait()
    for _ in range(3):
        with pytest.raises(CanOperationError, match=reason):
            bus.recv(5)
        with pytest.raises(CanOperationError, match=reason):
            other.send(message(1))
    with serving(runtime, bench):
        with pytest.raises(CanOperationError, match=reason):
            bus.send(message(1))
        assert list(bus) == []
        with Bus("can0"):  # there is a channel again: the other bus hears of both at once
            pass
        with pytest.raises(CanOperationError, match=reason):
            asleep.send(message(1))
        for ended in (bus, other, asleep):
            ended.shutdown()
        assert stop_broker(runtime)


def test_a_process_that_was_given_the_number_of_a_client_is_none() -> None:
    pid = os.getpid()
    member = Member("c", pid, 1, "test")  # none of today started then
    assert not member.lives()
    assert Entry("a", "virtual", {}, None, [member]).client_table() == {}


def test_a_client_whose_bus_was_closed_meanwhile_is_forgotten(runtime: Runtime) -> None:
    """It could tell no broker. Its process lives, and may only not use its bus: then it is
    connected."""
    runtime.prepare()
    records = FlightRecords(runtime)
    slot = ChannelSlot(
        runtime.place,
        "a",
        "virtual",
        parse_options("virtual", {"channel": "a"}),
        configured=False,
        broker=BrokerConfig(),
        records=records,
    )
    member = Member("c", os.getpid(), start_of(os.getpid()), "test")
    slot.resume(Entry("a", "virtual", {}, None, [member]).client_table(), None)
    slot.phase = Phase.RUNNING
    waiter = Waiter()
    now = clock.monotonic_ns()
    for connected, kept in (([os.getpid()], ["c"]), ([0], ["c"]), ([], ["c"]), ([1], [])):
        slot.state = StateEvent(state="active", connected=connected)
        now += 31 * clock.SECOND
        slot.step(now, waiter)
        assert list(slot.clients) == kept, connected
    runtime.directory.rmdir()


def test_a_damaged_record_is_passed_over(runtime: Runtime, bench: Path) -> None:
    runtime.prepare()
    member = Member("c", os.getpid(), start_of(os.getpid()), "test")
    entries = [Entry("x", "nothing like it", {}, None, [member])]
    for content in (b"\x00garbage", msgspec.json.encode(entries)):
        runtime.channels_path.write_bytes(content)
        with serving(runtime, bench):
            assert set(_phases(runtime)) == {"can0"}
            assert stop_broker(runtime)
