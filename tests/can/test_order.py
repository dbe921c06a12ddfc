"""One order of the bus, and exact counts, with programs outside canbroker on the same bus."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import canbroker
from canbroker.backends.base import Backend, Transmit
from canbroker.model.frame import Frame, describe
from canbroker.transport.runtime import Runtime
from tests.can.conftest import Open
from tests.support.benches import Item, collect, send_all, transmit
from tests.support.vcan import LOGGED, VCAN, Node, candump, needs_can, one_processor

pytestmark = needs_can

EACH = 500


def numbered(arbitration_id: int, count: int = EACH) -> list[Frame]:
    return [Frame(0, arbitration_id, 0, number.to_bytes(4, "big")) for number in range(count)]


def content_of(item: Item) -> str:
    return describe(item if isinstance(item, Frame) else item.frame)


def dumped(process: subprocess.Popen[str]) -> list[str]:
    return [line.split()[2] for line in process.communicate(timeout=30)[0].splitlines()]


def test_four_senders_have_one_order(open_interface: Open) -> None:
    backend = open_interface()
    inside = [
        transmit(frame, origin)
        for pair in zip(numbered(1), numbered(2), strict=True)
        for frame, origin in zip(pair, ("a", "b"), strict=True)
    ]
    with (
        one_processor(),
        Node() as first,
        Node() as second,
        candump(4 * EACH, *LOGGED) as dump,
        ThreadPoolExecutor(4) as pool,
    ):
        dumping = pool.submit(dumped, dump)
        sending = [
            pool.submit(first.send, numbered(3)),
            pool.submit(second.send, numbered(4)),
            pool.submit(send_one_by_one, backend, inside),
        ]
        items = collect(backend, lambda items: len(items) >= 4 * EACH)
        for future in sending:
            future.result()
        assert list(map(content_of, items)) == dumping.result()
    assert [item for item in items if not isinstance(item, Frame)] == inside
    times = [item.timestamp_ns for item in items]
    assert all(earlier <= later for earlier, later in pairwise(times))
    assert backend.dropped == 0


def send_one_by_one(backend: Backend, transmits: Sequence[Transmit]) -> None:
    for item in transmits:
        send_all(backend, [item])


def test_clients_of_a_broker_see_what_candump_sees(runtime: Runtime) -> None:
    count = 100
    with (
        one_processor(),
        canbroker.Bus(VCAN, "socketcan") as receiver,
        canbroker.Bus(VCAN, "socketcan") as a,
        canbroker.Bus(VCAN, "socketcan") as b,
        Node() as c,
        Node() as d,
        candump(4 * count, *LOGGED) as dump,
        ThreadPoolExecutor(5) as pool,
    ):
        dumping = pool.submit(dumped, dump)
        sending = [
            pool.submit(bus.send_batch, [message(frame) for frame in numbered(identifier, count)])
            for bus, identifier in ((a, 1), (b, 2))
        ]
        sending += [
            pool.submit(c.send, numbered(3, count)),
            pool.submit(d.send, numbered(4, count)),
        ]
        seen: list[str] = []
        while len(seen) < 4 * count:
            received = receiver.recv(20)
            assert received is not None, f"only {len(seen)}"
            assert received.is_rx
            seen.append(f"{received.arbitration_id:03X}#{bytes(received.data).hex().upper()}")
        for future in sending:
            future.result()
        assert seen == dumping.result()
        assert receiver.stats.lost == 0


def message(frame: Frame) -> canbroker.Message:
    assert isinstance(frame.data, bytes)
    return canbroker.Message(
        arbitration_id=frame.arbitration_id, is_extended_id=False, data=frame.data
    )


def test_cansequence_is_counted_exactly(open_interface: Open) -> None:
    """In rounds that the receive buffer holds: nothing else slows cansequence down here."""
    backend = open_interface()
    rounds, each = 20, 1_000
    command = ["cansequence", f"--loop={each}", VCAN]
    for _ in range(rounds):
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
            items = collect(backend, lambda items: len(items) >= each)
            assert process.wait(20) == 0
        data = [item.data for item in items if isinstance(item, Frame)]
        assert data == [bytes((number & 0xFF,)) for number in range(each)]
    assert backend.read() == []
    assert backend.dropped == 0


def test_what_overflows_the_receive_buffer_is_counted(open_interface: Open, node: Node) -> None:
    backend = open_interface()
    sent = 10_000
    node.send(numbered(0x123, sent))
    received: list[Item] = []
    while items := backend.read():
        received.extend(items)
    assert 0 < len(received) < sent
    assert len(received) + backend.dropped == sent
    node.send(numbered(0x124, 1))  # it carries the same count
    received += collect(backend, lambda items: len(items) >= 1)
    assert len(received) + backend.dropped == sent + 1
