"""What remote users send to a gateway. What passes is checked again, in another way."""

from __future__ import annotations

from typing import Any, Final

from canbroker.actors.gateway.methods import METHODS, Serves
from canbroker.actors.gateway.policy import Answer, Pass, RemoteSocket, judge
from canbroker.keys.authorized import Role
from canbroker.model.frame import ERROR, EXTENDED
from canbroker.wire import WireError, control, topics, transmit
from canbroker.wire.replay import History, Replay
from tests.support.users import LEAST_ROLE, user

CHANNEL: Final = "can0"

#: Ids of the first user in the corpus begin like this.
OWNER: Final = user().owner or "?"

_USERS: Final = [
    user(role=role, channels=channels, transmit=transmit)
    for role in Role
    for channels in (None, (CHANNEL,))
    for transmit in (None, ("100-1FF", "x18DA0000-18DAFFFF"))
]


def policy_call(data: bytes) -> None:
    for serves in METHODS:
        socket = RemoteSocket(serves, CHANNEL if serves is Serves.CONTROL else "")
        for someone in _USERS:
            verdict = judge(someone, socket, data)
            if isinstance(verdict, Pass):
                request = control.decode_request(verdict.body)
                params = control.decode_params(request, METHODS[serves])
                least = LEAST_ROLE[serves][request.method]
                assert least is not None
                assert someone.grant.role >= least
                _check_params(params, someone.grant.role, someone.grant.channels)
                _check_frames(getattr(params, "messages", None) or [], someone.grant.transmit)
            else:
                assert isinstance(verdict, Answer)
                reply = control.decode_reply(verdict.parts[0])
                assert not reply.ok


def policy_transmit(data: bytes) -> None:
    for someone in _USERS:
        verdict = judge(someone, RemoteSocket(Serves.TRANSMIT, CHANNEL), data)
        if isinstance(verdict, Answer):
            transmit.decode_reply(verdict.parts[0])
            continue
        assert isinstance(verdict, Pass)
        try:
            request = transmit.decode_request(verdict.body)
        except WireError:  # then the channel refuses it
            assert verdict.body == data
            continue
        assert all(name.startswith(OWNER) for name in (request.client_id, *request.origins))
        if request.refusal is None:
            assert someone.grant.role >= Role.TRANSMIT
            _check_frames(request.frames, someone.grant.transmit)


def policy_topic(data: bytes) -> None:
    for someone in _USERS:
        verdict = judge(someone, RemoteSocket(Serves.STREAM, CHANNEL), b"\x01" + data)
        if isinstance(verdict, Answer):
            assert verdict.parts[0] == data
            continue
        assert isinstance(verdict, Pass)
        topic = topics.parse(data, CHANNEL)
        assert OWNER in getattr(topic, "client_id", OWNER)
        if isinstance(topic, topics.PrivateTopic) and topic.claim is not None:
            assert someone.grant.role >= Role.TRANSMIT


def _check_params(params: Any, role: Role, channels: tuple[str, ...] | None) -> None:
    for field in ("client_id", "lease_id"):
        name = getattr(params, field, "")
        assert name.startswith(OWNER) or (not name and isinstance(params, Replay | control.Params))
    if isinstance(params, control.Viewed):
        assert params.channels == (None if channels is None else list(channels))
    if isinstance(params, control.Attach):
        assert role == Role.ADMIN or (params.interface is None and params.as_it_is)
    if isinstance(params, Replay | History):
        assert isinstance(topics.parse(params.topic.encode(), CHANNEL), topics.RouteTopic)
    assert not getattr(params, "pid", None)


def _check_frames(frames: Any, ranges: Any) -> None:
    for frame in frames if ranges is not None else ():
        number, extended = frame.arbitration_id, bool(frame.flags & EXTENDED)
        assert not frame.flags & ERROR
        if extended:
            assert 0x18DA0000 <= number <= 0x18DAFFFF
        else:
            assert 0x100 <= number <= 0x1FF
