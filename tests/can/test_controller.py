"""Error states, bus-off and full queues of a controller: the kernel's slcan driver, told what to
report. Run with ``tools/can-vm --slcan``."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from canbroker import Bus, BusState, CanInitializationError, CanOperationError, Message
from canbroker.backends.base import BusCondition, Repetition
from canbroker.backends.socketcan.error_frames import describe_error
from canbroker.model.frame import ERROR, Frame
from canbroker.transport.runtime import Runtime
from tests.can.conftest import Open
from tests.support.benches import Item, collect, send_all, transmit
from tests.support.brokers import status_of, wait_until
from tests.support.vcan import Node, ip

CONTROL = Path("/run/slcan.ctl")

pytestmark = pytest.mark.skipif(not CONTROL.exists(), reason="no can0 of can-vm --slcan")


def report(line: str) -> None:
    """The adapter of can0 says this."""
    with CONTROL.open("w") as control:
        control.write(f"can0 {line}\n")


@pytest.fixture(autouse=True)
def healthy() -> Iterator[None]:
    """The controller is as it was, whatever a test has made of it."""
    yield
    ip("set", "can0", "down")
    ip("set", "can0", "type", "can", "bitrate", "500000")
    ip("set", "can0", "up")


def has_error(items: list[Item]) -> bool:
    return any(map(is_error, items))


def is_error(item: Item) -> bool:
    return isinstance(item, Frame) and bool(item.flags & ERROR)


@pytest.mark.parametrize(
    ("line", "words", "kinds", "told"),
    [
        (
            "sw010096",
            "transmit error warning (transmit errors 96, receive errors 10)",
            ["error_warning"],
            (96, 10),
        ),
        (
            "sp130010",
            "receive error passive (transmit errors 10, receive errors 130)",
            ["error_passive"],
            (10, 130),
        ),
        ("e1a", "no acknowledgement, bus error", ["no_ack", "bus_error", "protocol"], None),
        ("e1o", "receive overrun", ["rx_overrun"], None),
    ],
)
def test_what_the_controller_reports_is_told(
    open_interface: Open, line: str, words: str, kinds: list[str], told: tuple[int, int] | None
) -> None:
    backend = open_interface("can0", bitrate=500_000)
    assert backend.bitrate == 500_000
    report(line)
    items = collect(backend, has_error)
    [frame] = [item for item in items if isinstance(item, Frame)]
    assert words in describe_error(frame)
    counters = backend.counters()
    assert {kind: counters.get(kind) for kind in kinds} == dict.fromkeys(kinds, 1)
    assert not backend.condition.off
    assert backend.condition.reason == (words if line[0] == "s" else "")
    assert backend.dropped == (line == "e1o")
    assert backend.error_counters() == told


def test_a_burst_larger_than_the_kernels_queue_is_sent_in_order(open_interface: Open) -> None:
    backend = open_interface("can0")
    sent = [transmit(Frame(0, number, 0, bytes(8))) for number in range(backend.room("client"))]
    with Node("can1") as node:
        backend.send(sent)
        assert backend.room("client") == 0
        assert collect(backend, lambda items: len(items) >= len(sent)) == sent
        assert {item.failure for item in sent} == {None}
        identifiers = [frame.arbitration_id for frame in sent_frames(sent)]
        wait_until(
            lambda: [frame.arbitration_id for frame in node.drain()] == identifiers, "all arrive"
        )
    wait_until(lambda: backend.due_ns() is None, "nothing is due")


def sent_frames(items: Sequence[Item]) -> list[Frame]:
    return [item if isinstance(item, Frame) else item.frame for item in items]


def test_bus_off_refuses_sends_and_is_over_when_the_interface_is_reset(
    open_interface: Open,
) -> None:
    backend = open_interface("can0")
    report("sb255000")
    collect(backend, has_error)
    assert backend.condition == BusCondition(off=True, reason="bus-off")
    refused = transmit(Frame(0, 1, 0, b""))
    send_all(backend, [refused])
    assert collect(backend, bool) == [refused]
    assert refused.failure == "bus-off"
    assert open_interface("can0").condition.off, "an open asks the kernel"


def test_an_error_frame_of_a_local_program_is_not_the_controllers_word(
    open_interface: Open,
) -> None:
    """As from ``cansend can0 20000040#`` or a log that canplayer replays."""
    backend = open_interface("can0")
    frames = [Frame(0, 1, 0, b"")]
    repetition = Repetition(key=("c", 1), frames=frames, period_ns=50_000_000, due_ns=0)
    assert backend.repeat(repetition) is None
    with Node("can0") as node:
        for number in (0x20000040, 0x20000004):  # bus-off; receive overrun
            node.socket.send(struct.pack("=IB3x8s", number, 8, b"\0\1"))
    errors = [
        item
        for item in collect(backend, lambda items: len(list(filter(is_error, items))) == 2)
        if is_error(item)
    ]
    assert [item.arbitration_id for item in errors if isinstance(item, Frame)] == [0x40, 0x4]
    assert backend.condition == BusCondition()
    assert backend.dropped == 0
    assert backend.counters() == {}
    assert backend.repeated()
    sent = transmit(Frame(0, 2, 0, b""))
    backend.send([sent])
    collect(backend, lambda items: sent in items)
    assert sent.failure is None


def test_clients_of_a_broker_are_told_of_bus_off(runtime: Runtime) -> None:
    with Bus("can0", "socketcan") as bus:
        bus.send(Message(arbitration_id=1), timeout=10)
        report("sb255000")
        wait_until(lambda: bus.state is BusState.ERROR, "the bus knows")
        with pytest.raises(CanOperationError, match="bus-off"):
            bus.send(Message(arbitration_id=1))
        wait_until(lambda: status_of(runtime).channels[0].record, "it is recorded", timeout=30)
        record = Path(status_of(runtime).channels[0].record)
        assert record.name.endswith("-bus-off.log")
        assert len(record.read_text().splitlines()) >= 1, "what was on the bus before"
        ip("set", "can0", "down")
        ip("set", "can0", "up")
        wait_until(lambda: bus.state is BusState.ACTIVE, "the controller is on the bus again")
        bus.send(Message(arbitration_id=2), timeout=10)


def test_configure_sets_the_bitrate(open_interface: Open) -> None:
    with pytest.raises(CanInitializationError, match="has bitrate 500000, not 250000"):
        open_interface("can0", bitrate=250_000)
    assert open_interface("can0", bitrate=250_000, configure=True).bitrate == 250_000
    assert open_interface("can0").bitrate == 250_000
    with pytest.raises(CanInitializationError, match="cannot configure interface can0"):
        open_interface("can0", fd=True, configure=True)
