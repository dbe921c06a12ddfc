"""The broker's life: one at a time, clean ends, clear answers to bad input."""

from __future__ import annotations

import os
import signal
import socket
import time
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from canbroker import (
    Bus,
    BusState,
    CanInitializationError,
    CanInterfaceNotImplementedError,
    CanOperationError,
    Message,
)
from canbroker.system import endpoint_files
from canbroker.system.endpoints import is_endpoint
from canbroker.system.entry_points import EntryPoint
from canbroker.system.lock import BrokerLock
from canbroker.system.portable import PORTABLE
from canbroker.transport.runtime import Runtime
from tests.support.brokers import processes_of, status_of, stop_broker, wait_until
from tests.support.processes import Program
from tests.support.simulated import Simulated
from tests.support.systems import is_root

OPENER = """
say("up")
hear()
bus = Bus("race", "virtual")
say("open")
hear()
if arguments["number"] == 0:
    bus.send(Message(arbitration_id=0x42, is_extended_id=False, data=b"hello"), timeout=10)
    say("sent")
else:
    message = bus.recv(10)
    say(None if message is None else bytes(message.data).decode())
hear()
bus.shutdown()
"""


def brokers(runtime: Runtime) -> list[psutil.Process]:
    return [
        process for process in processes_of(runtime) if EntryPoint.BROKER.is_in(process.cmdline())
    ]


@pytest.mark.long
@pytest.mark.timeout(300)
def test_eight_processes_at_once_start_one_broker_ten_times(runtime: Runtime) -> None:
    for _ in range(10):
        with ExitStack() as stack:
            programs = [stack.enter_context(Program(OPENER, number=number)) for number in range(8)]
            assert [program.said() for program in programs] == ["up"] * 8
            for program in programs:
                program.tell("open")
            assert [program.said() for program in programs] == ["open"] * 8
            assert len(brokers(runtime)) == 1
            assert len(status_of(runtime).channels) == 1
            for program in programs:
                program.tell("talk")
            assert [program.said() for program in programs] == ["sent"] + ["hello"] * 7
            for program in programs:
                program.tell("end")
            assert [program.end() for program in programs] == [0] * 8
        assert stop_broker(runtime)
        wait_until(lambda: not processes_of(runtime), "all processes end")


def test_a_started_broker_leaves_after_its_last_client(runtime: Runtime) -> None:
    with Bus("x", "virtual"):
        assert status_of(runtime).autostarted
    wait_until(lambda: not processes_of(runtime), "the broker leaves by itself", timeout=30)
    assert {path.name for path in runtime.directory.iterdir()} == {"broker.log"}


def test_a_dynamic_channel_is_closed_some_time_after_its_last_client(runtime: Runtime) -> None:
    with Bus("stays", "virtual"):
        with Bus("goes", "virtual"):
            assert len(status_of(runtime).channels) == 2
        wait_until(lambda: len(status_of(runtime).channels) == 1, "the channel is closed")


def test_stop_leaves_nothing(runtime: Runtime) -> None:
    with ExitStack() as stack:
        buses = [stack.enter_context(Bus(f"v{number}", "virtual")) for number in range(3)]
        assert len(processes_of(runtime)) == 4
        assert stop_broker(runtime)
        wait_until(lambda: not processes_of(runtime), "all processes end")
        assert {path.name for path in runtime.directory.iterdir()} == {"broker.log"}
        for bus in buses:
            with pytest.raises(CanOperationError, match="broker"):
                bus.recv(5)


def test_a_killed_broker_leaves_no_process(runtime: Runtime) -> None:
    with Bus("a", "virtual") as bus, Bus("b", "virtual"):
        (broker,) = brokers(runtime)
        actors = [process for process in processes_of(runtime) if process.pid != broker.pid]
        assert len(actors) == 2
        broker.kill()
        _, alive = psutil.wait_procs(actors, timeout=10)
        assert not alive
        with pytest.raises(CanOperationError):
            bus.recv(10)
        with pytest.raises(CanOperationError):
            bus.send(Message(arbitration_id=1))
        assert bus.state.name == "ERROR"
    Bus("c", "virtual").shutdown()  # a successor removes the socket files


