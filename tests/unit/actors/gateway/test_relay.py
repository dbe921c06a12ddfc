"""Sessions of a relay without a network: clients are scripted, the broker's sockets are real."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from canbroker.actors.gateway import relay as module
from canbroker.actors.gateway import session as session_module
from canbroker.actors.gateway import shares, upstream
from canbroker.actors.gateway.audit import Audit
from canbroker.actors.gateway.relay import Relay
from canbroker.actors.gateway.users import Users
from canbroker.keys.authorized import AuthorizedFile
from canbroker.model.key import PublicKey
from canbroker.system import endpoint_files
from canbroker.system.portable import PORTABLE
from canbroker.transport.front import Arrival, Sent
from canbroker.transport.loopback import FabricKey
from canbroker.transport.selector import SocketSelector
from canbroker.transport.zap import Peer
from canbroker.wire import control

BOB, EVE = (PublicKey(bytes([n]) * 32) for n in (5, 7))
BOBS, EVES = (Peer(name, 3, key, "192.0.2.1") for name, key in (("bob", BOB), ("eve", EVE)))
GARBAGE = b"\xc1"


class ScriptedFront:
    """Stands for :class:`canbroker.transport.front.Front`: what it receives and sends is lists."""

    def __init__(self) -> None:
        self.arrivals: list[Arrival] = []
        self.sent: list[tuple[bytes, Sequence[bytes]]] = []
        self.hung_up: list[int] = []
        self.outcome = Sent.QUEUED
        self.socket = self

    def receive(self, *, is_reported: bool = False) -> Arrival | None:
        del is_reported
        return self.arrivals.pop(0) if self.arrivals else None

    def send(self, peer: bytes, parts: Sequence[bytes]) -> Sent:
        if self.outcome is Sent.QUEUED:
            self.sent.append((peer, parts))
        return self.outcome

    def hang_up(self, connection: int) -> None:
        self.hung_up.append(connection)


class Selector(SocketSelector[object]):
    """``looks``: whether it will look at the front's socket, which is scripted."""

    looks = False

    def used(self, socket: object) -> None:
        if isinstance(socket, ScriptedFront):
            self.looks = True
        else:
            super().used(socket)  # type: ignore[arg-type] # a real one

    def seen(self, socket: object) -> None:
        assert isinstance(socket, ScriptedFront)
        self.looks = False


class House:
    """A relay, its users bob and eve, and what it does."""

    def __init__(self, directory: Path) -> None:
        self.file = file = directory / "authorized.toml"
        file.write_text(
            f'[bob]\nkeys = ["{BOB}"]\nrole = "observe"\n[eve]\nkeys = ["{EVE}"]\nrole = "admin"\n'
        )
        file.chmod(0o600)
        if PORTABLE:  # else there would be no connection that requests wait for
            FabricKey.make(directory)
            endpoint_files.publish(directory / "broker", "tcp://127.0.0.1:1")
        self.front = ScriptedFront()
        self.users = Users(AuthorizedFile(file), Audit(directory / "audit.log"), encrypted=True)
        self.selector = Selector()
        self.relay = Relay(self.front, directory, self.users, self.selector)  # type: ignore[arg-type]

    def arrive(
        self, number: int, body: bytes | None, peer: Peer = BOBS, socket: str = "broker"
    ) -> None:
        routing_id = f"{socket}/{number:032x}".encode()
        self.front.arrivals.append(Arrival(routing_id, str(peer), number, body))
        self.relay.receive()

    def close(self) -> None:
        self.relay.close()
        self.users.close()
        self.selector.close()


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path)
    yield made
    made.close()


def hello() -> bytes:
    return control.encode_request(1, "hello", control.Params())


