"""Answers that do not follow the protocol: what users see of them is a documented error."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from canbroker import Bus, BusState, CanOperationError, Message
from canbroker.bus.channel_clock import ChannelClock
from canbroker.bus.channel_watch import ChannelWatch
from canbroker.delivery.asker import Asker
from canbroker.delivery.order import Order, Part
from canbroker.delivery.subscriber import Identity, Subscriber
from canbroker.model.filters import EVERYTHING
from canbroker.system import clock
from canbroker.system.wake import Wake
from canbroker.transport.address import parse_ipc
from canbroker.transport.links import KeepingLink
from canbroker.transport.runtime import Runtime
from canbroker.transport.sockets import Context
from canbroker.transport.stream_link import StreamLink
from canbroker.transport.waiter import Waiter
from canbroker.wire import topics
from canbroker.wire.control import Reply
from canbroker.wire.stream import StateEvent, encode_event
from tests.support.systems import natively

PATIENCE_NS = 20 * clock.SECOND

#: What somebody says who is no channel actor, or one of another version.
GARBLED = [
    b"HTTP/1.1 400 Bad Request",
    b"\x90",
    msgspec.msgpack.encode((99, 1, True, b"")),
    # Well-formed replies whose content is not.
    msgspec.msgpack.encode(Reply(version=1, id=1, ok=False, result=msgspec.Raw(b"\x01"))),
    msgspec.msgpack.encode(Reply(version=1, id=1, ok=True, result=msgspec.Raw(b"\x01"))),
]


@contextmanager
def answering(endpoint: str, answer: bytes) -> Iterator[None]:
    """Somebody who answers every request with the same bytes."""
    stop = Wake()

    def serve() -> None:
        context = Context()
        router = context.replier(parse_ipc(endpoint))
        waiter = Waiter()
        waiter.add(router)
        waiter.add(stop)
        listening.set()
        while stop not in (ready := waiter.wait(None)):
            if router in ready:
                identity, *_ = router.recv_multipart()
                router.send_multipart([identity, answer])
        router.close()
        context.close()

    listening = threading.Event()
    server = threading.Thread(target=serve)
    server.start()
    try:
        assert listening.wait(20)
        yield
    finally:
        stop.set()
        server.join()
        stop.close()


@pytest.mark.parametrize("answer", GARBLED)
def test_the_control_socket(runtime: Runtime, tmp_path: Path, answer: bytes) -> None:
    endpoint = f"ipc://{runtime.directory}/x.bad"
    with Bus("x", "virtual") as bus, answering(endpoint, answer):
        attached = bus._connection.attached
        bus._connection.attached = msgspec.structs.replace(attached, control=endpoint)
        with pytest.raises(CanOperationError):
            bus.state = BusState.ACTIVE
        bus._connection.attached = attached
        bus.state = BusState.ACTIVE


@natively  # by names of Unix sockets
@pytest.mark.parametrize("answer", GARBLED[:3])
def test_the_transmit_socket(runtime: Runtime, answer: bytes) -> None:
    endpoint = f"ipc://{runtime.directory}/x.bad"
    with Bus("x", "virtual") as bus, answering(endpoint, answer):
        link = bus._connection.transmitter._link
        assert isinstance(link, KeepingLink)
        link.socket.disconnect(bus._connection.attached.transmit)
        link.socket.connect(endpoint)
        with pytest.raises(CanOperationError, match="transmit reply"):
            bus.send(Message(arbitration_id=1), timeout=20)
        link.socket.disconnect(endpoint)
        link.socket.connect(bus._connection.attached.transmit)
        # Who has the frame does not answer; what is sent from now on is confirmed.
        bus._connection.transmitter._give_up("it was sent to somebody else")
        bus.send(Message(arbitration_id=2), timeout=20)


def test_the_state(tmp_path: Path) -> None:
    """It is passed over, as if nothing had been said."""
    context = Context()
    endpoint = f"ipc://{tmp_path}/rx"
    channel = context.publisher(parse_ipc(endpoint))
    waiter = Waiter()
    waiter.add(channel)
    topic = topics.state_topic("can0")
    watch = ChannelWatch(context, parse_ipc(endpoint), "can0", ChannelClock(is_ours=True))
    try:
        assert waiter.wait(PATIENCE_NS)
        assert channel.recv() == b"\1" + topic
        event = StateEvent(state="error", reason="unplugged", monotonic_ns=clock.monotonic_ns())
        for garbled in GARBLED:
            channel.send_multipart([topic, garbled])
        channel.send_multipart([topic, encode_event(1, event)])
        watch.wait_for("error", clock.monotonic_ns() + PATIENCE_NS)
        assert watch.problem() == "unplugged"
    finally:
        watch.close()
        channel.close()
        context.close()


@pytest.mark.parametrize("answer", GARBLED)
def test_the_past(tmp_path: Path, answer: bytes) -> None:
    context = Context()
    control = f"ipc://{tmp_path}/ctl"
    client = Subscriber(
        StreamLink(context, parse_ipc(f"ipc://{tmp_path}/rx")),
        Identity("can0", "c1"),
        lambda: Asker(context, parse_ipc(control), "c1"),
    )
    wake = Wake()
    try:
        with answering(control, answer):
            with pytest.raises(CanOperationError, match="can0"):
                client.remember(1.0, clock.monotonic_ns() + PATIENCE_NS)
            client.order = Order(repairs=True)
            client.order.begin(1, 0)
            client._route = topics.route_topic("can0", EVERYTHING)
            client.order.add(Part(1, 5, ()))
            with pytest.raises(CanOperationError, match="can0"):
                _receive(client, wake)
    finally:
        wake.close()
        client.close()
        context.close()


def _receive(client: Subscriber, wake: Wake) -> None:
    """Receives until something is raised, or for long enough."""
    deadline = clock.monotonic_ns() + PATIENCE_NS
    while clock.remaining_ns(deadline):
        client.receive()
        client.wait(wake, clock.MILLISECOND)