def test_a_successor_clears_up_after_a_killed_broker(runtime: Runtime) -> None:
    with Bus("a", "virtual"):
        (broker,) = brokers(runtime)
        (actor,) = [process for process in processes_of(runtime) if process.pid != broker.pid]
        # A hung actor does not notice that its broker is gone, and would keep the adapter.
        actor.suspend()
        broker.kill()
        with Bus("a", "virtual") as bus:
            bus.send(Message(arbitration_id=1), timeout=10)
            wait_until(lambda: not actor.is_running(), "the hung actor is ended")
            assert len(brokers(runtime)) == 1


def test_clients_work_again_when_a_broker_returns(runtime: Runtime) -> None:
    with Bus("a", "virtual") as survivor:
        (broker,) = brokers(runtime)
        broker.kill()
        wait_until(lambda: fails(survivor), "it knows that its channel is gone")
        with Bus("a", "virtual") as newcomer:
            wait_until(lambda: is_back(survivor), "it is subscribed again")
            wait_until(lambda: survivor.state.name == "ACTIVE", "it knows")
            newcomer.send(Message(arbitration_id=0x77, is_extended_id=False), timeout=10)
            message = survivor.recv(10)
            assert message is not None
            assert message.arbitration_id == 0x77
            survivor.send(Message(arbitration_id=0x78, is_extended_id=False), timeout=10)
            answer = newcomer.recv(10)
            assert answer is not None
            assert answer.arbitration_id == 0x78
            assert survivor.stats.restarts == 1


def fails(bus: Bus) -> bool:
    try:
        assert bus.recv(10) is None
    except CanOperationError:
        return True
    return False


def is_back(bus: Bus) -> bool:
    """Whether a bus that had lost its channel receives again; it finds out when it is used."""
    try:
        assert bus.recv(0.01) is None
    except CanOperationError:
        return False
    return bus.stats.restarts == 1


def test_a_killed_actor_is_restarted_and_clients_keep_their_bus(runtime: Runtime) -> None:
    with (
        Bus("a", "virtual", can_filters=[{"can_id": 0x10, "can_mask": 0x7F0}]) as receiver,
        Bus("a", "virtual") as sender,
    ):
        (channel,) = status_of(runtime).channels
        assert channel.pid is not None
        os.kill(channel.pid, signal.SIGKILL)
        wait_until(lambda: status_of(runtime).channels[0].restarts == 1, "the actor is restarted")
        wait_until(lambda: status_of(runtime).channels[0].phase == "running", "it runs")
        wait_until(lambda: receiver_epoch_moved(receiver), "the filters are back")
        for identifier in (0x20, 0x11):
            send_when_up(sender, Message(arbitration_id=identifier, is_extended_id=False))
        message = receiver.recv(10)
        assert message is not None
        assert message.arbitration_id == 0x11
        assert receiver.stats.restarts == 1


def receiver_epoch_moved(bus: Bus) -> bool:
    assert bus.recv(0) is None
    return bus.stats.restarts == 1


def send_when_up(bus: Bus, message: Message) -> None:
    """Sends; what was lost with the old actor is reported once before."""
    deadline = time.monotonic() + 10
    while True:
        try:
            bus.send(message, timeout=5)
        except CanOperationError:
            assert time.monotonic() < deadline
        else:
            return