def test_a_user_has_half_of_the_sessions_at_most(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_SESSIONS", 8)
    for number in range(20):
        house.arrive(number, hello())
    assert len(house.relay.sessions) == 4
    assert house.front.hung_up == list(range(4, 20))
    for number in range(20, 30):
        house.arrive(number, hello(), EVES)
    assert [session.name for session in house.relay.sessions.values()] == ["bob"] * 4 + ["eve"] * 4


def test_refused_messages_without_end_end_the_session(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_module, "_MAX_REFUSED", 10)
    for _ in range(10):
        house.arrive(1, GARBAGE)
    assert (len(house.relay.sessions), house.front.hung_up) == (1, [])
    house.arrive(1, GARBAGE)
    assert (len(house.relay.sessions), house.front.hung_up) == (0, [1])
    assert house.users.refused["bob"]["malformed"] == 11
    assert len(house.front.sent) == 10


def test_an_answer_that_has_no_room_waits(house: House) -> None:
    house.front.outcome = Sent.FULL
    house.arrive(1, GARBAGE)
    (session,) = house.relay.sessions.values()
    assert session.stalled
    house.front.outcome = Sent.QUEUED
    house.relay.step(0)
    assert len(house.front.sent) == 1
    assert not session.stalled


def test_the_front_is_looked_at_after_sending_what_had_waited(house: House) -> None:
    """Sending takes the signal of what has arrived meanwhile."""
    house.front.outcome = Sent.FULL
    house.arrive(1, GARBAGE)
    assert not house.selector.looks
    house.front.outcome = Sent.QUEUED
    house.relay.step(0)
    assert house.selector.looks


def test_the_front_is_looked_at_after_looking_for_a_client(house: House) -> None:
    house.arrive(1, hello())
    house.relay.ended([1])
    assert not house.selector.looks
    house.relay.step(0)
    assert house.front.sent, "the probe"
    assert house.selector.looks


def test_who_reads_no_answers_gets_no_more(house: House) -> None:
    house.front.outcome = Sent.FULL
    house.arrive(1, GARBAGE)
    house.arrive(1, GARBAGE)
    assert (len(house.relay.sessions), house.front.hung_up) == (0, [1])


def test_a_user_has_a_share_of_a_channel(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shares, "MOST", 2)
    for number in range(4):
        house.arrive(number, b"\x01can0/rx?%x:7ff;" % number, socket="can0.rx")
    assert len(house.relay.sessions) == 4, "nobody is disconnected for that"
    assert [parts[0] for _, parts in house.front.sent] == [b"can0/rx?2:7ff;", b"can0/rx?3:7ff;"]
    assert all(b"2 routes of the channel" in parts[1] for _, parts in house.front.sent)
    assert house.users.refused["bob"]["limit"] == 2
    house.arrive(9, b"\x01can0/rx?2:7ff;", EVES, socket="can0.rx")
    assert len(house.front.sent) == 2
    house.arrive(0, None, socket="can0.rx")  # which ends that session
    house.arrive(3, b"\x01can0/rx?3:7ff;", socket="can0.rx")
    assert len(house.front.sent) == 2


@pytest.mark.parametrize("peer", [Peer("bob", 4, PublicKey(b"\x09" * 32), ""), EVES])
def test_a_socket_of_another_key_ends_both(house: House, peer: Peer) -> None:
    house.arrive(1, hello())
    routing_id = next(iter(house.relay.sessions))
    house.front.arrivals.append(Arrival(routing_id, str(peer), 2, hello()))
    house.relay.receive()
    assert house.relay.sessions == {}
    assert sorted(house.front.hung_up) == [1, 2]
    assert house.users.refused[peer.name]["stolen"] == 1


def test_the_same_key_may_come_back(house: House) -> None:
    house.arrive(1, hello())
    house.arrive(1, hello(), BOBS._replace(number=9))
    assert len(house.relay.sessions) == 1


@pytest.mark.parametrize("loses", [True, False])
def test_who_has_lost_a_right_comes_back_as_another_peer(
    house: House, loses: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    known_as: list[bytes] = []
    made = upstream.ControlUpstream.__init__

    def make(self: upstream.ControlUpstream, *arguments: Any) -> None:
        known_as.append(arguments[-1])
        made(self, *arguments)

    monkeypatch.setattr(upstream.ControlUpstream, "__init__", make)
    house.arrive(1, hello(), EVES)
    role = "transmit" if loses else "admin"
    house.file.write_text(f'[eve]\nkeys = ["{EVE}"]\nrole = "{role}"\nchannels = ["can0"]\n')
    if not loses:
        house.file.write_text(f'[eve]\nkeys = ["{EVE}", "{BOB}"]\nrole = "admin"\n')
    assert any(house.users.follow() for _ in range(3))
    house.relay.follow_rights()
    assert len(house.relay.sessions) == (0 if loses else 1)
    house.arrive(1, hello(), EVES)
    assert len(known_as) == len(set(known_as)) == (2 if loses else 1)


@pytest.mark.parametrize("socket", ["lock", "audit.log", "broker.ctl", "..", "x" * 40 + ".rx"])
def test_other_files_are_no_sockets(house: House, socket: str) -> None:
    house.arrive(1, hello(), socket=socket)
    assert (len(house.relay.sessions), house.front.hung_up) == (0, [1])


def test_several_parts_end_the_session(house: House) -> None:
    house.arrive(1, None)
    assert (len(house.relay.sessions), house.front.hung_up) == (0, [1])


def test_neither_a_repr_nor_the_log_has_a_secret(
    house: House, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    secret = f"{1:032x}"
    house.arrive(1, hello())
    (session,) = house.relay.sessions.values()
    shown = f"{session!r} {house.relay!r} {house.users!r}"
    house.arrive(1, None)
    house.users.step(0)
    shown += caplog.text + (tmp_path / "audit.log").read_text()
    assert "bob" in shown
    assert secret not in shown
