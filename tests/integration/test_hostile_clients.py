"""Whatever a client sends to whatever listens: others go on, and memory stays bounded.

``python -m tests.hostile`` shows the figures.
"""

from __future__ import annotations

import subprocess
import sys
import time

import msgpack
import pytest
import zmq
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from canbroker import Bus, Message
from canbroker.delivery.publisher import MAX_CLIENTS, MAX_ROUTES
from canbroker.errors import CanInitializationError, CanOperationError
from canbroker.model.filters import EVERYTHING
from canbroker.transport.address import parse_ipc
from canbroker.transport.routers import MAX_REFUSED
from canbroker.transport.runtime import Runtime
from canbroker.transport.sockets import Context
from canbroker.transport.xpub import MAX_REFUSED as MAX_SUBSCRIPTIONS_REFUSED
from canbroker.wire import MAX_MESSAGE_BYTES, control, stream, topics, transmit
from tests import hostile
from tests.support.brokers import status_of, wait_until
from tests.support.stations import CHANNEL, Station, plain, ready, subscriber

pytestmark = pytest.mark.long

#: What an attack may cost a process: queues of the attacker, and topics that it has subscribed to.
BOUND = 200 << 20

METHODS = [
    *(name for name in control.BROKER_METHODS if name not in {"shutdown", "attach"}),
    *("set_state", "discard", "replay", "history", "repeat", "repeat_stop", "repeat_counts"),
    *("task_add", "task_modify", "task_stop", "task_list"),
]
FIELDS = ["client_id", "task", "pid", "state", "topic", "seconds", "epoch", "messages", "token"]
LEAVES = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.binary()
VALUES = st.recursive(
    LEAVES | st.text(max_size=20) | st.sampled_from(["c1", "active", "virtual.x/rx;"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(FIELDS), inner),
    max_leaves=8,
)
BODIES = (
    st.binary(max_size=200)
    | st.lists(VALUES, max_size=9).map(msgpack.packb)
    | st.tuples(
        st.just(1),
        st.integers(0, 2**64 - 1),
        st.sampled_from(METHODS),
        st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=4),
    ).map(msgpack.packb)
)


@pytest.mark.parametrize("attack", hostile.ATTACKS)
def test_an_attack_disturbs_nobody(runtime: Runtime, attack: str) -> None:
    with Bus("x", "virtual") as sender, Bus("x", "virtual") as receiver:
        found = hostile.measure(attack, runtime, sender, receiver)
        assert receiver.stats.lost == 0
        assert receiver.stats.restarts == 0
    assert found.grown < BOUND
    # Wide: the attacker takes one of two processors, and other tests the other.
    assert found.during[0] < 50 * max(found.before[0], 1)


ENDLESS = """
import sys, zmq
topic, endpoint, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
context = zmq.Context()
peer = context.socket(zmq.XSUB)
peer.setsockopt(zmq.SNDHWM, 0)  # it drops subscriptions beyond it
peer.connect(endpoint)
for number in range(count):
    peer.send(f"\\x01{topic}/rx?{number:x}:1fffffff;".encode())
sys.stdin.read()
context.destroy(linger=0)
"""


def test_who_subscribes_without_end_is_hung_up_on(runtime: Runtime) -> None:
    def has_room() -> bool:
        try:
            with Bus("x", "virtual", can_filters=[{"can_id": 1, "can_mask": 0x7FF}]) as other:
                bus.send(Message(arbitration_id=1), timeout=30)
                return other.recv(30) is not None
        except CanInitializationError as error:
            if "1024 routes, the limit" not in str(error):
                raise
            return False

    with Bus("x", "virtual") as bus:
        (channel,) = status_of(runtime).channels
        command = [sys.executable, "-c", ENDLESS, channel.name, channel.stream]
        with subprocess.Popen([*command, str(MAX_ROUTES)], stdin=subprocess.PIPE) as greedy:
            wait_until(lambda: "routes, the limit" in runtime.log_path.read_text(), "all are taken")
            assert not has_room()
            greedy.communicate()
        wait_until(has_room, "they are free again")
        count = str(MAX_ROUTES + 2 * MAX_SUBSCRIPTIONS_REFUSED)
        with subprocess.Popen([*command, count], stdin=subprocess.PIPE) as endless:
            wait_until(
                lambda: "connection ended" in runtime.log_path.read_text(), "it is hung up on"
            )
            wait_until(has_room, "there is room while it is still there")
            endless.communicate()
        assert bus.stats.restarts == 0


