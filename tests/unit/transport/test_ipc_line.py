"""Lines without libzmq, to sockets of libzmq: nothing is lost, and they come back by themselves."""

from __future__ import annotations

import socket as sockets
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zmq

from canbroker.system import clock
from canbroker.system.clock import SECOND
from canbroker.system.portable import PORTABLE
from canbroker.transport.address import IpcAddress
from canbroker.transport.ipc_line import IpcLine
from canbroker.transport.lines import IpcLines, Line
from canbroker.transport.selector import SocketSelector
from canbroker.transport.sockets import REQUEST_HIGH_WATER, Context, readable
from canbroker.transport.zmtp import encode

pytestmark = pytest.mark.skipif(PORTABLE, reason="sockets are not Unix sockets")

PATIENCE_NS = 20 * SECOND
TOPIC = b"can0/rx;"


class Relay:
    """One line, and what it has received."""

    def __init__(self, address: IpcAddress) -> None:
        self.address = address
        self.selector = SocketSelector[object]()
        self.lines = IpcLines(self.selector, 64)
        self.received: list[list[bytes]] = []
        self.reads = True
        self._line: Line | None = None

    def follow(self, line: Line) -> None:
        self._line = line
        line.report_to(line)

    def turn(self, until: Callable[[], bool]) -> None:
        """Does what a relay does until something is so."""
        end = clock.monotonic_ns() + PATIENCE_NS
        while not until():
            assert clock.monotonic_ns() < end
            self.lines.step(clock.monotonic_ns())
            assert self._line is not None
            self._line.step()
            if self.selector.wait(SECOND // 100) and self.reads:
                self._receive()

    def _receive(self) -> None:
        assert self._line is not None
        for _ in range(8):
            parts = self._line.receive()
            if parts is None:
                return
            self.received.append(list(parts))
        self._line.again()

    def close(self) -> None:
        if self._line is not None:
            self._line.close()
        self.lines.close()
        self.selector.close()


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[Relay]:
    made = Relay(IpcAddress(tmp_path / "socket"))
    yield made
    made.close()


@pytest.fixture
def context() -> Iterator[Context]:
    made = Context()
    yield made
    made.close()


def texts(count: int) -> list[bytes]:
    return [b"%d" % number for number in range(count)]


def answer_all(replier: zmq.Socket[bytes]) -> list[bytes]:
    """Answers each request with its text; returns them."""
    asked: list[bytes] = []
    while readable(replier):
        identity, body = replier.recv_multipart()
        asked.append(body)
        replier.send_multipart([identity, body])
    return asked


def accepted(relay: Relay, line: Line) -> sockets.socket:
    """The other end of a line, without libzmq; its successor may listen."""
    with sockets.socket(sockets.AF_UNIX) as listening:
        listening.bind(str(relay.address.path))
        listening.listen()
        relay.follow(line)
        relay.turn(lambda: relay.lines.step(clock.monotonic_ns()) is None)
        connection, _ = listening.accept()
    relay.address.path.unlink()
    connection.send(b"\xff" + bytes(8) + b"\x7f\x03\x01NULL" + bytes(48) + b"\x04\x06\x05READY")
    relay.turn(lambda: isinstance(line, IpcLine) and line.ready)
    return connection


def subscribed(relay: Relay, publisher: zmq.Socket[bytes]) -> bytes:
    relay.turn(lambda: readable(publisher))
    return publisher.recv()


def test_requests_and_replies_keep_their_order(relay: Relay, context: Context) -> None:
    replier = context.replier(relay.address)
    line = relay.lines.requester(relay.address)
    relay.follow(line)
    for body in texts(500):
        assert line.send(body)
    asked: list[bytes] = []

    def is_done() -> bool:
        asked.extend(answer_all(replier))
        return len(relay.received) == 500

    relay.turn(is_done)
    assert asked == texts(500)
    assert relay.received == [[body] for body in texts(500)]
    replier.close()


def test_the_other_end_knows_the_name(relay: Relay, context: Context) -> None:
    replier = context.replier(relay.address)
    line = relay.lines.requester(relay.address, "somebody")
    relay.follow(line)
    line.send(b"request")
    relay.turn(lambda: readable(replier))
    assert replier.recv_multipart() == [b"somebody", b"request"]
    replier.close()


@pytest.mark.parametrize("size", [0, 1, 255, 256, 65_536, 600_000])
def test_messages_of_any_size(relay: Relay, context: Context, size: int) -> None:
    replier = context.replier(relay.address)
    line = relay.lines.requester(relay.address)
    relay.follow(line)
    body = bytes(n % 251 for n in range(size))
    for _ in range(3):
        assert line.send(body)

    def is_done() -> bool:
        answer_all(replier)
        return len(relay.received) == 3

    relay.turn(is_done)
    assert relay.received == [[body]] * 3
    replier.close()


def test_a_line_connects_to_what_listens_later(relay: Relay, context: Context) -> None:
    line = relay.lines.requester(relay.address)
    relay.follow(line)
    line.send(b"early")
    relay.turn(lambda: relay.lines.step(clock.monotonic_ns()) is not None)
    replier = context.replier(relay.address)
    relay.turn(lambda: readable(replier))
    assert replier.recv_multipart()[1] == b"early"
    replier.close()


def test_what_waits_for_the_other_end_is_bounded(relay: Relay) -> None:
    line = relay.lines.requester(relay.address)
    relay.follow(line)
    for body in texts(REQUEST_HIGH_WATER):
        assert line.send(body)
    assert not line.send(b"one more")


def test_so_are_its_bytes(relay: Relay) -> None:
    line = relay.lines.requester(relay.address)
    sent = 0
    while line.send(bytes(1_000_000)):
        sent += 1
        assert sent < 100
    assert sent > 1


def test_a_replaced_replier_gets_what_is_sent_from_then_on(
    relay: Relay, context: Context, tmp_path: Path
) -> None:
    former = context.replier(relay.address)
    line = relay.lines.requester(relay.address, "somebody")
    relay.follow(line)
    line.send(b"one")
    relay.turn(lambda: readable(former))
    identity, _ = former.recv_multipart()
    former.send_multipart([identity, b"last words"])
    relay.turn(lambda: relay.received == [[b"last words"]])
    former.close()
    relay.turn(lambda: relay.lines.step(clock.monotonic_ns()) is not None)
    line.send(b"two")
    successor = context.replier(relay.address)
    relay.turn(lambda: readable(successor))
    assert successor.recv_multipart() == [b"somebody", b"two"]
    successor.close()


def test_a_stream_has_the_topics_that_are_subscribed(relay: Relay, context: Context) -> None:
    publisher = context.publisher(relay.address)
    line = relay.lines.subscriber(relay.address)
    relay.follow(line)
    line.subscribe(TOPIC)
    line.subscribe(b"can0/state;")
    line.unsubscribe(b"can0/state;")
    assert subscribed(relay, publisher) == b"\x01" + TOPIC
    line.subscribe(b"more;")
    assert subscribed(relay, publisher) == b"\x01more;"
    line.unsubscribe(b"more;")
    assert subscribed(relay, publisher) == b"\x00more;"
    for body in texts(1000):
        publisher.send_multipart([TOPIC, body])
    relay.turn(lambda: len(relay.received) == 1000)
    assert relay.received == [[TOPIC, body] for body in texts(1000)]
    publisher.close()


def test_a_stream_subscribes_again_at_a_successor(relay: Relay, context: Context) -> None:
    former = context.publisher(relay.address)
    line = relay.lines.subscriber(relay.address)
    relay.follow(line)
    line.subscribe(TOPIC)
    subscribed(relay, former)
    former.send_multipart([TOPIC, b"last words"])
    relay.turn(lambda: bool(relay.received))
    former.close()
    line.subscribe(b"later;")
    successor = context.publisher(relay.address)
    assert [subscribed(relay, successor) for _ in range(2)] == [b"\x01" + TOPIC, b"\x01later;"]
    successor.close()


def test_a_paused_line_is_not_read(relay: Relay, context: Context) -> None:
    publisher = context.publisher(relay.address)
    line = relay.lines.subscriber(relay.address)
    relay.follow(line)
    line.subscribe(TOPIC)
    subscribed(relay, publisher)
    line.pause()
    publisher.send_multipart([TOPIC, b"body"])
    assert relay.selector.wait(SECOND // 5) == []
    line.resume()
    relay.turn(lambda: relay.received == [[TOPIC, b"body"]])
    publisher.close()


def test_what_was_read_and_not_received_is_reported_after_a_pause(
    relay: Relay, context: Context
) -> None:
    publisher = context.publisher(relay.address)
    line = relay.lines.subscriber(relay.address)
    relay.follow(line)
    line.subscribe(TOPIC)
    subscribed(relay, publisher)
    publisher.send_multipart([TOPIC, b"1"])
    publisher.send_multipart([TOPIC, b"2"])
    relay.reads = False
    relay.turn(lambda: bool(relay.selector.wait(0)))
    first = line.receive()
    line.pause()
    line.resume()
    relay.reads = True
    relay.turn(lambda: len(relay.received) == (1 if first else 2))
    publisher.close()


def test_a_paused_line_is_present_with_a_successor(relay: Relay, context: Context) -> None:
    line = relay.lines.subscriber(relay.address)
    line.subscribe(TOPIC)
    connection = accepted(relay, line)
    line.pause()
    for body in texts(100):
        connection.sendall(bytes((1, len(TOPIC))) + TOPIC + encode(body))
    connection.close()
    successor = context.publisher(relay.address)
    assert subscribed(relay, successor) == b"\x01" + TOPIC
    successor.send_multipart([TOPIC, b"of the successor"])
    assert relay.received == []
    line.resume()
    relay.turn(lambda: len(relay.received) == 101)
    assert relay.received == [[TOPIC, body] for body in (*texts(100), b"of the successor")]
    successor.close()


def test_a_message_that_was_written_in_part_is_sent_again_whole(
    relay: Relay, context: Context
) -> None:
    line = relay.lines.requester(relay.address)
    connection = accepted(relay, line)
    body = bytes(n % 251 for n in range(900_000))
    assert line.send(body)
    connection.recv(10_000)
    connection.close()
    relay.turn(lambda: relay.lines.step(clock.monotonic_ns()) is not None)
    replier = context.replier(relay.address)
    relay.turn(lambda: readable(replier))
    assert replier.recv_multipart()[1] == body
    replier.close()


def test_who_does_not_speak_the_protocol_is_left(relay: Relay) -> None:
    listening = sockets.socket(sockets.AF_UNIX)
    listening.bind(str(relay.address.path))
    listening.listen()
    line = relay.lines.requester(relay.address)
    relay.follow(line)
    connection, _ = listening.accept()
    connection.send(b"HTTP/1.1 400 Bad Request\r\n" * 4)
    relay.turn(lambda: relay.lines.step(clock.monotonic_ns()) is not None)
    assert relay.received == []
    connection.close()
    listening.close()
