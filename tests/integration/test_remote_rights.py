"""What remote users may do, over real sockets: the gateway, its actors, and clients of any kind."""

from __future__ import annotations

import json
import re
import time
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import can
import msgspec
import pytest

import canbroker
from canbroker import Bus, BusState, CanPermissionError, Message
from canbroker.actors.gateway.methods import METHODS, Serves
from canbroker.actors.gateway.shares import MOST
from canbroker.actors.gateway.upstream import MAX_TOPICS
from canbroker.keys.authorized import Role
from canbroker.model.filters import EVERYTHING
from canbroker.model.frame import Frame
from canbroker.transport.runtime import Runtime
from canbroker.wire import control, stream, topics, transmit
from canbroker.wire.status import BrokerStatus
from canbroker.wire.tasks import StopTasks
from tests.support.brokers import private_runtime, status_of, wait_until
from tests.support.commands import run
from tests.support.remote import Lab, lab
from tests.support.remote_users import RemoteUser, authorize, wait_until_in_force
from tests.support.users import LEAST_ROLE, calls

pytestmark = pytest.mark.long

CONFIG: Final = """
[channels.can0]
interface = "virtual"
channel = "can0"
pool = "bench"

[channels.can1]
interface = "virtual"
channel = "can1"
pool = "bench"
"""

#: "Milliseconds", on a machine that does other things, too.
SOON_S: Final = 2.0

BOB: Final = 'role = "transmit"\ntransmit = ["100-1FF", "x18DA0000-18DAFFFF"]\nchannels = ["can0"]'
EVE: Final = 'role = "transmit"'


class Bench:
    """A lab with two new users: bob, and eve with every right to transmit."""

    def __init__(self, opened: Lab) -> None:
        self.lab = opened
        self.bob = RemoteUser(opened, "bob")
        self.eve = RemoteUser(opened, "eve")
        self.grant(BOB)

    def grant(self, bob: str, *others: tuple[RemoteUser, str]) -> None:
        """Gives bob, and others, another role; returns when that is in force."""
        users = ((self.bob, bob), (self.eve, EVE), *others)
        authorize(*users)
        for user, rights in users:
            wait_until_in_force(user, tomllib.loads(rights)["role"])

    def newcomer(self, name: str) -> RemoteUser:
        """One more user, with bob's rights: under this name nothing was counted so far."""
        made = RemoteUser(self.lab, name)
        self.grant(BOB, (made, BOB))
        return made

    def audit(self) -> list[dict[str, Any]]:
        """The lines of the audit log."""
        return [json.loads(line) for line in self.audit_text().splitlines()]

    def audit_text(self) -> str:
        return self.lab.runtime.audit_path.read_text()

    def local(self) -> Bus:
        return Bus("can0", broker=str(self.lab.runtime.address))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    directory = tmp_path_factory.mktemp("keys")
    with private_runtime() as runtime, lab(runtime, directory, config=CONFIG) as opened:
        with Bus("can0", broker=str(runtime.address)) as bus:
            bus.send_periodic(message(1), 0.5)  # starts the scheduler, which stays
        yield opened


@pytest.fixture
def bench(shared: Lab) -> Bench:
    return Bench(shared)


def message(identifier: int, *, extended: bool = False) -> Message:
    return Message(arbitration_id=identifier, data=b"\x01", is_extended_id=extended)


# --------------------------------------------------------------------------------- for bus users


def test_frames_within_the_ranges_and_others(bench: Bench) -> None:
    with bench.local() as local, bench.bob.acting() as address, Bus("can0", broker=address) as bus:
        bus.send(message(0x123), timeout=5)
        bus.send(message(0x18DA0001, extended=True), timeout=5)
        began = time.monotonic()
        with pytest.raises(CanPermissionError, match="'bob' may not transmit 223") as raised:
            bus.send(message(0x223), timeout=5)
        assert time.monotonic() - began < SOON_S
        error = raised.value
        assert (error.name, error.role, error.identifier) == ("bob", "transmit", 0x223)
        with pytest.raises(CanPermissionError, match="may not transmit 00000123"):
            bus.send(message(0x123, extended=True), timeout=5)
        bus.send(message(0x124), timeout=5)
        received = [local.recv(5) for _ in range(3)]
        assert [m.arbitration_id for m in received if m] == [0x123, 0x18DA0001, 0x124]
        assert (bus.stats.sent, bus.stats.failed) == (3, 2)


