"""Many remote clients, one that never reads, and strangers at the port: nobody else is harmed."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Final

import pytest

from canbroker import Bus, Message
from tests import hostile
from tests.support.brokers import private_runtime, wait_until
from tests.support.processes import Program
from tests.support.remote import Lab, lab

pytestmark = pytest.mark.long

CLIENTS: Final = 64
STRANGERS: Final = 200
FRAMES: Final = 1_000

#: What strangers may cost the gateway: buffers of their connections, and what malloc keeps.
BOUND: Final = 32 << 20

#: What a ZMTP peer with CURVE says first.
GREETING: Final = b"\xff\0\0\0\0\0\0\0\x01\x7f\x03\0CURVE" + bytes(47)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with private_runtime() as runtime, lab(runtime, tmp_path_factory.mktemp("keys")) as opened:
        yield opened


def numbered(number: int) -> Message:
    return Message(arbitration_id=0x123, data=number.to_bytes(4, "big"), is_extended_id=False)


def numbers_of(bus: Bus, count: int) -> list[int]:
    received: list[int] = []
    while len(received) < count:
        messages = bus.recv_batch(count, 20)
        assert messages, f"only {len(received)} of {count} have come"
        received += [int.from_bytes(message.data, "big") for message in messages]
    return received


# ------------------------------------------------------------------------------------ many clients

#: Attaches, and reads nothing until it is told.
IDLE = """
with Bus("x", "virtual", broker=arguments["broker"]) as bus:
    say("open")
    hear()
    numbers = []
    while not numbers or numbers[-1] != arguments["last"]:
        numbers += [int.from_bytes(m.data, "big") for m in bus.recv_batch(1000, 20)]
    say([len(numbers), numbers == sorted(set(numbers)), bus.stats.lost])
"""


# 64 clients are opened one after the other, and every frame is received by each of them.
@pytest.mark.timeout(180)
def test_sixty_four_clients_and_one_that_never_reads(bench: Lab) -> None:
    with ExitStack() as stack:
        sender = stack.enter_context(Bus("x", "virtual"))
        idle = stack.enter_context(Program(IDLE, broker=bench.address, last=FRAMES * 40))
        assert idle.said() == "open"
        buses = [
            stack.enter_context(Bus("x", "virtual", broker=bench.address)) for _ in range(CLIENTS)
        ]
        for first in range(0, FRAMES, 100):
            sender.send_batch([numbered(number) for number in range(first, first + 100)], 20)
        for bus in buses:
            assert numbers_of(bus, FRAMES) == [*range(FRAMES)]
        assert {bus.stats.lost for bus in buses} == {0}
        gateway = bench.gateway.memory_info().rss
        for bus in buses[1:]:
            bus.shutdown()
        # More than all queues on the way to it hold.
        for first in range(FRAMES, FRAMES * 40, 1_000):
            sender.send_batch([numbered(number) for number in range(first, first + 1_000)], 20)
            assert numbers_of(buses[0], 1_000) == [*range(first, first + 1_000)]
        sender.send(numbered(FRAMES * 40), 20)
        assert bench.gateway.memory_info().rss - gateway < BOUND
        idle.tell("read")
        assert idle.said() == [FRAMES * 40 + 1, True, 0]


# --------------------------------------------------------------------------------------- strangers


def in_the_handshake(connection: socket.socket, number: int) -> None:
    """Stops somewhere in the greeting, or behind it."""
    connection.send(GREETING[: number % (len(GREETING) + 1)])


def speaks_http(connection: socket.socket, number: int) -> None:
    connection.send(b"GET / HTTP/1.1\r\nHost: bench1\r\nAccept: */*\r\n\r\n")


def sends_garbage(connection: socket.socket, number: int) -> None:
    """Without end, as far as it is taken."""
    connection.send(os.urandom(1 << 16))


def greets_and_sends_garbage(connection: socket.socket, number: int) -> None:
    connection.send(GREETING + os.urandom(1 << 16))


STRANGE: Final[list[Callable[[socket.socket, int], None]]] = [
    in_the_handshake,
    speaks_http,
    sends_garbage,
    greets_and_sends_garbage,
]


@contextmanager
def strangers(
    address: tuple[str, int], behave: Callable[[socket.socket, int], None]
) -> Iterator[None]:
    """So many at once, each of which comes again when it is hung up on."""
    leave = threading.Event()

    def run() -> None:
        connections: dict[int, socket.socket] = {}
        while not leave.is_set():
            for number in range(STRANGERS):
                if number not in connections:
                    connections[number] = socket.create_connection(address, 20)
                    connections[number].setblocking(False)
                try:
                    behave(connections[number], number)
                    if connections[number].recv(4096) == b"":
                        raise ConnectionResetError
                except BlockingIOError:
                    continue
                except OSError:
                    connections.pop(number).close()
            leave.wait(0.05)
        for connection in connections.values():
            connection.close()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        leave.set()
        thread.join()


@pytest.mark.parametrize("behave", STRANGE, ids=lambda behave: behave.__name__)
def test_strangers_at_the_port(bench: Lab, behave: Callable[[socket.socket, int], None]) -> None:
    with (
        Bus("x", "virtual", broker=bench.address) as sender,
        Bus("x", "virtual", broker=bench.address) as receiver,
    ):
        gateway = bench.gateway
        before = hostile.round_trip_times(sender, receiver, hostile.ROUND_TRIPS)
        memory, descriptors = gateway.memory_info().rss, gateway.num_fds()
        with strangers(bench.endpoint, behave):
            during = hostile.round_trip_times(sender, receiver, hostile.ROUND_TRIPS)
            assert gateway.memory_info().rss - memory < BOUND
            assert gateway.num_fds() - descriptors <= 2 * STRANGERS
            with Bus("x", "virtual", broker=bench.address) as late:
                sender.send(numbered(7), 20)
                assert numbers_of(late, 1) == [7]
        assert receiver.stats.lost == 0
        assert bench.gateway == gateway, "it still runs"
        wait_until(lambda: gateway.num_fds() <= descriptors + 2, "they are gone", timeout=30)
    # Wide: the strangers take one of two processors, and other tests the other.
    assert during[0] < 50 * max(before[0], 1)
