"""What subscribers may do wrong, or too much of: it is answered, and nobody else notices."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import psutil
import pytest
import zmq

from canbroker.delivery.publisher import MAX_ROUTES
from canbroker.delivery.state_feed import StateFeed
from canbroker.errors import CanInitializationError, CanOperationError
from canbroker.model import filters
from canbroker.model.filters import MAX_FILTERS
from canbroker.model.frame import FD, Frame
from canbroker.transport.address import parse_ipc
from canbroker.transport.sockets import Context, SharedContext
from canbroker.wire import stream, topics
from tests.support.brokers import wait_until
from tests.support.stations import (
    CHANNEL,
    STATE,
    Station,
    numbered,
    numbers,
    plain,
    ready,
    subscriber,
    take,
)

#: Fewer than a subscriber may have.
_WAITING = 1_500


@pytest.mark.parametrize(
    "topic", [b"can0/rx?zz;", b"can0/rx", b"", b"\xff\x00;", b"x" * 5000, b"can0/@a b;"]
)
def test_a_bad_topic_is_answered_on_itself(context: Context, endpoint: str, topic: bytes) -> None:
    with Station(endpoint) as station, subscriber(context, endpoint) as client:
        ready(client)
        with plain(context, endpoint, topic) as socket:
            answered, body = socket.recv_multipart()
            while answered != topic:  # the empty topic gets everything else as well
                answered, body = socket.recv_multipart()
            batch = stream.decode_batch(body)
            assert batch.kind == stream.ERROR
            assert "topic" in str(batch.payload)
        assert station.refused() == 1
        station.publish(numbered([0]))
        assert numbers(take(client, 1)) == [0]


def test_who_talks_to_a_stream_is_refused(context: Context, endpoint: str) -> None:
    with Station(endpoint) as station, subscriber(context, endpoint) as client:
        ready(client)
        with zmq.Context() as loud, loud.socket(zmq.XSUB) as socket:
            socket.connect(endpoint)
            for message in ([b"\x07hello"], [b""], [b"GET /", b"\x02", b""]):
                socket.send_multipart(message)
            wait_until(lambda: station.refused() >= 3, "it is refused")
            socket.close(linger=0)
        station.publish(numbered([0]))
        assert numbers(take(client, 1)) == [0]


def test_a_filter_may_be_spelled_otherwise(context: Context, endpoint: str) -> None:
    """As clients in other languages may: the answer comes on the topic that they know."""
    route, private = b"can0/rx?2:7ff,0001:07ff,1:7ff;", b"can0/@js?2:7ff,0001:07ff,1:7ff;"
    with Station(endpoint) as station, plain(context, endpoint, route, private) as socket:
        topic, body = socket.recv_multipart()
        while topic == route:  # heartbeats
            topic, body = socket.recv_multipart()
        assert topic == private
        assert stream.decode_event(body).payload == stream.ReadyEvent(0, STATE)
        assert station.here() == {"js"}
        station.publish([Frame(1, identifier, 0, b"") for identifier in range(4)])
        batch = stream.decode_batch(socket.recv_multipart()[1])
        while batch.kind == stream.HEARTBEAT:
            batch = stream.decode_batch(socket.recv_multipart()[1])
        assert [f.arbitration_id for f in batch.payload if isinstance(f, Frame)] == [1, 2]


def test_a_channel_has_so_many_routes_and_no_more(context: Context, endpoint: str) -> None:
    many = [topics.route_topic(CHANNEL, filters.parse(f"{n:x}:7ff")) for n in range(MAX_ROUTES)]
    with (
        Station(endpoint) as station,
        plain(context, endpoint, *many) as socket,
        subscriber(context, endpoint) as client,
    ):
        wait_until(lambda: station.routes() == MAX_ROUTES, "all routes are open")
        with pytest.raises(CanOperationError, match=f"'can0' has {MAX_ROUTES} routes"):
            ready(client)
        ready(client, "5:7ff")  # shares one
        with pytest.raises(CanOperationError, match=f"{MAX_ROUTES} routes"):
            ready(client, "7ff:7ff")
        station.publish(numbered([5], identifiers=2048))
        assert numbers(take(client, 1)) == [5]
        socket.unsubscribe(many[0])
        wait_until(lambda: station.routes() == MAX_ROUTES - 1, "there is room")
        ready(client, "7ff:7ff")
        station.publish(numbered([0x7FF], identifiers=2048))
        assert numbers(take(client, 1)) == [0x7FF]


def test_the_longest_set_of_filters_fits_a_topic(context: Context, endpoint: str) -> None:
    text = ",".join(f"x{n:08x}:1fffffff^" for n in range(0x800, 0x800 + MAX_FILTERS))
    with Station(endpoint) as station, subscriber(context, endpoint) as client:
        ready(client, text)
        assert station.routes() == 1
        assert client.filters is not None
        assert len(client.filters.filters) == MAX_FILTERS


def test_the_state_is_published_while_someone_listens(context: Context, endpoint: str) -> None:
    topic = topics.state_topic(CHANNEL)
    with Station(endpoint, epoch=3) as station:
        feed = StateFeed(context, parse_ipc(endpoint), topic)
        bodies: list[bytes] = []

        def heard() -> bool:
            station.do(lambda publisher: publisher.state(STATE))
            body = feed.receive()
            bodies.extend([body] if body else [])
            return bool(body)

        wait_until(heard, "the state arrives")
        assert stream.decode_event(bodies[0]) == stream.EventBody(1, stream.EVENT, 3, 0, 0, STATE)
        with plain(context, endpoint, b"can0/state?;") as other:
            assert other.recv_multipart()[0] == b"can0/state?;"
        wait_until(heard, "the state still arrives")
        feed.close()


def test_what_waits_for_a_client_takes_little_more_than_itself(
    context: Context, endpoint: str
) -> None:
    """By default it would keep the 8 KiB alive that libzmq has read with it."""
    with (
        closing(SharedContext()) as ours,
        Station(endpoint) as station,
        subscriber(context, endpoint) as other,
    ):
        ready(other)
        route = topics.route_topic(CHANNEL, filters.EVERYTHING)
        with plain(ours, endpoint, route, b"can0/@idle;") as socket:
            while socket.recv_multipart()[0] == route:
                pass  # heartbeats; then the answer: it is subscribed
            before = psutil.Process().memory_info().rss
            for _ in range(_WAITING):
                station.publish([Frame(1, 0, FD, bytes(64))])
                take(other, 1)  # so that each is read alone
            grown = psutil.Process().memory_info().rss - before
            assert grown < _WAITING * 8192 / 2
            waiting = 0
            while waiting < _WAITING:
                frames = stream.decode_batch(socket.recv_multipart()[1]).payload
                waiting += isinstance(frames, list) and len(frames)


def test_a_directory_that_is_not_there_is_named(context: Context, tmp_path: Path) -> None:
    missing = f"ipc://{tmp_path}/no/can0.rx"
    with pytest.raises(CanInitializationError, match=missing):
        Station(missing)
