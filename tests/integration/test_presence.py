"""Who is on a channel: seen by the subscription to a private topic, and by nothing else."""

from __future__ import annotations

from canbroker import Bus
from canbroker.model.filters import parse
from canbroker.transport.address import parse_ipc
from canbroker.transport.runtime import Runtime
from canbroker.transport.sockets import Context
from canbroker.wire import topics
from canbroker.wire.stream import LeftEvent, decode_event
from tests.support.brokers import status_of, wait_until


def clients_of(runtime: Runtime) -> list[str]:
    (channel,) = status_of(runtime).channels
    return [client.client_id for client in channel.clients]


def test_a_client_that_is_subscribed_twice_leaves_once(runtime: Runtime, context: Context) -> None:
    """As one is that was interrupted while it subscribed, or comes back on a new connection
    before the old one is closed."""
    with Bus("x", "virtual") as bus:
        (channel,) = status_of(runtime).channels
        sockets = [context.subscriber(parse_ipc(channel.stream)) for _ in range(3)]
        topic = topics.private_topic(channel.name, "twice", parse("100:7ff"))
        for socket in sockets:
            socket.subscribe(topic)
            socket.poll(10_000)  # it is answered
        wait_until(lambda: "twice" in clients_of(runtime), "the broker has heard of it")
        for socket in sockets:
            socket.close()
        wait_until(lambda: len(clients_of(runtime)) == 1, "it has left")
        assert not bus.stats.lost


def test_who_asks_is_told_when_a_client_has_left(runtime: Runtime, context: Context) -> None:
    with Bus("x", "virtual"):
        (channel,) = status_of(runtime).channels
        client, asking = (context.subscriber(parse_ipc(channel.stream)) for _ in range(2))
        private = topics.private_topic(channel.name, "leaver", parse("100:7ff"))
        client.subscribe(private)
        assert client.poll(10_000)
        asking.subscribe(topics.left_topic(channel.name, "leaver"))
        assert not asking.poll(300)  # it is present
        client.unsubscribe(private)
        assert asking.poll(10_000)
        topic, body = asking.recv_multipart()
        assert topic == topics.left_topic(channel.name, "leaver")
        assert decode_event(body).payload == LeftEvent("leaver")
        asking.subscribe(topics.left_topic(channel.name, "stranger"))  # never was present
        assert asking.poll(10_000)
        assert decode_event(asking.recv_multipart()[1]).payload == LeftEvent("stranger")
        assert not asking.poll(300)  # it is said once
        client.close()
        asking.close()
