"""The contract of a bus over every kind of adapter: the same results, whatever is opened."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from canbroker import Bus, BusState, CanOperationError, Message
from canbroker.model.frame import BITRATE_SWITCH, EXTENDED, FD, REMOTE, Frame, describe
from canbroker.model.message import to_frame
from canbroker.transport.runtime import Runtime
from tests.support.adapters import ADAPTERS, Adapter
from tests.support.brokers import wait_until

pytestmark = pytest.mark.long


@pytest.fixture(params=ADAPTERS)
def adapter(request: pytest.FixtureRequest, runtime: Runtime) -> Iterator[Adapter]:
    with ADAPTERS[request.param]() as opened:
        yield opened


FRAMES = [
    Frame(0, 0x123, 0, b"\x01\x02"),
    Frame(0, 0x7FF, 0, bytes(range(8))),
    Frame(0, 0, 0, b""),
    Frame(0, 0x1ABCDEF0, EXTENDED, b"\x00\x0d\x07"),
    Frame(0, 0x12, EXTENDED, b"\x55"),
    Frame(0, 0x321, REMOTE, 0),
]
FD_FRAMES = [
    Frame(0, 0x456, FD, bytes(range(12))),
    Frame(0, 0x1FFFFFFF, FD | BITRATE_SWITCH | EXTENDED, bytes(range(64))),
]


def carried(adapter: Adapter) -> list[Frame]:
    frames = FRAMES + (FD_FRAMES if adapter.fd else [])
    return [frame for frame in frames if adapter.remote or not frame.flags & REMOTE]


def message(frame: Frame) -> Message:
    is_remote = isinstance(frame.data, int)
    return Message(
        arbitration_id=frame.arbitration_id,
        is_extended_id=bool(frame.flags & EXTENDED),
        is_remote_frame=is_remote,
        is_fd=bool(frame.flags & FD),
        bitrate_switch=bool(frame.flags & BITRATE_SWITCH),
        data=None if is_remote else frame.data,
    )


def plain(identifier: int, data: bytes = b"") -> Frame:
    return Frame(0, identifier, 0, data)


def receive(bus: Bus, count: int) -> list[Message]:
    """The next ``count`` messages, and no more than that are there."""
    received: list[Message] = []
    while len(received) < count:
        batch = bus.recv_batch(count, 10)
        assert batch, f"only {len(received)} of {count}"
        received += batch
    assert bus.recv(0) is None
    return received


def text(messages: list[Message]) -> list[str]:
    return [describe(to_frame(one)) for one in messages]


def test_what_is_sent_is_on_the_bus_and_at_the_others(adapter: Adapter) -> None:
    frames = carried(adapter)
    expected = [describe(frame) for frame in frames]
    with (
        adapter.open() as sender,
        adapter.open() as other,
        adapter.open(receive_own_messages=True) as own,
    ):
        for frame in frames:
            sender.send(message(frame), timeout=10)
        wait_until(lambda: adapter.seen() == expected, "all on the bus, in order")
        received = receive(other, len(frames))
        assert text(received) == expected
        assert all(one.is_rx for one in received)
        assert all(abs(one.timestamp - time.time()) < 60 for one in received)
        assert sender.recv(0) is None, "not to who has sent it"
        receive(own, len(frames))
        own.send(message(plain(0x77)), timeout=10)
        assert [one.is_rx for one in receive(own, 1)] == [False]
        assert sender.stats.sent == len(frames)
        assert sender.stats.failed == 0


def test_what_another_node_sends_is_received_by_all(adapter: Adapter) -> None:
    frames = carried(adapter)
    with adapter.open() as first, adapter.open() as second:
        adapter.inject(frames)
        for bus in (first, second):
            received = receive(bus, len(frames))
            assert text(received) == [describe(frame) for frame in frames]
            assert all(one.is_rx for one in received)


def test_filters_hold_for_both(adapter: Adapter) -> None:
    with (
        adapter.open() as sender,
        adapter.open(can_filters=[{"can_id": 0x100, "can_mask": 0x700}]) as narrow,
    ):
        for wanted in (0x100, 0x200):
            narrow.set_filters([{"can_id": wanted, "can_mask": 0x700, "extended": False}])
            adapter.inject([plain(0x101), plain(0x201)])
            receive(sender, 2)
            sender.send_batch([message(plain(0x202)), message(plain(0x102))], timeout=10)
            assert [one.arbitration_id for one in receive(narrow, 2)] == [wanted + 1, wanted + 2]
        narrow.set_filters(None)
        adapter.inject([plain(0x333)])
        assert [one.arbitration_id for one in receive(narrow, 1)] == [0x333]


def test_timeouts_and_the_end(adapter: Adapter) -> None:
    bus = adapter.open()
    began = time.monotonic()
    assert bus.recv(0.1) is None
    assert time.monotonic() - began >= 0.1
    assert bus.recv(0) is None
    assert bus.stats.received == 0
    with pytest.raises(CanOperationError, match="9 bytes"):
        bus.send(Message(arbitration_id=1, data=bytes(9)), timeout=10)
    for _ in range(50):
        bus.send(message(plain(0x50)))
    bus.shutdown()  # waits until they are sent
    wait_until(lambda: adapter.seen() == ["050#"] * 50, "nothing was left behind")
    for call in (lambda: bus.recv(0), lambda: bus.send(message(plain(1))), bus.fileno, bus.flush):
        with pytest.raises(CanOperationError, match="shut down"):
            call()
    assert bus.state is BusState.ERROR
    with adapter.open() as again:
        adapter.inject([plain(0x60)])
        receive(again, 1)
