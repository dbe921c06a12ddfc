"""Interfaces of python-can, shared by clients of a broker; its drivers live in the actor alone."""

from __future__ import annotations

import socket

import can
import psutil
import pytest

from canbroker import (
    Bus,
    BusState,
    CanInitializationError,
    CanInterfaceNotImplementedError,
    CanOperationError,
    CanTimeoutError,
    Message,
)
from canbroker.backends import python_can
from canbroker.bus import connection
from canbroker.model.frame import Frame, describe
from canbroker.transport.runtime import Runtime
from tests.support.benches import collect, content, transmit
from tests.support.brokers import status_of, wait_until
from tests.support.processes import Program
from tests.support.simulated import Simulated

#: IPv6 multicast of interface-local scope never leaves the machine, nor does hop limit 0.
GROUP = "ff01::6361:6e62"


def frame(identifier: int, data: bytes = b"") -> Message:
    return Message(arbitration_id=identifier, data=data, is_extended_id=False)


def received(bus: Bus, timeout: float = 10) -> tuple[int, bytes]:
    message = bus.recv(timeout)
    assert message is not None
    return message.arbitration_id, bytes(message.data)


# ----------------------------------------------------------------------------- of python-can's own


@pytest.fixture
def port() -> int:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as free:
            free.bind(("::1", 0))
            return int(free.getsockname()[1])
    except OSError as error:
        pytest.skip(f"no IPv6 here: {error}")


def test_udp_multicast(runtime: Runtime, port: int) -> None:
    peer = can.Bus(GROUP, interface="udp_multicast", ignore_config=True, port=port, hop_limit=0)
    with (
        peer,
        Bus(GROUP, "udp_multicast", port=port, hop_limit=0) as bus,
        Bus(GROUP, "udp_multicast", port=port) as other,
    ):
        bus.send(frame(0x100, b"\x01"), timeout=10)
        assert received(other) == (0x100, b"\x01")
        at_peer = peer.recv(10)
        assert at_peer is not None
        assert at_peer.arbitration_id == 0x100
        peer.send(can.Message(arbitration_id=0x200, data=b"\x02", is_extended_id=False))
        for one in (bus, other):  # next, although the interface returns what was sent
            assert received(one) == (0x200, b"\x02")
        bus.send(Message(arbitration_id=1, is_fd=True, data=bytes(64)), timeout=10)
        assert received(other) == (1, bytes(64))
        [channel] = status_of(runtime).channels
        assert channel.parameters == {"channel": GROUP, "port": port, "hop_limit": 0}


def test_serial_loop(runtime: Runtime) -> None:
    with Bus("loop://", "serial") as bus, Bus("loop://", "serial") as other:
        bus.send(frame(0x123, b"\x01\x02"), timeout=10)
        assert received(bus) == (0x123, b"\x01\x02"), "from the end of the line"
        assert [received(other) for _ in range(2)] == [(0x123, b"\x01\x02")] * 2


def test_slcan_over_a_simulated_adapter() -> None:
    with Simulated() as adapter:
        options = python_can.parse(
            "slcan", {"channel": adapter.path, "bitrate": 500_000, "sleep_after_open": 0.0}
        )
        backend = python_can.open(options)
        try:
            assert backend.bitrate == 500_000
            sent = [transmit(Frame(0, number, 0, bytes([number]))) for number in range(20)]
            backend.send(sent)
            assert collect(backend, lambda items: len(items) >= len(sent)) == sent
            expected = [describe(item.frame) for item in sent]
            wait_until(lambda: adapter.accepted() == expected, "all on the bus")
            adapter.command("inject t3332AABB")
            [item] = collect(backend, bool)
            assert isinstance(item, Frame)
            assert content(item) == (0x333, 0, b"\xaa\xbb")
            adapter.command("unplug")
            with pytest.raises(CanOperationError):
                collect(backend, lambda _: False)
        finally:
            backend.close()


def test_python_can_is_imported_by_the_actor_alone(runtime: Runtime) -> None:
    program = """
    bus = Bus("loop://", "serial")
    say("can" in sys.modules)
    hear()
    bus.shutdown()
    """
    with Program(program) as client:
        assert client.said() is False
        status = status_of(runtime)
        actor = status.channels[0].pid
        assert actor is not None
        assert "wrapt" in loaded_by(actor)
        assert "wrapt" not in loaded_by(status.pid)
        client.tell("end")
        assert client.end() == 0


def loaded_by(pid: int) -> str:
    """Files that the process has mapped; python-can brings wrapt's extension module along."""
    return " ".join(entry.path for entry in psutil.Process(pid).memory_maps())


# ----------------------------------------------------------------------------------- a nasty plugin


@pytest.fixture
def nasty(runtime: Runtime, plugins: None) -> Runtime:
    """A broker whose actors find the plugin."""
    return runtime


