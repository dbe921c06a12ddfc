"""Controllers with a driver of their own, emulated: ``make test-socketcan-hw``.

Two SJA1000 (can0, can1) on one bus, two CTU CAN FD (can2, can3) on another. On no other machine
do these tests run: they send, and set bitrates, and there might be a car behind can0.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from canbroker import Bus, BusState, CanInitializationError, CanOperationError, Message
from canbroker.backends.base import Backend
from canbroker.backends.socketcan.netlink import list_links
from canbroker.model.frame import BITRATE_SWITCH, EXTENDED, FD, FD_LENGTHS, REMOTE, Frame
from canbroker.transport.runtime import Runtime
from tests.can.conftest import Open
from tests.support.benches import collect, content, transmit
from tests.support.brokers import status_of, wait_until
from tests.support.vcan import exists, ip

if os.environ.get("CAN_VM") != "qemu":
    pytest.skip("no emulated controllers: make test-socketcan-hw", allow_module_level=True)

#: Emulated processors are 12 to 20 times slower than this one.
PATIENCE_S = 100.0


class Pair(NamedTuple):
    """Two controllers on one bus, and how ``ip`` sets them."""

    ends: tuple[str, str]
    settings: str
    bitrate: int
    data_bitrate: int | None = None

    @property
    def parameters(self) -> dict[str, Any]:
        """What a user would write to open an end with all that it can."""
        if self.data_bitrate is None:
            return {"bitrate": self.bitrate}
        return {"bitrate": self.bitrate, "data_bitrate": self.data_bitrate, "fd": True}


CLASSIC = Pair(("can0", "can1"), "bitrate 500000 listen-only off", 500_000)
FLEXIBLE = Pair(
    ("can2", "can3"), "bitrate 500000 dbitrate 2000000 fd on listen-only off", 500_000, 2_000_000
)


def for_pairs(*pairs: Pair) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("pair", pairs, ids=["-".join(pair.ends) for pair in pairs])


each_pair = for_pairs(CLASSIC, FLEXIBLE)
classic_pair = for_pairs(CLASSIC)
fd_pair = for_pairs(FLEXIBLE)

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(autouse=True)
def healthy(pair: Pair) -> Iterator[None]:
    """Both controllers are there, and as they were in the end, whatever a test has made of them."""
    if not all(map(exists, pair.ends)):
        pytest.skip(f"no {' and '.join(pair.ends)}: can-vm says why")
    yield
    for end in pair.ends:
        ip("set", end, "down")
        ip("set", end, "type", "can", *pair.settings.split())
        ip("set", end, "up")


def classic_frames(first: int) -> list[Frame]:
    """Both formats, every length; remote frames without one, which the SJA1000 has emulated
    wrong."""
    data = [
        Frame(0, identifier + length, flags, bytes(range(length)))
        for identifier, flags in ((first, 0), (0x1ABCDE00 + first, EXTENDED))
        for length in range(9)
    ]
    return [*data, Frame(0, first, REMOTE, 0), Frame(0, 0x1FFFFFFF - first, REMOTE | EXTENDED, 0)]


def fd_frames(first: int) -> list[Frame]:
    """Both formats, every length, with and without a second bitrate; no error state indicator,
    which the emulation loses."""
    return [
        Frame(0, identifier + length, flags | FD | switch, bytes(range(length)))
        for identifier, flags in ((first, 0), (0x1ABCDE00 + first, EXTENDED))
        for switch in (0, BITRATE_SWITCH)
        for length in FD_LENGTHS
    ]


def pass_on(sender: Backend, receiver: Backend, frames: Sequence[Frame]) -> list[Frame]:
    """Sends one frame after the other, each when the other end has the one before; returns what
    that received. (The emulated SJA1000 loses frames when they come faster than a slow processor
    takes them.)"""
    received: list[Frame] = []
    for frame in frames:
        sent = transmit(frame)
        sender.send([sent])
        assert collect(sender, bool) == [sent]
        assert sent.failure is None
        assert sent.timestamp_ns > 0
        received += [item for item in collect(receiver, bool) if isinstance(item, Frame)]
    return received


def rate_of(interface: str) -> int | None:
    return next(link.bitrate for link in list_links() if link.name == interface)


@each_pair
def test_frames_arrive_as_they_were_sent_in_order(open_interface: Open, pair: Pair) -> None:
    left, right = (open_interface(end, **pair.parameters) for end in pair.ends)
    make = classic_frames if pair.data_bitrate is None else mixed_frames
    for sender, receiver, first in ((left, right, 0x100), (right, left, 0x200)):
        frames = make(first)
        arrived = pass_on(sender, receiver, frames)
        assert [content(frame) for frame in arrived] == [content(frame) for frame in frames]
    assert (left.read(), right.read()) == ([], [])
    assert (left.counters(), right.counters()) == ({}, {})
    assert (left.dropped, right.dropped) == (0, 0)


def mixed_frames(first: int) -> list[Frame]:
    return [*fd_frames(first), *classic_frames(first)]


@fd_pair
def test_a_burst_both_ways_arrives_in_order(open_interface: Open, pair: Pair) -> None:
    left, right = (open_interface(end, **pair.parameters) for end in pair.ends)
    count = 100
    sent = {
        backend: [transmit(Frame(0, first, FD, n.to_bytes(4, "big"))) for n in range(count)]
        for backend, first in ((left, 1), (right, 2))
    }
    for backend, transmits in sent.items():
        backend.send(transmits)
    for backend, other in ((left, right), (right, left)):
        items = collect(backend, lambda items: len(items) >= 2 * count)
        assert [item for item in items if not isinstance(item, Frame)] == sent[backend]
        assert {item.failure for item in sent[backend]} == {None}
        arrived = [content(item) for item in items if isinstance(item, Frame)]
        assert arrived == [content(item.frame) for item in sent[other]]
    assert (left.dropped, right.dropped) == (0, 0)


@each_pair
def test_settings_are_read_from_the_kernel(open_interface: Open, pair: Pair) -> None:
    backend = open_interface(pair.ends[0], fd=pair.data_bitrate is not None)
    assert (backend.bitrate, backend.data_bitrate) == (pair.bitrate, pair.data_bitrate)
    assert not backend.listen_only
    assert backend.error_counters() == (0, 0), "the drivers tell them"
    device = Path(f"/sys/class/net/{pair.ends[0]}/device").resolve().name
    mtu = 16 if pair.data_bitrate is None else 72
    assert backend.info == f"socketcan {pair.ends[0]} (can, MTU {mtu}, at {device})"


@each_pair
def test_another_bitrate_is_refused_with_both(open_interface: Open, pair: Pair) -> None:
    end = pair.ends[0]
    with pytest.raises(CanInitializationError) as raised:
        open_interface(end, **pair.parameters | {"bitrate": 250_000})
    assert f"interface {end} has bitrate 500000, not 250000" in str(raised.value)
    assert f"ip link set {end} type can bitrate 250000" in str(raised.value)
    assert rate_of(end) == pair.bitrate


@fd_pair
def test_another_data_bitrate_is_refused_with_both(open_interface: Open, pair: Pair) -> None:
    wrong = pair.parameters | {"data_bitrate": 4_000_000}
    with pytest.raises(CanInitializationError, match="has data_bitrate 2000000, not 4000000"):
        open_interface(pair.ends[0], **wrong)


@each_pair
def test_configure_sets_the_rates(open_interface: Open, pair: Pair) -> None:
    asked = pair.parameters | {"bitrate": 250_000, "configure": True}
    if pair.data_bitrate is not None:
        asked |= {"data_bitrate": 4_000_000}
    left, right = (open_interface(end, **asked) for end in pair.ends)
    assert (left.bitrate, left.data_bitrate) == (250_000, asked.get("data_bitrate"))
    assert rate_of(pair.ends[1]) == 250_000
    [frame] = pass_on(left, right, [Frame(0, 0x123, 0, b"\1\2\3")])
    assert content(frame) == (0x123, 0, b"\1\2\3")


@each_pair
def test_configure_sets_listen_only(open_interface: Open, pair: Pair) -> None:
    with pytest.raises(CanInitializationError, match="listen-only on"):
        open_interface(pair.ends[0], listen_only=True)
    listener = open_interface(pair.ends[0], listen_only=True, configure=True)
    assert "listen-only" in listener.info
    assert listener.room("client") == 0
    assert open_interface(pair.ends[0]).listen_only, "the controller is, whoever asks"


@classic_pair
def test_what_the_controller_cannot_do_is_refused(open_interface: Open, pair: Pair) -> None:
    asked: dict[str, object] = {"fd": True, "data_bitrate": 2_000_000, "configure": True}
    with pytest.raises(CanInitializationError, match="cannot configure interface can0: the kernel"):
        open_interface(pair.ends[0], **asked)
    backend = open_interface(pair.ends[0])
    assert (backend.bitrate, backend.fd) == (pair.bitrate, False), "as it was, and up"


@fd_pair
def test_configure_sets_one_rate_of_two(open_interface: Open, pair: Pair) -> None:
    backend = open_interface(pair.ends[0], fd=True, data_bitrate=4_000_000, configure=True)
    assert (backend.bitrate, backend.data_bitrate) == (500_000, 4_000_000)
    classic = open_interface(pair.ends[0], bitrate=250_000, configure=True)
    assert (classic.bitrate, classic.fd) == (250_000, False)
    with pytest.raises(CanInitializationError, match="CAN FD needs bitrate and data_bitrate"):
        open_interface(pair.ends[0], fd=True, configure=True)


@each_pair
def test_configure_needs_the_capability(pair: Pair) -> None:
    end = pair.ends[0]
    script = (
        "import os\n"
        "from canbroker.backends import open_backend, parse_options\n"
        f"parameters = {{'channel': {end!r}, 'bitrate': 250000, 'configure': True}}\n"
        "options = parse_options('socketcan', parameters)\n"
        "os.setuid(65534)\n"  # not before the imports: it may not be allowed to read them
        "open_backend('socketcan', options)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 1
    assert f"cannot configure interface {end}: configure=True needs the capability" in ended.stderr
    assert "CAP_NET_ADMIN" in ended.stderr
    assert rate_of(end) == pair.bitrate


@each_pair
def test_clients_of_a_broker_on_both_ends(runtime: Runtime, pair: Pair) -> None:
    fd = pair.data_bitrate is not None
    data = bytes(range(64 if fd else 8))
    with (
        Bus(pair.ends[0], "socketcan", **pair.parameters) as left,
        Bus(pair.ends[0], "socketcan", **pair.parameters) as beside,
        Bus(pair.ends[1], "socketcan", **pair.parameters) as right,
    ):
        for sender, first, hearers in ((left, 0x100, (right, beside)), (right, 0x200, (left,))):
            sent = [
                Message(arbitration_id=first + n, data=data, is_fd=fd, bitrate_switch=fd)
                for n in range(10)
            ]
            for message in sent:
                sender.send(message, timeout=PATIENCE_S)
                for hearer in hearers:
                    received = hearer.recv(PATIENCE_S)
                    assert received is not None
                    assert received.equals(message, timestamp_delta=None, check_channel=False)
        channels = status_of(runtime).channels
        states = {channel.parameters["channel"]: channel.state for channel in channels}
        for end in pair.ends:
            state = states[end]
            assert state is not None
            assert (state.state, state.bitrate) == ("active", pair.bitrate)
            assert (state.data_bitrate, state.fd) == (pair.data_bitrate, fd)
            assert f"socketcan {end} (can, " in state.info
        with pytest.raises(CanInitializationError, match=r"500000.*250000|250000.*500000"):
            Bus(pair.ends[0], "socketcan", **pair.parameters | {"bitrate": 250_000})


@each_pair
def test_a_bus_survives_its_controller(runtime: Runtime, pair: Pair) -> None:
    here, there = pair.ends
    message = Message(arbitration_id=0x123, data=b"\1", is_extended_id=False)
    with Bus(here, "socketcan") as bus, Bus(there, "socketcan") as other:
        ip("set", here, "down")
        wait_until(lambda: bus.state is BusState.ERROR, "the bus knows", PATIENCE_S)
        with pytest.raises(CanOperationError, match=f"{here} is down"):
            bus.send(message)
        ip("set", here, "up")
        wait_until(lambda: bus.state is BusState.ACTIVE, "the interface is open again", PATIENCE_S)
        other.send(message, timeout=PATIENCE_S)
        received = bus.recv(PATIENCE_S)
        assert received is not None
        assert received.equals(message, timestamp_delta=None, check_channel=False)
        assert other.recv(0) is None, "nothing stale was sent"
        assert bus.stats.interruptions == 1
