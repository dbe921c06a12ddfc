"""The broker's sockets as the gateway uses them: topics once, requests for the past in turn."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import pytest
import zmq

from canbroker.actors.gateway.shares import Shares
from canbroker.actors.gateway.upstream import (
    MAX_QUEUED,
    MAX_TOPICS,
    ControlUpstream,
    RefusedError,
    StreamUpstream,
    TransmitUpstream,
    Upstream,
)
from canbroker.system import clock
from canbroker.system.clock import SECOND
from canbroker.transport.address import IpcAddress
from canbroker.transport.lines import Lines
from canbroker.transport.selector import SocketSelector
from canbroker.transport.sockets import Context, readable
from canbroker.wire import control
from canbroker.wire.replay import Replay

PATIENCE_NS = 20 * SECOND
PEER = b"can0.ctl/" + b"0" * 32


class Gateway:
    """Receives by upstream sockets as a gateway does."""

    def __init__(self) -> None:
        self.selector = SocketSelector[object]()
        self.lines = Lines(self.selector, 64)
        self._received: defaultdict[object, deque[list[bytes]]] = defaultdict(deque)

    def follow(self, upstream: Upstream) -> None:
        upstream.line.report_to(upstream)

    def turn(self) -> None:
        """Receives for a moment."""
        self.lines.step(clock.monotonic_ns())
        for upstream in cast("list[Upstream]", self.selector.wait(SECOND // 100)):
            while (parts := upstream.receive()) is not None:
                self._received[upstream].append(list(parts))

    def next(self, upstream: Upstream) -> list[bytes]:
        """The next message for the client."""
        self.until(lambda: bool(self._received[upstream]))
        return self._received[upstream].popleft()

    def until(self, condition: Callable[[], bool]) -> None:
        until = clock.monotonic_ns() + PATIENCE_NS
        while not condition():
            assert clock.monotonic_ns() < until
            self.turn()

    def close(self) -> None:
        self.lines.close()
        self.selector.close()


class Channel:
    """A socket of the broker's side."""

    def __init__(self, gateway: Gateway, socket: zmq.Socket[bytes]) -> None:
        self.socket = socket
        self._gateway = gateway

    def next(self) -> list[bytes]:
        self._gateway.until(lambda: readable(self.socket))
        return self.socket.recv_multipart()

    def is_silent(self) -> bool:
        until = clock.monotonic_ns() + SECOND // 10
        while clock.monotonic_ns() < until:
            self._gateway.turn()
        return not readable(self.socket)


@pytest.fixture
def context() -> Iterator[Context]:
    made = Context()
    yield made
    made.close()


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    made = Gateway()
    yield made
    made.close()


# --------------------------------------------------------------------------------------- streams


@pytest.fixture
def stream(
    context: Context, gateway: Gateway, tmp_path: Path
) -> Iterator[tuple[StreamUpstream, Channel]]:
    address = IpcAddress(tmp_path / "rx")
    channel = Channel(gateway, context.publisher(address))
    upstream = StreamUpstream(gateway.lines, address, Shares().of("bob", "can0"))
    gateway.follow(upstream)
    yield upstream, channel
    upstream.close()
    channel.socket.close()


def test_a_repeated_topic_is_passed_on_once(stream: tuple[StreamUpstream, Channel]) -> None:
    upstream, channel = stream
    for _ in range(3):
        upstream.forward(b"\x01can0/rx;")
    assert channel.next() == [b"\x01can0/rx;"]
    upstream.forward(b"\x00can0/rx;")
    upstream.forward(b"\x00can0/rx;")
    upstream.forward(b"\x01can0/state;")
    assert [channel.next() for _ in range(2)] == [[b"\x00can0/rx;"], [b"\x01can0/state;"]]
    assert channel.is_silent()


def test_topic_and_body_are_passed_to_the_client(
    stream: tuple[StreamUpstream, Channel], gateway: Gateway
) -> None:
    upstream, channel = stream
    upstream.forward(b"\x01can0/rx;")
    channel.next()
    channel.socket.send_multipart([b"can0/rx;", b"body"])
    assert gateway.next(upstream) == [b"can0/rx;", b"body"]


@pytest.mark.parametrize("message", [b"", b"\x02topic", b"topic"])
def test_what_is_not_a_subscription_is_refused(
    stream: tuple[StreamUpstream, Channel], message: bytes
) -> None:
    with pytest.raises(RefusedError, match="a subscriber may only subscribe"):
        stream[0].forward(message)


