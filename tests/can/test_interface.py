"""Interfaces that go and come back, and their settings."""

from __future__ import annotations

import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from canbroker import Bus, BusState, CanInitializationError, CanOperationError, Message
from canbroker.backends.base import AdapterGoneError, Backend, BusCondition
from canbroker.backends.socketcan.netlink import list_links
from canbroker.model.frame import ERROR, FD, Frame
from canbroker.transport.runtime import Runtime
from tests.can.conftest import Open
from tests.support.benches import Item, collect, transmit
from tests.support.brokers import status_of, wait_until
from tests.support.vcan import Node, ip, needs_admin, needs_can

pytestmark = [needs_can, needs_admin]

FRAME = Frame(0, 0x123, 0, b"\x01")
MESSAGE = Message(arbitration_id=0x123, is_extended_id=False, data=b"\x01")


def read_to_the_end(backend: Backend) -> tuple[list[Item], str]:
    items: list[Item] = []
    try:
        while new := backend.read():
            items.extend(new)
    except AdapterGoneError as error:
        return items, str(error)
    pytest.fail(f"no end after {len(items)} items")


def test_down_is_said_after_what_was_read_before(open_interface: Open, own_interface: str) -> None:
    backend = open_interface(own_interface)
    with Node(own_interface) as node:
        node.send([FRAME] * 1_000)
    ip("set", own_interface, "down")
    items, last_words = read_to_the_end(backend)
    assert len(items) == 1_000
    assert f"{own_interface} is down" in last_words
    sent = transmit(FRAME)
    with pytest.raises(AdapterGoneError, match=f"{own_interface} is down"):
        backend.send([sent])
    assert list(backend.abandon()) == [sent]
    with pytest.raises(CanInitializationError, match=f"ip link set {own_interface} up"):
        open_interface(own_interface)


def test_an_overflow_just_before_is_counted(open_interface: Open, own_interface: str) -> None:
    backend = open_interface(own_interface)
    with Node(own_interface) as node:
        node.send([FRAME] * 10_000)
    ip("set", own_interface, "down")
    items, _ = read_to_the_end(backend)
    assert backend.dropped > 0
    assert len(items) + backend.dropped == 10_000


def test_deleted_is_said(open_interface: Open, own_interface: str) -> None:
    backend = open_interface(own_interface)
    ip("del", own_interface)
    with pytest.raises(AdapterGoneError, match=own_interface):
        collect(backend, lambda _: False)
    with pytest.raises(AdapterGoneError, match=f"{own_interface} is gone"):
        backend.send([transmit(FRAME)])


@pytest.mark.parametrize("how", ["down", "deleted"])
def test_a_bus_survives_its_interface(runtime: Runtime, own_interface: str, how: str) -> None:
    with Bus(own_interface, "socketcan") as bus:
        bus.send(MESSAGE, timeout=10)
        if how == "down":
            ip("set", own_interface, "down")
        else:
            ip("del", own_interface)
        wait_until(lambda: bus.state is BusState.ERROR, "the bus knows")
        with pytest.raises(CanOperationError, match=own_interface):
            bus.send(MESSAGE)
        if how == "deleted":
            ip("add", own_interface, "type", "vcan")
        ip("set", own_interface, "up")
        with Node(own_interface) as node:
            wait_until(lambda: bus.state is BusState.ACTIVE, "the interface is open again")
            node.send([FRAME])
            received = bus.recv(10)
            assert received is not None
            assert received.equals(MESSAGE, timestamp_delta=None, check_channel=False)
            assert node.drain() == [], "nothing stale was sent"
        assert bus.stats.restarts == 0, "the actor lives on"


def test_fd_needs_the_mtu_and_configure_sets_it(open_interface: Open, own_interface: str) -> None:
    ip("set", own_interface, "down")
    ip("set", own_interface, "mtu", "16")
    ip("set", own_interface, "up")
    with pytest.raises(CanInitializationError, match=f"ip link set {own_interface} mtu 72"):
        open_interface(own_interface, fd=True)
    assert not open_interface(own_interface).fd
    assert open_interface(own_interface, fd=True, configure=True).fd
    [link] = [link for link in list_links() if link.name == own_interface]
    assert (link.mtu, link.up, link.kind) == (72, True, "vcan")


