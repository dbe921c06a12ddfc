"""Verdicts on what remote users send, message by message. No sockets."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from canbroker.actors.gateway import methods
from canbroker.actors.gateway.methods import METHODS, RULES, Rule, Serves, User
from canbroker.actors.gateway.policy import (
    Answer,
    Close,
    Pass,
    Refused,
    RemoteSocket,
    Verdict,
    judge,
    loses,
)
from canbroker.errors import CanPermissionError
from canbroker.keys.authorized import Role
from canbroker.model.filters import EVERYTHING
from canbroker.model.frame import ERROR, EXTENDED, REMOTE, Frame
from canbroker.transport.place import stem_of
from canbroker.wire import control, replay, stream, tasks, topics, transmit
from canbroker.wire.transmit import Status, encode_request
from tests.support.users import FRAME, LEAST_ROLE, calls, client_of, user

BROKER = RemoteSocket(Serves.BROKER)
SCHEDULER = RemoteSocket(Serves.SCHEDULER)
STREAM = RemoteSocket(Serves.STREAM, "can0")
TRANSMIT = RemoteSocket(Serves.TRANSMIT, "can0")
CONTROL = RemoteSocket(Serves.CONTROL, "can0")

SOCKETS = {Serves.BROKER: BROKER, Serves.CONTROL: CONTROL, Serves.SCHEDULER: SCHEDULER}
BOB = user()
EVE = user("eve")
LOCAL = "0123456789ab"  # as local clients have them
EVES = f"{EVE.owner}AAAAAAAA"


def call(someone: User, socket: RemoteSocket, method: str, params: control.Params) -> Verdict:
    return judge(someone, socket, control.encode_request(7, method, params))


def passed(verdict: Verdict, socket: RemoteSocket) -> Any:
    """The parameters that are passed on."""
    assert isinstance(verdict, Pass), verdict
    request = control.decode_request(verdict.body)
    assert request.id == 7
    return control.decode_params(request, METHODS[socket.serves])


def error_of(verdict: Verdict) -> control.ErrorResult:
    """The error that the user is answered with."""
    assert isinstance(verdict, Answer), verdict
    (body,) = verdict.parts
    reply = control.decode_reply(body)
    assert (reply.id, reply.ok) == (7, False)
    return msgspec.msgpack.decode(reply.result, type=control.ErrorResult)


def denied(verdict: Verdict) -> str:
    """The sentence of a call that the user may not make."""
    error = error_of(verdict)
    assert error.code == "forbidden"
    assert isinstance(verdict, Answer)
    assert verdict.refused is not None
    assert verdict.refused.sentence == error.message
    return error.message


def sent(someone: User, frames: list[Frame], **changes: Any) -> Verdict:
    client_id = changes.pop("client_id", client_of(someone))
    return judge(someone, TRANSMIT, encode_request(client_id, 5, 0, frames, epoch=9, **changes))


def subscribed(someone: User, topic: bytes, socket: RemoteSocket = STREAM) -> Verdict:
    return judge(someone, socket, b"\x01" + topic)


# ----------------------------------------------------------------------------- roles and methods


def test_every_method_of_the_protocol_has_a_rule() -> None:
    of_the_wire = [
        table
        for module in (control, replay, tasks)
        for name, table in vars(module).items()
        if name.endswith("_METHODS")
    ]
    assert {m for table in of_the_wire for m in table} == {
        method for table in METHODS.values() for method in table
    }
    for serves, table in METHODS.items():
        assert set(table) == set(RULES[serves]) == set(LEAST_ROLE[serves])


def test_the_document_has_the_same_table() -> None:
    text = (Path(__file__).parents[4] / "docs/security.md").read_text()
    documented = {
        method: None if least == "nobody" else Role.parse(least)
        for methods_of, least in re.findall(r"^\| (`.*`) \| (\w+) \|$", text, re.MULTILINE)
        for method in re.findall(r"`(\w+)`", methods_of)
    }
    assert documented == {m: least for table in LEAST_ROLE.values() for m, least in table.items()}


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize(
    ("serves", "method"), [(serves, method) for serves in METHODS for method in METHODS[serves]]
)
def test_each_role_calls_the_methods_that_it_may(role: Role, serves: Serves, method: str) -> None:
    bob = user(role=role)
    params = calls(client_of(bob))[method]
    verdict = call(bob, SOCKETS[serves], method, params)
    least = LEAST_ROLE[serves][method]
    if least is not None and role >= least:
        assert type(passed(verdict, SOCKETS[serves])) is METHODS[serves][method]
    else:
        assert denied(verdict).startswith("'bob' may not ")


def test_a_method_that_is_added_later_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for serves, socket in SOCKETS.items():
        later = {**METHODS[serves], "later": control.Params}
        monkeypatch.setattr(methods, "METHODS", {**METHODS, serves: later})
        sentence = denied(call(user(role=Role.ADMIN), socket, "later", control.Params()))
        assert sentence == "'bob' may not call 'later': nobody may from outside"


def test_a_method_that_there_is_not_is_malformed() -> None:
    error = error_of(call(BOB, BROKER, "halt", control.Params()))
    assert error.code == "malformed"
    assert error.message.startswith("unknown method 'halt'; there are: hello, attach")


def test_a_refused_call_raises_an_error_that_says_whose_key_it_is() -> None:
    error = error_of(call(user(role=Role.OBSERVE), BROKER, "shutdown", control.Params()))
    raised = control.forbidden(error)
    assert isinstance(raised, CanPermissionError)
    assert (raised.name, raised.role, raised.identifier) == ("bob", "observe", None)
    assert str(raised) == "'bob' may not stop the broker: that needs the role admin, not observe"


def test_only_an_admin_opens_adapters() -> None:
    def attach(role: Role) -> Verdict:
        bob = user(role=role)
        params = control.Attach(
            client_id=client_of(bob), pid=4711, program="p", channel="x", interface="virtual"
        )
        return call(bob, BROKER, "attach", params)

    for role in (Role.OBSERVE, Role.TRANSMIT):
        needs = f"'bob' may not open adapters: that needs the role admin, not {role}"
        assert denied(attach(role)) == needs
    opened = passed(attach(Role.ADMIN), BROKER)
    assert (opened.interface, opened.as_it_is, opened.pid) == ("virtual", False, 0)


@pytest.mark.parametrize(
    ("channel", "parameters"),
    [
        ("spy:///dev/ptmx?file=/home/u/.profile", {}),
        (" SPY://x", {}),
        ("x", {"port": "Spy:///dev/ttyACM0?file=x", "bitrate": 500_000}),
    ],
)
def test_no_adapter_is_opened_that_writes_files(channel: str, parameters: dict[str, Any]) -> None:
    bob = user(role=Role.ADMIN)
    params = control.Attach(
        client_id=client_of(bob),
        pid=1,
        program="p",
        channel=channel,
        interface="slcan",
        parameters=parameters,
    )
    assert denied(call(bob, BROKER, "attach", params)).startswith("'bob' may not have files")


def test_others_join_a_channel_as_it_is() -> None:
    for role in (Role.OBSERVE, Role.TRANSMIT):
        bob = user(role=role)
        params = calls(client_of(bob))["attach"]
        assert passed(call(bob, BROKER, "attach", params), BROKER).as_it_is


def test_nothing_is_owned_by_a_process_of_another_host() -> None:
    mine = client_of(BOB)
    lease = control.TakeLease(lease_id=mine, pid=1, started=5, program="p", pool="bench")
    kept = passed(call(BOB, BROKER, "lease", lease), BROKER)
    assert (kept.pid, kept.started) == (None, 0)
    task = msgspec.structs.replace(calls(mine)["task_add"], pid=1)
    assert passed(call(BOB, SCHEDULER, "task_add", task), SCHEDULER).pid is None


# ------------------------------------------------------------------------------ whose client it is


OWNING = [
    *((BROKER, method) for method in ("attach", "detach", "lease", "release")),
    *((CONTROL, method) for method in ("replay", "discard")),
    *((SCHEDULER, method) for method in ("task_add", "task_modify", "task_stop")),
]


@pytest.mark.parametrize("role", [Role.TRANSMIT, Role.ADMIN])
@pytest.mark.parametrize(("socket", "method"), OWNING)
@pytest.mark.parametrize("other", [EVES, LOCAL, BOB.owner, "scheduler", "x"])
def test_nobody_acts_for_anothers_client(
    role: Role, socket: RemoteSocket, method: str, other: str
) -> None:
    bob = user(role=role)
    verdict = call(bob, socket, method, calls(other)[method])
    assert denied(verdict) == f"'bob' may not act for client {other!r}"


def test_all_methods_with_an_id_are_among_those_tested() -> None:
    named = {
        method
        for serves, table in METHODS.items()
        for method, params in table.items()
        if {"client_id", "lease_id"} & set(params.__struct_fields__)
        and LEAST_ROLE[serves][method] is not None
    }
    assert named == {method for _, method in OWNING}


def test_a_replay_need_not_be_counted_for_anybody() -> None:
    params = replay.Replay(topic="can0/rx;", epoch=1, first_seq=0)
    assert passed(call(BOB, CONTROL, "replay", params), CONTROL) == params


@pytest.mark.parametrize("other", [EVES, LOCAL, "scheduler"])
def test_nobody_transmits_for_anothers_client(other: str) -> None:
    for verdict in (sent(BOB, [FRAME], client_id=other), sent(BOB, [FRAME], origins=[other])):
        assert isinstance(verdict, Answer)
        reply = transmit.decode_reply(verdict.parts[0])
        assert (reply.token, reply.status, reply.failed) == (5, Status.NOT_PERMITTED, [0])
        assert reply.reason == f"'bob' may not act for client {other!r}"
        assert verdict.refused == Refused("client", reply.reason)


def test_a_user_has_several_clients() -> None:
    others = [client_of(BOB), client_of(BOB)]
    assert isinstance(sent(BOB, [FRAME, FRAME], origins=others), Pass)


# ---------------------------------------------------------------------------------- what it sends


def test_a_permitted_request_is_passed_on_as_it_is() -> None:
    body = encode_request(client_of(BOB), 5, 6, [FRAME] * 3, 9)
    assert judge(BOB, TRANSMIT, body) == Pass(body)
    narrow = user(transmit=("100-1FF",))
    assert judge(narrow, TRANSMIT, body) == Pass(body)


@pytest.mark.parametrize(
    ("frame", "text"),
    [
        (Frame(0, 0x223, 0, b""), "223"),
        (Frame(0, 0x0FF, 0, b""), "0FF"),
        (Frame(0, 0x200, REMOTE, 0), "200"),
        (Frame(0, 0x123, EXTENDED, b""), "00000123"),
        (Frame(0, 0x18DB0000, EXTENDED, b""), "18DB0000"),
        (Frame(0, 0x18DA0000, 0, b""), "18DA0000"),  # of 11 bits, so not valid
        (Frame(0, 0x123, ERROR, bytes(8)), "error frames"),
    ],
)
def test_frames_outside_of_the_ranges(frame: Frame, text: str) -> None:
    bob = user(transmit=("100-1FF", "x18DA0000-18DAFFFF"))
    batch = [FRAME, Frame(0, 0x18DA00F1, EXTENDED, b""), frame, FRAME]
    verdict = sent(bob, batch)
    assert isinstance(verdict, Pass)  # with the refusal: the channel answers it in its turn
    request = transmit.decode_request(verdict.body)
    assert request.refusal is not None
    assert request.refusal.reason == f"'bob' may not transmit {text}"
    identifier = None if frame.flags & ERROR else frame.arbitration_id
    assert request.refusal.forbidden.identifier == identifier
    assert verdict.refused == Refused("transmit", request.refusal.reason)
    assert (request.token, request.epoch, request.frames) == (5, 9, batch)


def test_an_observer_transmits_nothing() -> None:
    verdict = sent(user(role=Role.OBSERVE), [FRAME])
    assert isinstance(verdict, Pass)
    request = transmit.decode_request(verdict.body)
    assert request.refusal is not None
    assert request.refusal.reason == "'bob' may not transmit 123"


def test_an_empty_list_of_ranges_permits_nothing() -> None:
    verdict = sent(user(role=Role.ADMIN, transmit=()), [FRAME])
    assert isinstance(verdict, Pass)
    assert transmit.decode_request(verdict.body).refusal is not None


def test_frames_of_tasks_are_within_the_ranges() -> None:
    bob = user(transmit=("100-1FF",))
    mine = client_of(bob)
    other = [FRAME, Frame(0, 0x223, 0, b"")]
    for method in ("task_add", "task_modify"):
        params: Any = calls(mine)[method]
        assert passed(call(bob, SCHEDULER, method, params), SCHEDULER).messages == [FRAME]
        error = error_of(
            call(bob, SCHEDULER, method, msgspec.structs.replace(params, messages=other))
        )
        assert error.message == "'bob' may not transmit 223"
        assert error.details == {"name": "bob", "role": "transmit", "identifier": 0x223}


def test_a_modified_period_alone_has_no_frames() -> None:
    bob = user(transmit=("100-1FF",))
    change = tasks.ModifyTask(client_id=client_of(bob), task=1, period_ns=10**8)
    assert passed(call(bob, SCHEDULER, "task_modify", change), SCHEDULER) == change


def test_requests_that_are_none_are_answered_as_the_channel_does() -> None:
    for someone in (BOB, user(transmit=("100-1FF",)), user(role=Role.OBSERVE)):
        for body in (b"", b"\x01", b"\x93\x01\xa1x\x05", b"\xc1" * 20):
            verdict = judge(someone, TRANSMIT, body)
            assert isinstance(verdict, Answer)
            assert transmit.decode_reply(verdict.parts[0]).status == Status.MALFORMED


# ------------------------------------------------------------------------------------- its channels


CHANNELS = ("can0", "slcan./dev/ttyACM0")
NARROW = user(channels=CHANNELS)


def test_a_channel_outside_of_the_grant_is_refused_everywhere() -> None:
    mine = client_of(NARROW)
    for method, params in calls(mine, "can1").items():
        if method in {"attach", "task_add"}:
            socket = BROKER if method == "attach" else SCHEDULER
            verdict = call(NARROW, socket, method, params)
            assert denied(verdict) == "'bob' may not use channel 'can1'"
        elif method in METHODS[Serves.CONTROL] and LEAST_ROLE[Serves.CONTROL][method]:
            elsewhere = RemoteSocket(Serves.CONTROL, "can1")
            assert "may not use the channel" in denied(call(NARROW, elsewhere, method, params))
    elsewhere = RemoteSocket(Serves.TRANSMIT, "can1")
    verdict = judge(NARROW, elsewhere, encode_request(mine, 1, 0, [FRAME], 0))
    assert isinstance(verdict, Answer)
    assert transmit.decode_reply(verdict.parts[0]).status == Status.NOT_PERMITTED
    elsewhere = RemoteSocket(Serves.STREAM, "can1")
    verdict = subscribed(NARROW, topics.route_topic("can1", EVERYTHING), elsewhere)
    assert isinstance(verdict, Answer)
    assert stream.decode_event(verdict.parts[1]).payload == "'bob' may not use channel 'can1'"


@pytest.mark.parametrize("channel", CHANNELS)
def test_channels_of_the_grant_are_reached_whatever_their_names(channel: str) -> None:
    stem = stem_of(channel)
    for socket in (RemoteSocket(Serves.STREAM, stem), RemoteSocket(Serves.TRANSMIT, stem)):
        assert RemoteSocket.parse(str(socket)) == socket
    topic = topics.route_topic(channel, EVERYTHING)
    assert isinstance(subscribed(NARROW, topic, RemoteSocket(Serves.STREAM, stem)), Pass)
    params = replay.History(topic=topic.decode(), seconds=1)
    control_socket = RemoteSocket(Serves.CONTROL, stem)
    assert passed(call(NARROW, control_socket, "history", params), control_socket) == params


def test_an_actor_is_told_which_channels_the_user_may_know_of() -> None:
    for socket, method in (
        (BROKER, "status"),
        (BROKER, "attach"),
        (BROKER, "lease"),
        (SCHEDULER, "task_list"),
    ):
        params: Any = calls(client_of(NARROW))[method]
        assert passed(call(NARROW, socket, method, params), socket).channels == list(CHANNELS)
        # What the client says itself does not count.
        params = msgspec.structs.replace(calls(client_of(BOB))[method], channels=["can7"])
        assert passed(call(BOB, socket, method, params), socket).channels is None


def test_all_methods_that_tell_of_channels_are_told() -> None:
    viewed = {
        method
        for table in METHODS.values()
        for method, params in table.items()
        if issubclass(params, control.Viewed)
    }
    assert viewed == {"status", "attach", "lease", "task_list"}


# ---------------------------------------------------------------------------------------- streams


def test_the_topics_of_ones_own_clients() -> None:
    mine = client_of(BOB)
    for topic in (
        topics.route_topic("can0", EVERYTHING),
        topics.state_topic("can0"),
        topics.private_topic("can0", mine, EVERYTHING),
        topics.private_topic("can0", mine, EVERYTHING, "bob's test"),
        topics.left_topic("can0", mine),
    ):
        for first in (b"\x01", b"\x00"):
            assert judge(BOB, STREAM, first + topic) == Pass(first + topic)


@pytest.mark.parametrize("other", [EVES, LOCAL])
def test_the_private_topics_of_others(other: str) -> None:
    for topic in (
        topics.private_topic("can0", other, EVERYTHING),
        topics.private_topic("can0", other, EVERYTHING, "me"),
        topics.left_topic("can0", other),
    ):
        verdict = subscribed(BOB, topic)
        assert isinstance(verdict, Answer)
        assert verdict.parts[0] == topic
        event = stream.decode_event(verdict.parts[1])
        assert event.payload == f"'bob' may not act for client {other!r}"
        assert event.forbidden is not None
        assert judge(BOB, STREAM, b"\x00" + topic) == Answer(())


def test_an_observer_claims_nothing() -> None:
    bob = user(role=Role.OBSERVE)
    mine = client_of(bob)
    assert isinstance(subscribed(bob, topics.private_topic("can0", mine, EVERYTHING)), Pass)
    verdict = subscribed(bob, topics.private_topic("can0", mine, EVERYTHING, "me"))
    assert isinstance(verdict, Answer)
    assert verdict.refused == Refused(
        "role",
        "'bob' may not have the sole right to transmit: that needs the role transmit, not observe",
    )


@pytest.mark.parametrize(
    "topic",
    [b"", b"c", b"can0", b"can0/", b"can0/@", b"can0/rx", b"can1/rx;", b"can0/rx?;x;", b"\xff;"],
)
def test_a_beginning_of_others_topics_is_not_a_topic(topic: bytes) -> None:
    verdict = subscribed(user(role=Role.ADMIN), topic)
    assert isinstance(verdict, Answer)
    assert verdict.refused is not None
    assert verdict.refused.kind == "malformed"


@pytest.mark.parametrize("body", [b"", b"\x02can0/rx;", b"can0/rx;"])
def test_a_stream_takes_nothing_but_subscriptions(body: bytes) -> None:
    assert isinstance(judge(BOB, STREAM, body), Close)


def test_the_past_of_private_topics_is_not_told() -> None:
    for topic in ("can0/state;", f"can0/@{client_of(BOB)};", "can1/rx;", "can0/rx", ""):
        for method, params in (
            ("replay", replay.Replay(topic=topic, epoch=1, first_seq=0)),
            ("history", replay.History(topic=topic, seconds=1)),
        ):
            assert error_of(call(BOB, CONTROL, method, params)).code == "malformed"


# ---------------------------------------------------------------------------------------- sockets


@pytest.mark.parametrize(
    "name",
    [
        *("", "lock", "tasks", "leases", "broker.ctl", "scheduler.tx", "scheduler.rx", "../x.rx"),
        *("can0.rx/", "can0.rx.log", "can0", "x" * 33 + ".rx", "can0.RX", "c\xe4n.tx", "can0.rx\n"),
    ],
)
def test_other_files_of_the_runtime_directory_are_out_of_reach(name: str) -> None:
    assert RemoteSocket.parse(name) is None


# ---------------------------------------------------------------------------------- changed grants


def test_what_a_changed_grant_takes_away() -> None:
    now = user(channels=("can0", "can1"), transmit=("100-1FF", "300"))
    for before, lost in (
        (now, False),
        (user(channels=("can0",), transmit=("300",)), False),
        (user(role=Role.OBSERVE, channels=("can0",), transmit=("300",)), False),
        (user(role=Role.ADMIN, channels=("can0",), transmit=("300",)), True),
        (user(channels=("can2",), transmit=("300",)), True),
        (user(channels=None, transmit=("300",)), True),
        (user(channels=("can0",), transmit=("301",)), True),
        (user(channels=("can0",), transmit=None), True),
    ):
        assert loses(before, now) is lost
    assert not loses(now, user(role=Role.ADMIN))


# ----------------------------------------------------------------------------------- any bytes


@given(body=st.binary(max_size=200), role=st.sampled_from(Role))
def test_any_bytes_get_a_verdict(body: bytes, role: Role) -> None:
    bob = user(role=role, channels=("can0",), transmit=("100-1FF",))
    for socket in (*SOCKETS.values(), STREAM, TRANSMIT):
        assert judge(bob, socket, body) is not None


def test_rules_name_what_the_method_does() -> None:
    for table in RULES.values():
        for rule in table.values():
            assert isinstance(rule, Rule)
            assert rule.what[0].islower()
            assert not rule.what.endswith(".")