def test_a_refused_frame_holds_up_nothing(bench: Bench) -> None:
    with bench.bob.acting() as address, Bus("can0", broker=address) as bus:
        bus.send(message(0x123))
        bus.send(message(0x223))
        began = time.monotonic()
        bus.flush_tx_buffer()  # waits until the channel knows of the last request
        assert time.monotonic() - began < SOON_S
        with pytest.raises(CanPermissionError, match="223#01 was not sent"):
            _send_until_refused(bus)


def _send_until_refused(bus: Bus) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        bus.send(message(0x123), timeout=5)


def test_what_a_role_does_not_have(bench: Bench) -> None:
    bench.grant('role = "observe"')
    with bench.bob.acting() as address:
        with Bus("can0", broker=address) as bus, bench.local() as local:
            local.send(message(0x300))
            got = bus.recv(5)
            assert got is not None
            assert got.arbitration_id == 0x300
            with pytest.raises(CanPermissionError, match="'bob' may not transmit 123"):
                bus.send(message(0x123), timeout=5)
            with pytest.raises(CanPermissionError, match="'bob' may not start periodic tasks"):
                bus.send_periodic(message(0x123), 0.1)
            with pytest.raises(CanPermissionError, match="may not change the state of a channel"):
                bus.state = BusState.PASSIVE
            assert bus.state is BusState.ACTIVE
        with pytest.raises(CanPermissionError, match="may not have the sole right to transmit"):
            Bus("can0", broker=address, exclusive=True)
        with pytest.raises(CanPermissionError, match="'bob' may not lease channels"):
            canbroker.lease("bench", 1, broker=address)
        with pytest.raises(CanPermissionError, match="'bob' may not open adapters") as raised:
            Bus("other", "virtual", broker=address)
        assert isinstance(raised.value, canbroker.CanInitializationError)


def test_tasks_within_the_ranges_and_others(bench: Bench) -> None:
    with (
        bench.bob.acting() as address,
        Bus("can0", broker=address) as bus,
        bench.local() as local,
    ):
        task = bus.send_periodic(message(0x123), 0.01)
        assert local.recv(5) is not None
        with pytest.raises(CanPermissionError, match="'bob' may not transmit 223"):
            bus.send_periodic(message(0x223), 0.01)
        task.stop()


def test_channels_outside_of_the_grant_are_not_there(bench: Bench) -> None:
    with bench.bob.acting() as address:
        with pytest.raises(CanPermissionError, match="'bob' may not use channel 'can1'"):
            Bus("can1", broker=address)
        with canbroker.lease("bench", 5, broker=address) as lease:
            assert lease.channel == "can0"
            with pytest.raises(canbroker.CanTimeoutError) as raised:
                canbroker.lease("bench", 0, broker=address)
            assert "can1" not in str(raised.value)
    with bench.bob.socket("broker") as socket:
        reply = socket.call("status", control.Params())
        status = msgspec.msgpack.decode(reply.result, type=BrokerStatus)
        assert [channel.name for channel in status.channels] == ["can0"]
        assert status.pools == {"bench": ["can0"]}
        assert b"can1" not in bytes(reply.result)
        assert status.gateway is None


def test_two_users_do_not_touch_each_others_things(bench: Bench) -> None:
    with (
        bench.bob.acting() as address,
        Bus("can0", broker=address) as bus,
        bench.local() as local,
    ):
        bus.send_periodic(message(0x123), 0.01)
        assert local.recv(5) is not None
        (bobs,) = [
            client.client_id
            for client in status_of(bench.lab.runtime).channels[0].clients
            if client.client_id.startswith(bench.bob.owner)
        ]
        with bench.eve.socket("scheduler.ctl") as scheduler, bench.eve.socket("can0.ctl") as ctl:
            for socket, method, params in (
                (scheduler, "task_stop", StopTasks(client_id=bobs)),
                (ctl, "discard", control.Discard(client_id=bobs, token=0)),
            ):
                error = socket.error(method, params)
                assert error is not None
                assert error.code == "forbidden"
                assert error.message == f"'eve' may not act for client {bobs!r}"
        for _ in range(20):
            assert local.recv(5) is not None  # it goes on


