"""The listening end of a gateway bounds connections, and prefers those that go on."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from canbroker.system import clock
from canbroker.transport import front as module
from canbroker.transport.address import TcpAddress
from canbroker.transport.curve import new_pair
from canbroker.transport.front import Arrival, Front, Sent
from canbroker.transport.sockets import Context
from tests.support.brokers import wait_until

LIMIT = 8


@pytest.fixture
def front(monkeypatch: pytest.MonkeyPatch) -> Iterator[Front]:
    """One that admits everybody, with few handshakes at a time."""
    monkeypatch.setattr(module, "MAX_HANDSHAKES", LIMIT)
    public, secret = new_pair()
    made = Front(TcpAddress("127.0.0.1", 0), secret, lambda key, _: "bob" if key else None)
    made.address = TcpAddress("127.0.0.1", made.address.port, public)
    yield made
    while _opened:
        _opened.pop().close()
    made.close()


#: Closed with the front.
_opened: list[socket.socket] = []


def connected(front: Front, number: int) -> list[socket.socket]:
    """Connections that never say a word."""
    where = front.address.host, front.address.port
    made = [socket.create_connection(where) for _ in range(number)]
    _opened.extend(made)
    return made


def followed(front: Front, connections: int) -> bool:
    front.follow(clock.monotonic_ns())
    return len(front) == connections


def is_open(connection: socket.socket) -> bool:
    """Whether the other end has not ended the connection."""
    connection.setblocking(False)
    try:
        while connection.recv(100):  # the greeting of ZMTP
            continue
    except BlockingIOError:
        return True
    except ConnectionResetError:
        return False
    return False


def test_connections_that_never_go_on_make_room_for_new_ones(front: Front) -> None:
    silent = connected(front, LIMIT)
    wait_until(lambda: followed(front, LIMIT), "all are counted")
    assert front.turned_away == 0
    newer = connected(front, 3)
    wait_until(lambda: followed(front, LIMIT) and front.turned_away == 3, "the oldest are gone")
    wait_until(lambda: sum(map(is_open, silent)) == LIMIT - 3, "three of the first are ended")
    assert all(map(is_open, newer))


def test_a_client_gets_in_while_others_hold_every_handshake(front: Front) -> None:
    end = threading.Event()
    arrived: list[Arrival] = []

    def hold() -> None:
        """Keeps more connections open than there may be, as an attacker would."""
        held: list[socket.socket] = []
        while not end.wait(0.05):
            held = [each for each in held if is_open(each)]
            held += connected(front, LIMIT + 2 - len(held))

    def client_arrives() -> bool:
        front.follow(clock.monotonic_ns())
        arrival = front.receive()
        if arrival is not None:
            arrived.append(arrival)
        return bool(arrived)

    attacker = threading.Thread(target=hold)
    attacker.start()
    context = Context()
    _, context.identity = new_pair()
    try:
        wait_until(lambda: followed(front, LIMIT) and front.turned_away > 0, "all is taken")
        endpoint = TcpAddress("127.0.0.1", front.address.port, front.address.key, "broker")
        client = context.connected(context.remote_requester(endpoint), endpoint)
        client.send(b"hello")
        wait_until(client_arrives, "the client gets in")
        assert arrived[0].body == b"hello"
        client.close()
    finally:
        end.set()
        while attacker.is_alive():
            front.follow(clock.monotonic_ns())
            attacker.join(0.01)
        context.close()


def test_what_was_sent_last_arrives(front: Front) -> None:
    context = Context()
    _, context.identity = new_pair()
    endpoint = TcpAddress("127.0.0.1", front.address.port, front.address.key, "broker")
    client = context.connected(context.remote_requester(endpoint), endpoint)
    client.send(b"shutdown")
    arrivals: list[Arrival] = []

    def arrived() -> bool:
        arrival = front.receive()
        arrivals.extend([] if arrival is None else [arrival])
        return bool(arrivals)

    wait_until(arrived, "the request arrives")
    count = 500
    for _ in range(count):
        assert front.send(arrivals[0].peer, [bytes(1_000)]) is Sent.QUEUED
    front.close()
    for _ in range(count):
        assert client.poll(20_000)
        client.recv()
    client.close()
    context.close()


def test_connections_that_have_had_their_time_are_not_in_their_handshake(front: Front) -> None:
    connected(front, LIMIT)
    wait_until(lambda: followed(front, LIMIT), "all are counted")
    later = clock.monotonic_ns() + module._HANDSHAKE_NS
    connected(front, 1)
    wait_until(lambda: front.follow(later) == [] and len(front) == LIMIT + 1, "one more")
    assert front.turned_away == 0