def test_a_plugin_is_an_interface_like_any_other(nasty: Runtime) -> None:
    with Bus(0, "nasty") as bus, Bus(0, "nasty") as other:
        bus.send(frame(0x100), timeout=10)
        assert [received(other)[0] for _ in range(2)] == [0x100, 0x101]
        assert received(bus)[0] == 0x101


def test_a_plugin_that_blocks_stalls_neither_sends_nor_filters_nor_the_end(nasty: Runtime) -> None:
    with (
        Bus("x", "nasty", recv="blocks", shutdown="blocks") as bus,
        Bus("x", "nasty") as other,
    ):
        for number in range(200):
            bus.send(frame(number), timeout=10)
        assert [received(other)[0] for _ in range(200)] == list(range(200))
        other.set_filters([{"can_id": 0x123, "can_mask": 0x7FF}])
        bus.send(frame(0x122), timeout=10)
        bus.send(frame(0x123), timeout=10)
        assert received(other)[0] == 0x123
        [channel] = status_of(nasty).channels
        assert channel.pid is not None
        actor = psutil.Process(channel.pid)
    wait_until(lambda: not actor.is_running(), "the actor leaves", timeout=20)
    assert "killing it" not in nasty.log_path.read_text(), "by itself"


def test_a_plugin_that_blocks_in_send_lets_the_others_receive(
    nasty: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "_SHUTDOWN_S", 0.5)  # of 10
    bus = Bus("x", "nasty", send="blocks")
    bus.send(frame(1))
    with pytest.raises(CanTimeoutError, match=r"002#.*did not take it"):
        bus.send(frame(2), timeout=0.2)
    with Bus("x", "nasty") as other:
        assert other.state is BusState.ACTIVE
        other.set_filters([{"can_id": 1, "can_mask": 1}])
    with pytest.raises(CanTimeoutError, match="not acknowledged"):
        bus.shutdown()


@pytest.mark.parametrize("way", ["raises", "odd", "early"])
def test_what_a_plugin_gets_wrong_costs_nobody_the_channel(nasty: Runtime, way: str) -> None:
    with Bus("x", "nasty", recv=way) as bus:
        bus.send(frame(0x100), timeout=10)
        assert received(bus)[0] == 0x101
        assert bus.stats.restarts == 0


def test_a_send_that_raises_is_the_senders_error(nasty: Runtime) -> None:
    with Bus("x", "nasty", send="raises") as bus:
        with pytest.raises(CanOperationError, match="KeyError: 256"):
            bus.send(frame(0x100), timeout=10)
        assert bus.state is BusState.ACTIVE


def test_a_full_queue_is_waited_for_in_order(nasty: Runtime) -> None:
    with (
        Bus("x", "nasty", send="busy") as bus,
        Bus("x", "nasty", can_filters=[{"can_id": 0, "can_mask": 1}]) as other,
    ):
        for number in range(0, 100, 2):
            bus.send(frame(number))
        bus.flush(20)
        assert [received(other)[0] for _ in range(50)] == list(range(0, 100, 2))
        assert bus.stats.failed == 0


def test_a_queue_that_stays_full_is_a_timeout(nasty: Runtime) -> None:
    with Bus("x", "nasty", send="full") as bus:
        with pytest.raises(CanTimeoutError, match=r"100#.*expired while .*queue was full"):
            bus.send(frame(0x100), timeout=0.2)
        assert bus.state is BusState.ACTIVE


def test_an_adapter_that_is_gone_is_opened_again(nasty: Runtime) -> None:
    with Bus("x", "nasty", recv="dies") as bus:
        wait_until(lambda: bus.state is BusState.ERROR, "the bus knows")
        wait_until(lambda: "is open: python-can nasty" in nasty.log_path.read_text(), "again")


def test_a_plugin_that_cannot_open_is_quoted(nasty: Runtime) -> None:
    with pytest.raises(CanInitializationError, match="LookupError: no such device"):
        Bus("refused", "nasty")
    with pytest.raises(CanInitializationError, match="SystemExit: the driver has had enough"):
        Bus("exits", "nasty")


def test_parameters_of_a_second_opener_must_agree(nasty: Runtime) -> None:
    with Bus("x", "nasty", bitrate=500_000, serial=7):
        with Bus("x", "nasty", serial=7):
            assert len(status_of(nasty).channels) == 1
        with pytest.raises(CanInitializationError, match=r"bitrate=500000, not bitrate=125000"):
            Bus("x", "nasty", bitrate=125_000, serial=7)
        with Bus("x", "nasty", bitrate=125_000, serial=8):
            names = {channel.name for channel in status_of(nasty).channels}
    assert names == {"nasty.x", "nasty.x,serial=8"}


def test_an_interface_that_nobody_has(nasty: Runtime) -> None:
    with pytest.raises(CanInterfaceNotImplementedError, match=r"'nope'.*slcan.*nasty.*vector"):
        Bus("x", "nope")