def test_python_cans_users_catch_its_own_errors(bench: Bench) -> None:
    message = can.Message(arbitration_id=0x223, is_extended_id=False)
    with bench.bob.acting() as address:
        bus = can.Bus("can0", interface="canbroker", broker=address)
        with (
            bus,
            pytest.raises(can.CanOperationError, match="'bob' may not transmit 223") as raised,
        ):
            bus.send(message, timeout=5)
        assert isinstance(raised.value.__cause__, CanPermissionError)
        with pytest.raises(can.CanInitializationError, match="may not use channel 'can1'"):
            can.Bus("can1", interface="canbroker", broker=address)


def test_the_status_shows_who_was_refused(bench: Bench) -> None:
    frank = bench.newcomer("frank")
    with frank.acting() as address:
        refused = run("stop", "--broker", address)
        assert refused.returncode == 1
        assert "'frank' may not stop the broker" in refused.stderr

    def page() -> str:
        told = run("status", "--broker", str(bench.lab.runtime.address))
        assert told.returncode == 0, told.stderr
        return told.stdout

    wait_until(lambda: re.search(r"refused to frank: \d+ role", page()), "it is shown", timeout=20)


# ---------------------------------------------------------------------------- message by message


@pytest.mark.parametrize("role", Role)
def test_every_method_by_every_role(bench: Bench, role: Role) -> None:
    bench.grant(f'role = "{role}"')
    mine = bench.bob.new_id()
    for serves, name in (
        (Serves.CONTROL, "can0.ctl"),
        (Serves.SCHEDULER, "scheduler.ctl"),
        (Serves.BROKER, "broker"),
    ):
        with bench.bob.socket(name) as socket:
            for method in METHODS[serves]:
                if method == "shutdown" and role >= Role.ADMIN:
                    continue
                error = socket.error(method, calls(mine)[method])
                least = LEAST_ROLE[serves][method]
                is_refused = error is not None and error.code == "forbidden"
                assert is_refused is (least is None or role < least), (method, error)


def test_an_admin_stops_the_broker(runtime: Runtime, tmp_path: Path) -> None:
    with lab(runtime, tmp_path, config=CONFIG) as opened:
        bench = Bench(opened)
        bench.grant('role = "admin"')
        with bench.bob.socket("broker") as socket:
            assert socket.error("shutdown", control.Params()) is None


def test_requests_to_transmit_for_others(bench: Bench) -> None:
    eves, mine = bench.eve.new_id(), bench.bob.new_id()
    frame = Frame(0, 0x123, 0, b"\x01")
    with bench.bob.socket("can0.tx") as socket:
        for client_id, origins in ((eves, []), ("scheduler", [mine]), (mine, [eves]), ("x", [])):
            socket.send(transmit.encode_request(client_id, 1, 0, [frame], 0, origins))
            parts = socket.receive()
            assert parts is not None
            reply = transmit.decode_reply(parts[0])
            assert (reply.token, reply.status) == (1, transmit.Status.NOT_PERMITTED)
            assert reply.reason.startswith("'bob' may not act for client ")
            assert reply.forbidden is not None
        socket.send(transmit.encode_request(mine, 2, 0, [frame], 0))
        while (parts := socket.receive()) is not None:
            reply = transmit.decode_reply(parts[0])
            if reply.token == 2:
                break
        assert parts is not None
        assert reply.status == transmit.Status.OK