def test_autostart_can_be_forbidden(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANBROKER_AUTOSTART", "0")
    with pytest.raises(CanInitializationError, match="canbroker serve"):
        Bus("x", "virtual")
    assert processes_of(runtime) == []


# ------------------------------------------------------------------------------------- bad input


def test_an_unknown_interface(runtime: Runtime) -> None:
    known = r"'nonsense'.*slcan, socketcan, virtual; python-can"
    with pytest.raises(CanInterfaceNotImplementedError, match=known):
        Bus("x", "nonsense")


def test_an_unknown_channel_names_those_there_are(runtime: Runtime) -> None:
    with (
        Bus("x", "virtual"),
        pytest.raises(CanInitializationError, match=r"'body'.*'virtual\.x'"),
    ):
        Bus("body")


def test_nothing_given() -> None:
    with pytest.raises(CanInterfaceNotImplementedError, match="no channel given"):
        Bus()


def test_a_missing_device(runtime: Runtime) -> None:
    with pytest.raises(CanInitializationError, match="/dev/does-not-exist"):
        Bus("/dev/does-not-exist", "slcan", bitrate=500_000)
    with Bus("x", "virtual"):  # the broker goes on
        pass


@pytest.mark.skipif(PORTABLE, reason="a line over TCP knows no other exclusion")
def test_a_device_in_use(runtime: Runtime) -> None:
    with (
        Simulated() as adapter,
        Program(
            """
            import serial
            port = serial.Serial(arguments["path"], exclusive=True)
            say("mine")
            hear()
            """,
            path=adapter.path,
        ) as holder,
    ):
        assert holder.said() == "mine"
        with pytest.raises(CanInitializationError, match=f"(?i){adapter.path}.*in use"):
            Bus(adapter.path, "slcan", bitrate=500_000)
        holder.tell("leave")
        holder.end()
        Bus(adapter.path, "slcan", bitrate=500_000).shutdown()


def test_a_wrong_bitrate(runtime: Runtime) -> None:
    with pytest.raises(CanInitializationError, match=r"bitrate.*123"):
        Bus("/dev/ttyX", "slcan", bitrate=123)


@pytest.mark.parametrize("channel", ["a\0b", "\ud800", "x" * 5000, "", "new\nline"])
@pytest.mark.parametrize("interface", ["virtual", "slcan"])
def test_a_channel_that_cannot_be(runtime: Runtime, interface: str, channel: str) -> None:
    with pytest.raises(CanInitializationError, match="channel"):
        Bus(channel, interface)
    with Bus("x", "virtual"):  # the broker goes on
        pass


def test_an_unknown_parameter(runtime: Runtime) -> None:
    with pytest.raises(CanInitializationError, match="'colour'"):
        Bus("x", "virtual", colour="red")
    with pytest.raises(CanInitializationError, match="'logger'"):
        Bus("x", "virtual", logger=object())


def test_a_second_opener_with_other_parameters(runtime: Runtime) -> None:
    with Bus("x", "virtual", bitrate=500_000):
        Bus("x", "virtual").shutdown()  # what is left out is as it is
        Bus("x", "virtual", bitrate=500_000).shutdown()
        with pytest.raises(CanInitializationError, match=r"bitrate=500000.*bitrate=250000"):
            Bus("x", "virtual", bitrate=250_000)


def test_channels_that_differ_in_capital_letters_alone(runtime: Runtime) -> None:
    with Bus("motor", "virtual"):
        if PORTABLE:  # they would have the same files
            with pytest.raises(CanInitializationError, match=r"'virtual\.Motor'.*'virtual\.motor'"):
                Bus("Motor", "virtual")
        else:
            Bus("Motor", "virtual").shutdown()


def test_nobody_is_bound_to_what_the_last_client_wanted(runtime: Runtime) -> None:
    Bus("x", "virtual", bitrate=500_000).shutdown()
    with Bus("x", "virtual", bitrate=250_000):
        (channel,) = status_of(runtime).channels
        assert channel.parameters["bitrate"] == 250_000


def test_parameters_of_who_has_left_do_not_hold_while_the_adapter_is_away(
    runtime: Runtime, tmp_path: Path
) -> None:
    with Simulated(tmp_path) as adapter, ExitStack() as stack:
        link = adapter.link
        opener = stack.enter_context(Bus(link, "slcan", bitrate=500_000))
        other = stack.enter_context(Bus(link, "slcan"))
        adapter.command("unplug")
        wait_until(lambda: other.state is BusState.ERROR, "it is away")
        with pytest.raises(CanInitializationError, match="is wanted with bitrate=500000"):
            Bus(link, "slcan", bitrate=250_000)
        opener.shutdown()
        with pytest.raises(CanInitializationError, match=link):  # tried, but it is away
            Bus(link, "slcan", bitrate=250_000)
        adapter.replug()
        with Bus(link, "slcan", bitrate=250_000):
            wait_until(lambda: other.state is BusState.ACTIVE, "it goes on for others")
            (channel,) = status_of(runtime).channels
            assert channel.parameters["bitrate"] == 250_000
            assert "crash" not in (channel.record or ""), "its process was replaced in order"


@pytest.mark.parametrize(
    ("can_filters", "named"),
    [
        ([{"can_id": 1}], r"can_filters\[0\]\['can_mask'\]"),
        ([{"can_id": 1, "can_mask": 1}, 7], r"can_filters\[1\]"),
        ([{"can_id": -1, "can_mask": 1}], "-1"),
        ([{"can_id": 1, "can_mask": 1, "extnded": True}], "extnded"),
    ],
)
def test_an_invalid_filter(can_filters: object, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        Bus("x", "virtual", can_filters=can_filters)  # type: ignore[arg-type]


@pytest.mark.parametrize("address", ["udp://127.0.0.1:5", "ipc://relative/broker", "/a/path", ""])
def test_a_wrong_broker_address(address: str) -> None:
    with pytest.raises(CanInitializationError, match="ipc://<absolute path>/broker"):
        Bus("x", "virtual", broker=address)


def test_a_runtime_directory_that_is_open_to_others(runtime: Runtime) -> None:
    runtime.directory.mkdir(mode=0o755)
    runtime.directory.chmod(0o755)
    with pytest.raises(CanInitializationError, match="755"):
        Bus("x", "virtual")


def test_a_port_scanner(runtime: Runtime) -> None:
    with Bus("x", "virtual") as bus:
        sockets = sorted(path for path in runtime.directory.iterdir() if is_endpoint(path))
        assert len(sockets) == 4
        for path in sockets:
            for noise in (b"GET / HTTP/1.0\r\n\r\n", bytes(range(256)) * 64, b"\xff" * 10_000):
                _throw(path, noise)
        message = Message(arbitration_id=0x123, is_extended_id=False, data=b"alive")
        with Bus("x", "virtual") as other:
            other.send(message, timeout=10)
            received = bus.recv(10)
            assert received is not None
            assert received.equals(
                message, timestamp_delta=None, check_channel=False, check_direction=False
            )


def _connected(path: Path) -> socket.socket:
    if PORTABLE:
        found = endpoint_files.read(path)
        assert found is not None
        return socket.create_connection(("127.0.0.1", found.port), 10)
    raw = socket.socket(socket.AF_UNIX)
    raw.connect(str(path))
    return raw


def _throw(path: Path, noise: bytes) -> None:
    with _connected(path) as raw:
        try:
            raw.sendall(noise)
        except (BrokenPipeError, ConnectionResetError):
            return  # it was shown the door already


def test_the_lock_is_free_after_every_end(runtime: Runtime) -> None:
    Bus("x", "virtual").shutdown()
    assert stop_broker(runtime)
    lock = BrokerLock.take(runtime.lock_path)
    assert lock is not None
    lock.release()


def test_actors_come_before_others_where_that_is_permitted(runtime: Runtime) -> None:
    with Bus("x", "virtual"):
        (channel,) = status_of(runtime).channels
        niceness = psutil.Process(channel.pid).nice()
    mine = psutil.Process().nice()
    assert niceness < mine if is_root() else niceness == mine