def test_fd_frames_on_a_channel_opened_without_are_counted(
    open_interface: Open, node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    backend = open_interface()
    assert "opened without fd=True" in caplog.text
    node.send([Frame(0, 1, FD, bytes(64)), FRAME])
    assert [type(item) for item in collect(backend, bool)] == [Frame]
    assert backend.counters() == {"fd_frame": 1}


def test_configure_brings_an_interface_up(open_interface: Open, own_interface: str) -> None:
    ip("set", own_interface, "down")
    backend = open_interface(own_interface, configure=True)
    backend.send([sent := transmit(FRAME)])
    assert collect(backend, bool) == [sent]


def test_configure_without_the_capability_says_so(own_interface: str) -> None:
    ip("set", own_interface, "down")
    script = (
        "import os\n"
        "from canbroker.backends import open_backend, parse_options\n"
        f"parameters = {{'channel': {own_interface!r}, 'configure': True}}\n"
        "options = parse_options('socketcan', parameters)\n"
        "os.setuid(65534)\n"  # not before the imports: it may not be allowed to read them
        "open_backend('socketcan', options)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 1
    assert "CanInitializationError" in ended.stderr
    assert "CAP_NET_ADMIN" in ended.stderr


@pytest.fixture
def tunnel() -> Iterator[tuple[str, str]]:
    """The two ends of a vxcan, up."""
    ends = ("cbtest0", "cbtest1")
    ip("add", ends[0], "type", "vxcan", "peer", "name", ends[1])
    for end in ends:
        ip("set", end, "up")
    yield ends
    ip("del", ends[0])


def test_an_interface_without_controller_has_no_bus_off(
    open_interface: Open, tunnel: tuple[str, str]
) -> None:
    """A vxcan hands on what the other end's programs send as if it came from a bus."""
    backend = open_interface(tunnel[0])
    with Node(tunnel[1]) as node:
        node.socket.send(struct.pack("=IB3x8s", 0x20000040, 8, b""))
    [error] = collect(backend, bool)
    assert isinstance(error, Frame)
    assert error.flags & ERROR
    assert backend.condition == BusCondition()


def test_its_names_are_one_channel(runtime: Runtime, own_interface: str) -> None:
    names = (own_interface, "cbfront", "a-name-of-more-than-fifteen-characters")
    for name in names[1:]:
        ip("property", "add", "dev", own_interface, "altname", name)
    with ExitStack() as stack:
        buses = [stack.enter_context(Bus(name, "socketcan")) for name in reversed(names)]
        (channel,) = status_of(runtime).channels
        assert len(channel.clients) == 3
        buses[0].send(MESSAGE, timeout=10)
        assert [bus.recv(10) is not None for bus in buses[1:]] == [True, True]


def test_parameters_of_who_has_left_do_not_hold_when_it_is_not_open(
    runtime: Runtime, own_interface: str
) -> None:
    with Bus(own_interface, "socketcan") as other:
        opener = Bus(own_interface, "socketcan", listen_only=False)
        with pytest.raises(CanInitializationError, match="is open with listen_only=False"):
            Bus(own_interface, "socketcan", listen_only=True)
        ip("set", own_interface, "down")
        wait_until(lambda: is_closed(runtime), "it is down")
        with pytest.raises(CanInitializationError, match="is wanted with listen_only=False"):
            Bus(own_interface, "socketcan", listen_only=True)
        opener.shutdown()
        with pytest.raises(CanInitializationError, match=f"{own_interface} is down"):
            Bus(own_interface, "socketcan", listen_only=True)
        ip("set", own_interface, "up")
        with (
            Bus(own_interface, "socketcan", listen_only=True) as newcomer,
            Node(own_interface) as node,
        ):
            assert newcomer.state is BusState.PASSIVE
            wait_until(lambda: other.state is BusState.PASSIVE, "it goes on for others")
            node.send([FRAME])
            assert newcomer.recv(10) is not None
            assert other.recv(10) is not None
        assert not list(runtime.records_path.glob("*crash*"))


def is_closed(runtime: Runtime) -> bool:
    (channel,) = status_of(runtime).channels
    return channel.state is not None and channel.state.state == "error"