def test_topics_of_others(bench: Bench) -> None:
    eves = bench.eve.new_id()
    refused = [
        topics.private_topic("can0", eves, EVERYTHING),
        topics.private_topic("can0", eves, EVERYTHING, "me"),
        topics.left_topic("can0", eves),
        topics.route_topic("can1", EVERYTHING),
        b"c",
        b"can0/@",
    ]
    with bench.bob.socket("can0.rx") as socket:
        for topic in refused:
            socket.send(b"\x01" + topic)
            parts = socket.receive()
            assert parts is not None
            assert parts[0] == topic
            assert stream.decode_batch(parts[1]).kind == stream.ERROR
        socket.send(b"\x01" + topics.state_topic("can0"))
        parts = socket.receive()
        assert parts is not None
        event = stream.decode_event(parts[1])
        assert isinstance(event.payload, stream.StateEvent)
        assert event.payload.clients == []
    with bench.bob.socket("can1.rx") as socket:
        topic = topics.route_topic("can1", EVERYTHING)
        socket.send(b"\x01" + topic)
        parts = socket.receive()
        assert parts is not None
        assert stream.decode_batch(parts[1]).payload == "'bob' may not use channel 'can1'"
        assert socket.receive(500) is None


def test_other_names_than_those_of_sockets(bench: Bench) -> None:
    names = ("lock", "tasks.db", "../secret.rx", "audit.log", "broker.ctl", "scheduler.tx", "")
    for name in names:
        with bench.bob.socket(name) as socket:
            socket.send(control.encode_request(1, "hello", control.Params()))
            assert socket.receive(300) is None


def test_a_stolen_routing_id_ends_both(bench: Bench) -> None:
    secret = "ab" * 16
    with bench.bob.socket("broker", secret) as bobs:
        assert bobs.error("hello", control.Params()) is None
        with bench.eve.socket("broker", secret) as eves:
            eves.send(control.encode_request(1, "hello", control.Params()))
            wait_until(lambda: "stolen" in bench.audit_text(), "the theft is written down")
            assert eves.receive(500) is None
    (line, *_) = [line for line in bench.audit() if line.get("kind") == "stolen"]
    assert line["why"].endswith("has used a socket's secret of another key")
    assert secret not in bench.audit_text()


def test_garbage_on_every_socket_harms_nobody(bench: Bench) -> None:
    with bench.local() as local, Bus("can0", broker=str(bench.lab.runtime.address)) as other:
        for name in ("broker", "scheduler.ctl", "can0.ctl", "can0.tx", "can0.rx"):
            with bench.bob.socket(name) as socket:
                for body in (b"", b"\xc1" * 50, b"\x91" * 5000, b"\x01" * 40_000, bytes(1 << 19)):
                    socket.send(body)
                    socket.send(body, body)
                socket.receive(200)
        local.send(message(0x42), timeout=5)
        assert other.recv(5) is not None
        wait_until_in_force(bench.bob, "transmit")
    gateway = status_of(bench.lab.runtime).gateway
    assert gateway is not None
    assert gateway.restarts == 0


# ------------------------------------------------------------------------------- changes of rights


def test_a_right_that_is_taken_away_ends_what_was_begun_with_it(bench: Bench) -> None:
    with (
        bench.eve.acting() as address,
        Bus("can0", broker=address) as bus,
        bench.local() as local,
    ):
        bus.send_periodic(message(0x223), 0.01)
        assert local.recv(5) is not None
        authorize((bench.bob, BOB), (bench.eve, 'role = "observe"'))

        def is_silent() -> bool:
            while local.recv(0) is not None:
                pass
            return local.recv(0.3) is None

        wait_until(is_silent, "the task ends", timeout=15)
        wait_until(lambda: _refuses(bus), "the role is in force", timeout=15)


def _refuses(bus: Bus) -> bool:
    try:
        bus.send(message(0x223), timeout=1)
    except CanPermissionError as error:
        return error.role == "observe"
    except canbroker.CanError:
        return False
    return False


def test_a_right_that_is_added_is_there_without_a_new_connection(bench: Bench) -> None:
    with bench.bob.acting() as address, Bus("can0", broker=address) as bus:
        with pytest.raises(CanPermissionError):
            bus.send(message(0x223), timeout=5)
        task = bus.send_periodic(message(0x123), 0.01)
        before = bus.stats.restarts
        authorize((bench.bob, 'role = "transmit"'), (bench.eve, EVE))

        def is_permitted() -> bool:
            try:
                bus.send(message(0x223), timeout=5)
            except CanPermissionError:
                return False
            return True

        wait_until(is_permitted, "the range is gone", timeout=15)
        assert bus.stats.restarts == before
        task.stop()