def test_topics_are_bounded(stream: tuple[StreamUpstream, Channel]) -> None:
    for number in range(MAX_TOPICS):
        stream[0].forward(b"\x01%d;" % number)
    with pytest.raises(RefusedError, match=f"more than {MAX_TOPICS} topics"):
        stream[0].forward(b"\x01one more;")


# --------------------------------------------------------------------------------------- control


@pytest.fixture
def called(
    context: Context, gateway: Gateway, tmp_path: Path
) -> Iterator[tuple[ControlUpstream, Channel]]:
    address = IpcAddress(tmp_path / "ctl")
    channel = Channel(gateway, context.replier(address))
    upstream = ControlUpstream(gateway.lines, address, PEER)
    gateway.follow(upstream)
    yield upstream, channel
    upstream.close()
    channel.socket.close()


def replay(number: int) -> bytes:
    params = Replay(topic="can0/rx;", epoch=1, first_seq=number, end_seq=number + 1)
    return control.encode_request(number, "replay", params)


def number_of(message: list[bytes]) -> int:
    return control.decode_request(message[1]).id


def test_requests_for_the_past_are_passed_on_one_by_one(
    called: tuple[ControlUpstream, Channel], gateway: Gateway
) -> None:
    upstream, channel = called
    for number in (1, 2, 3):
        upstream.forward(replay(number))
    for number in (1, 2, 3):
        asked = channel.next()
        assert number_of(asked) == number
        assert channel.is_silent()
        reply = control.encode_reply(number, control.Nothing())
        channel.socket.send_multipart([asked[0], reply])
        assert gateway.next(upstream) == [reply]


def test_other_requests_do_not_wait_for_the_past(called: tuple[ControlUpstream, Channel]) -> None:
    upstream, channel = called
    upstream.forward(replay(1))
    upstream.forward(replay(2))
    upstream.forward(control.encode_request(3, "hello", control.Params()))
    assert [number_of(channel.next()) for _ in range(2)] == [1, 3]


def test_a_request_that_is_never_answered_does_not_hold_up_the_next(
    called: tuple[ControlUpstream, Channel],
) -> None:
    upstream, channel = called
    upstream.forward(replay(1))
    upstream.forward(replay(2))
    assert number_of(channel.next()) == 1
    upstream.step(clock.monotonic_ns())
    assert channel.is_silent()
    upstream.step(clock.monotonic_ns() + 2 * SECOND)
    assert number_of(channel.next()) == 2


def test_queued_requests_are_bounded(called: tuple[ControlUpstream, Channel]) -> None:
    for number in range(MAX_QUEUED + 1):
        called[0].forward(replay(number))
    with pytest.raises(RefusedError, match="too many requests for frames of the past"):
        called[0].forward(replay(MAX_QUEUED + 1))


def test_a_look_whether_the_client_is_there_ends_here(
    called: tuple[ControlUpstream, Channel], gateway: Gateway
) -> None:
    upstream, channel = called
    upstream.forward(control.encode_request(1, "hello", control.Params()))
    identity, _ = channel.next()
    reply = control.encode_reply(1, control.Nothing())
    for body in (control.NOTHING, reply):
        channel.socket.send_multipart([identity, body])
    assert gateway.next(upstream) == [reply]


def test_a_client_has_the_same_identity_after_the_gateway_was_restarted(
    called: tuple[ControlUpstream, Channel], gateway: Gateway, tmp_path: Path
) -> None:
    upstream, channel = called
    upstream.forward(control.encode_request(1, "hello", control.Params()))
    before = channel.next()[0]
    upstream.close()
    successor = ControlUpstream(gateway.lines, IpcAddress(tmp_path / "ctl"), PEER)
    gateway.follow(successor)
    successor.forward(control.encode_request(1, "hello", control.Params()))
    assert channel.next()[0] == before
    assert PEER.partition(b"/")[2] not in before, "it is no way to find out the secret"
    successor.close()


# -------------------------------------------------------------------------------------- transmit


def test_each_connection_to_transmit_is_another_one_for_the_channel(
    context: Context, gateway: Gateway, tmp_path: Path
) -> None:
    address = IpcAddress(tmp_path / "tx")
    channel = Channel(gateway, context.replier(address))
    upstreams = [TransmitUpstream(gateway.lines, address) for _ in range(2)]
    for upstream in upstreams:
        gateway.follow(upstream)
        upstream.forward(b"request")
    senders = {channel.next()[0] for _ in upstreams}
    assert len(senders) == 2
    for upstream in upstreams:
        upstream.close()
    channel.socket.close()