def test_every_request_is_answered_whatever_it_is(runtime: Runtime, context: Context) -> None:
    with Bus("x", "virtual") as bus:
        bus.send_periodic(Message(arbitration_id=0x70), 60).stop()  # starts the scheduler
        status = status_of(runtime)
        (channel,) = status.channels
        controls = [channel.control, status.scheduler.control, str(runtime.address)]
        peers = [
            context.requester(parse_ipc(endpoint)) for endpoint in (channel.transmit, *controls)
        ]
        for peer in peers:
            peer.setsockopt(zmq.RCVTIMEO, 20_000)

        @settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow])
        @given(st.lists(BODIES, min_size=1, max_size=3))
        def answered(parts: list[bytes]) -> None:
            time.sleep(1 / MAX_REFUSED)  # who is faster is taken for an attack
            for peer in peers:
                peer.send_multipart(parts)
            reply = transmit.decode_reply(peers[0].recv())
            assert reply.status == transmit.Status.MALFORMED
            for peer in peers[1:]:
                assert control.decode_reply(peer.recv()).version == 1

        answered()
        for peer in peers:
            peer.close()
        bus.send(Message(arbitration_id=1), timeout=20)


def test_every_topic_leaves_room_for_the_next(context: Context, endpoint: str) -> None:
    spelled = st.text("can0/rxste@!?:;,^-0f%", max_size=60).map(lambda text: text.encode())
    queries = spelled.map(lambda text: b"can0/rx?" + text + b";")

    with Station(endpoint) as station:

        @settings(max_examples=100)
        @given(st.binary(max_size=100) | spelled | queries)
        def taken(topic: bytes) -> None:
            with plain(context, endpoint, topic), subscriber(context, endpoint) as client:
                ready(client)

        taken()
        wait_until(lambda: station.routes() == 0, "all have left")


def test_a_channel_has_so_many_clients_and_no_more(context: Context, endpoint: str) -> None:
    names = [f"c{number}" for number in range(MAX_CLIENTS)]
    many = [topics.private_topic(CHANNEL, name, EVERYTHING) for name in names]
    with Station(endpoint) as station, plain(context, endpoint, *many) as socket:
        wait_until(lambda: station.here() == set(names), "all are there")
        with (
            subscriber(context, endpoint, "late") as client,
            pytest.raises(CanOperationError, match="1,024 clients, the limit"),
        ):
            ready(client)
        assert "late" not in station.here()
        socket.unsubscribe(many[0])
        wait_until(lambda: "c0" not in station.here(), "there is room")
        with subscriber(context, endpoint, "late") as client:
            ready(client)
            assert "late" in station.here()


def test_a_topic_that_is_too_long_ends_its_connection_only(context: Context, endpoint: str) -> None:
    with Station(endpoint) as station, subscriber(context, endpoint) as client:
        with zmq.Context() as other, other.socket(zmq.SUB) as peer:
            monitor = peer.get_monitor_socket(zmq.EVENT_DISCONNECTED)
            peer.connect(endpoint)
            peer.subscribe(b"x" * 2 * topics.MAX_TOPIC_BYTES)
            assert monitor.poll(20_000), "the connection is closed"
            peer.disable_monitor()
            monitor.close()
        ready(client)
        assert not station.refused()


def test_the_state_with_all_its_clients_fits_a_message() -> None:
    clients = [stream.ClientInfo(f"{number:032}", "x" * 512) for number in range(MAX_CLIENTS)]
    event = stream.StateEvent(state="active", clients=clients)
    assert len(stream.encode_event(1, event)) < MAX_MESSAGE_BYTES
