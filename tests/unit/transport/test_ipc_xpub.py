"""An XPUB without libzmq, to sockets of libzmq: the same topics reach the same subscribers."""

from __future__ import annotations

import logging
import random
import socket as sockets
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zmq

from canbroker.system import clock
from canbroker.system.portable import PORTABLE
from canbroker.system.throttle import Throttle
from canbroker.transport.address import IpcAddress
from canbroker.transport.ipc_xpub import IpcXpub
from canbroker.transport.kept_out import KeptOut
from canbroker.transport.sockets import MAX_SUBSCRIPTION_BYTES, STREAM_HIGH_WATER
from canbroker.transport.subscriptions import Subscription
from canbroker.transport.waiter import Waiter
from canbroker.transport.zmtp import encode, opening

pytestmark = pytest.mark.skipif(PORTABLE, reason="sockets are not Unix sockets")

LIMIT = 10

Event = tuple[bytes, bool]


class Mast:
    """A publishing socket, and what was subscribed to."""

    def __init__(self, path: Path) -> None:
        self.refused = Throttle(logging.getLogger("test"))
        self.xpub = IpcXpub(IpcAddress(path), KeptOut(), LIMIT, self.refused)
        self.endpoint = f"ipc://{path}"
        self.subscriptions: list[Subscription] = []
        self._waiter = Waiter()
        self.xpub.watch(self._waiter)

    @property
    def events(self) -> list[Event]:
        return [(topic, begins) for topic, begins, _ in self.subscriptions]

    def serve(self, until: Callable[[], object], at_most: int = 16) -> None:
        end = clock.monotonic_ns() + 20 * clock.SECOND
        while not until():
            assert clock.monotonic_ns() < end
            if self._waiter.wait(clock.SECOND // 100):
                self.subscriptions += self.xpub.events(at_most)


@pytest.fixture
def mast(tmp_path: Path) -> Iterator[Mast]:
    made = Mast(tmp_path / "socket")
    yield made
    made.xpub.close()


@pytest.fixture
def context() -> Iterator[zmq.Context[zmq.Socket[bytes]]]:
    made = zmq.Context[zmq.Socket[bytes]]()
    yield made
    made.destroy(linger=0)


Connect = Callable[..., "zmq.Socket[bytes]"]


@pytest.fixture
def connect(context: zmq.Context[zmq.Socket[bytes]], mast: Mast) -> Connect:
    opened = []

    def connect(*topics: bytes, kind: int = zmq.SUB) -> zmq.Socket[bytes]:
        made = context.socket(kind)
        opened.append(made)
        made.setsockopt(zmq.RCVTIMEO, 20_000)
        made.connect(mast.endpoint)
        for topic in topics:
            made.send(b"\x01" + topic) if kind == zmq.XSUB else made.subscribe(topic)
        return made

    return connect


@pytest.mark.parametrize("kind", [zmq.SUB, zmq.XSUB])
def test_a_topic_is_received_by_who_subscribed_to_what_it_begins_with(
    mast: Mast, connect: Connect, kind: int
) -> None:
    whole, begin, all_, other = (
        connect(topic, kind=kind) for topic in (b"can0/rx;", b"can0/", b"", b"can1/rx;")
    )
    mast.serve(lambda: len(mast.events) == 4)
    for topic, body in ((b"can0/rx;", b"1"), (b"can", b"2"), (b"can1/rx;", b"x" * 300)):
        mast.xpub.publish(topic, body)
    assert whole.recv_multipart() == begin.recv_multipart() == [b"can0/rx;", b"1"]
    assert [all_.recv_multipart()[1] for _ in range(3)] == [b"1", b"2", b"x" * 300]
    assert other.recv_multipart() == [b"can1/rx;", b"x" * 300]


def test_as_libzmq_has_it(mast: Mast, connect: Connect) -> None:
    """Random subscriptions, ends and topics: each receives what it would receive from libzmq."""
    chance = random.Random(24)

    def topic() -> bytes:
        return bytes(chance.choice(b"ab") for _ in range(chance.randrange(4)))

    subscribers = [connect(b"end") for _ in range(4)]
    kept: list[list[bytes]] = [[] for _ in subscribers]
    for _ in range(60):
        for own, socket in zip(kept, subscribers, strict=True):
            if own and chance.random() < 0.4:
                own.remove(ended := chance.choice(own))
                socket.unsubscribe(ended)
            else:
                own.append(begun := topic())
                socket.subscribe(begun)
        mark = b"mark%d" % chance.randrange(1 << 30)
        for socket in subscribers:
            socket.subscribe(mark)
        mast.serve(lambda: mast.events.count((mark, True)) == len(kept))  # noqa: B023
        published = [topic() for _ in range(10)]
        for each in published:
            mast.xpub.publish(each, b"body")
        mast.xpub.publish(b"end", b"body")
        for own, socket in zip(kept, subscribers, strict=True):
            received = list(iter(lambda: socket.recv_multipart()[0], b"end"))  # noqa: B023
            assert received == [one for one in published if one.startswith(tuple(own))]


def test_each_beginning_is_told_and_only_the_last_end(mast: Mast, connect: Connect) -> None:
    one, two = connect(b"a"), connect(b"a")
    mast.serve(lambda: mast.events == [(b"a", True)] * 2)
    one.unsubscribe(b"a")
    one.subscribe(b"b")
    mast.serve(lambda: mast.events[2:] == [(b"b", True)])
    one.subscribe(b"a")
    mast.serve(lambda: mast.events[3:] == [(b"a", True)])
    one.unsubscribe(b"a")
    two.close(linger=0)
    mast.serve(lambda: mast.events[4:] == [(b"a", False)])
    one.close(linger=0)
    mast.serve(lambda: mast.events[5:] == [(b"b", False)])
    mast.xpub.publish(b"a", b"nobody hears it")


def test_who_follows_the_last_one_at_once_is_told_of_after_it(mast: Mast) -> None:
    """Whoever is told of the end drops the topic."""
    path = mast.endpoint.removeprefix("ipc://")
    with sockets.socket(sockets.AF_UNIX) as next_one:
        with sockets.socket(sockets.AF_UNIX) as last:
            last.connect(path)
            next_one.connect(path)
            last.sendall(opening("SUB") + encode(b"\x01a"))
            next_one.sendall(opening("SUB"))
            mast.serve(lambda: mast.events == [(b"a", True)])
        next_one.sendall(encode(b"\x01a"))
        mast.serve(lambda: len(mast.events) == 3)
        assert mast.events[1:] == [(b"a", False), (b"a", True)]


def test_the_ends_of_a_connection_come_little_by_little(mast: Mast, connect: Connect) -> None:
    peer = connect(*(b"%d" % number for number in range(20)))
    mast.serve(lambda: len(mast.events) == 20)
    peer.close(linger=0)
    mast.serve(lambda: len(mast.events) > 20, at_most=3)
    assert len(mast.events) <= 23
    assert mast.xpub.has_more
    mast.serve(lambda: len(mast.events) == 40, at_most=3)
    assert sorted(topic for topic, begins in mast.events if not begins) == sorted(
        topic for topic, begins in mast.events if begins
    )


def test_who_does_not_read_loses_messages_whole(mast: Mast, connect: Connect) -> None:
    slow, fast = connect(), connect(b"t")
    slow.setsockopt(zmq.RCVHWM, 1)
    slow.subscribe(b"t")
    mast.serve(lambda: len(mast.events) == 2)
    total = 3 * STREAM_HIGH_WATER
    for number in range(total):
        mast.xpub.publish(b"t", number.to_bytes(4, "big") + bytes(1000))
        assert int.from_bytes(fast.recv_multipart()[1][:4], "big") == number
    got: list[int] = []
    slow.setsockopt(zmq.RCVTIMEO, 10)

    def last() -> bool:
        mast.xpub.publish(b"t", total.to_bytes(4, "big"))
        while slow.poll(0):
            topic, body = slow.recv_multipart()
            assert topic == b"t"
            assert len(body) in {4, 1004}
            got.append(int.from_bytes(body[:4], "big"))
        return got[-1:] == [total]

    mast.serve(last)
    received = [number for number in got if number < total]
    assert received == list(range(len(received))), "the oldest are kept"
    assert STREAM_HIGH_WATER < len(received) < total


def test_who_talks_to_it_is_refused(mast: Mast, connect: Connect) -> None:
    peer = connect(kind=zmq.XSUB)
    for parts in ([b"\x07hello"], [b""], [b"\x01GET /", b"\x02"]):
        peer.send_multipart(parts)
    mast.serve(lambda: mast.refused.counts.total() == 3)
    assert mast.events == []
    for _ in range(LIMIT):
        peer.send(b"\x02")
    mast.serve(lambda: mast.refused.counts["connection ended"])


def test_a_subscription_that_is_refused_counts(mast: Mast, connect: Connect) -> None:
    connect(b"x" * 256 * LIMIT)
    mast.serve(lambda: mast.events)
    (subscription,) = mast.subscriptions
    assert not mast.xpub.is_ended(subscription)
    mast.xpub.refuse(subscription)
    assert mast.xpub.is_ended(subscription)
    assert mast.refused.counts["connection ended"] == 1
    mast.serve(lambda: len(mast.events) == 2)


def test_a_topic_that_is_too_long_ends_its_connection(mast: Mast, connect: Connect) -> None:
    peer = connect(b"x" * MAX_SUBSCRIPTION_BYTES)
    mast.serve(lambda: len(mast.xpub))
    mast.serve(lambda: not len(mast.xpub))
    assert mast.events == []
    peer.close(linger=0)