def test_a_revoked_key_is_cut_off_even_where_it_was_silent(bench: Bench) -> None:
    with bench.bob.socket("broker") as first, bench.bob.socket("can0.ctl") as silent:
        assert first.error("hello", control.Params()) is None
        authorize((bench.eve, EVE))
        wait_until(
            lambda: any(
                line["event"] == "rights" and line["user"] == "bob" and line["role"] == "none"
                for line in bench.audit()
            ),
            "the change is in force",
            timeout=15,
        )
        for socket in (first, silent):
            socket.send(control.encode_request(2, "hello", control.Params()))
            assert socket.receive(500) is None


# ------------------------------------------------------------------------------- what is told of it


def test_refusals_are_counted_and_written_down(bench: Bench) -> None:
    grace = bench.newcomer("grace")
    with grace.acting() as address, Bus("can0", broker=address) as bus:
        for _ in range(5):
            with pytest.raises(CanPermissionError):
                bus.send(message(0x223), timeout=5)

        def counted() -> int:
            gateway = status_of(bench.lab.runtime).gateway
            return 0 if gateway is None else gateway.refusals.get("grace", {}).get("transmit", 0)

        wait_until(lambda: counted() == 5, "they are counted")
        log = bench.lab.runtime.audit_path
        assert log.stat().st_mode & 0o777 == 0o600

        def written() -> int:
            return sum(
                line.get("count", 1)
                for line in bench.audit()
                if (line["user"], line.get("kind")) == ("grace", "transmit")
            )

        wait_until(lambda: written() == 5, "they are written down")
    with bench.eve.acting() as address, canbroker.lease("bench", 5, broker=address):
        pass
    bench.grant(BOB, (grace, 'role = "observe"'))
    events = {(line["event"], line["user"]) for line in bench.audit()}
    assert {
        ("connect", "grace"),
        ("refused", "grace"),
        ("lease", "eve"),
        ("rights", "grace"),
    } <= events
    text = log.read_text()
    for user in (grace, bench.eve):
        assert str(user.key) in text
        assert user.secret.reveal_text() not in text


def test_a_stranger_is_written_down(bench: Bench) -> None:
    stranger = RemoteUser(bench.lab, "nobody")
    with stranger.socket("broker") as socket:
        socket.send(control.encode_request(1, "hello", control.Params()))
        wait_until(
            lambda: any(
                line["event"] == "unauthorized" and line["key"] == str(stranger.key)
                for line in bench.audit()
            ),
            "it is written down",
        )


# ----------------------------------------------------------------------------------------- shares


def test_a_user_has_a_share_of_the_clients_of_a_channel(bench: Bench) -> None:
    user = bench.newcomer("greedy")
    ids = [user.new_id() for _ in range(MOST + 1)]
    with user.socket("broker") as broker:
        errors = [
            broker.error(
                "attach", control.Attach(client_id=each, pid=1, program="x", channel="can0")
            )
            for each in ids
        ]
    assert errors[:-1] == [None] * MOST
    assert errors[-1] is not None
    assert errors[-1].code == "limit"
    with ExitStack() as stack:
        for start in range(0, MOST, MAX_TOPICS):
            socket = stack.enter_context(user.socket("can0.rx"))
            for each in ids[start : start + MAX_TOPICS]:
                socket.send(b"\x01" + topics.private_topic("can0", each, EVERYTHING))
            for _ in range(MAX_TOPICS):
                assert socket.receive() is not None, "ready"
        one_more = stack.enter_context(user.socket("can0.rx"))
        topic = topics.private_topic("can0", ids[-1], EVERYTHING)
        one_more.send(b"\x01" + topic)
        answer = one_more.receive()
        assert answer is not None
        assert answer[0] == topic
        assert "has 256 clients of the channel" in str(stream.decode_batch(answer[1]).payload)
        with bench.eve.acting() as address, Bus("can0", broker=address) as bus:
            bus.send(message(0x123), timeout=5)
    wait_until(lambda: _refused(bench, "greedy").get("limit") == 1, "it is counted")


def _refused(bench: Bench, name: str) -> dict[str, int]:
    gateway = status_of(bench.lab.runtime).gateway
    return {} if gateway is None else gateway.refusals.get(name, {})
