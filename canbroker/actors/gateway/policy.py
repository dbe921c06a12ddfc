"""What remote users may do: the verdict on each message that they send. Without sockets.

A gateway passes on what its users send to the sockets of the runtime directory. :func:`judge` says
of one message whether it goes there, and if not, with what the user is answered.
"""

from __future__ import annotations

import functools
import re
from typing import Final, NamedTuple, TypeAlias

import msgspec

from canbroker.actors.gateway.methods import (
    DeniedError,
    Serves,
    User,
    check_call,
    check_channel,
    check_client,
    check_frames,
    check_role,
    topic_of,
)
from canbroker.keys.authorized import Role
from canbroker.transport.place import stem_of
from canbroker.wire import WireError, control, decode, stream
from canbroker.wire.topics import LeftTopic, PrivateTopic
from canbroker.wire.transmit import (
    Refusal,
    Status,
    decode_request,
    encode_refused,
    encode_reply,
)

_SUBSCRIBE: Final = 1
_UNSUBSCRIBE: Final = 0

#: Python takes long to look up members of enumerations.
_STREAM: Final = Serves.STREAM
_TRANSMIT: Final = Serves.TRANSMIT
_MAY_TRANSMIT: Final = Role.TRANSMIT

_CHANNEL_SOCKET: Final = re.compile(r"([A-Za-z0-9_.-]{1,32})(\.rx|\.tx|\.ctl)")


class RemoteSocket(NamedTuple):
    """A socket of the runtime directory that remote users reach. ``stem``: of a channel's sockets
    what their names begin with; else empty."""

    serves: Serves
    stem: str = ""

    def __str__(self) -> str:
        return f"{self.stem}{self.serves.value}"

    @classmethod
    def parse(cls, name: str) -> RemoteSocket | None:
        """The socket of this name; ``None`` if there is none that remote users reach."""
        if name in {Serves.BROKER.value, Serves.SCHEDULER.value}:
            return cls(Serves(name))
        match = _CHANNEL_SOCKET.fullmatch(name)
        # A stem that is no channel's own name is the digest of another's.
        if match is None or stem_of(match[1]) != match[1]:
            return None
        return cls(Serves(match[2]), match[1])


class Refused(NamedTuple):
    """Why a message was refused: ``kind`` to count, ``sentence`` for people."""

    kind: str
    sentence: str


class Noted(NamedTuple):
    """Something that the audit log has, although it is permitted."""

    event: str
    what: str


class Pass(NamedTuple):
    """Pass on ``body``, as the only part. ``refused``: it is a request to transmit that the channel
    answers with this refusal."""

    body: bytes
    refused: Refused | None = None
    noted: Noted | None = None


class Answer(NamedTuple):
    """Pass nothing on, and send the user these parts; none of them: the message is ignored."""

    parts: tuple[bytes, ...]
    refused: Refused | None = None


class Close(NamedTuple):
    """End the session: no client of canbroker sends this."""

    refused: Refused


Verdict: TypeAlias = Pass | Answer | Close


def judge(user: User, socket: RemoteSocket, body: bytes) -> Verdict:
    """The verdict on one message of ``user`` to ``socket``, whatever it contains. Never raises.

    :param body: all parts of the message, joined.
    """
    serves = socket.serves
    if serves is _TRANSMIT:
        return _judge_transmit(user, socket.stem, body)
    if serves is _STREAM:
        return _judge_subscription(user, socket.stem, body)
    return _judge_call(user, socket, body)


def loses(before: User, now: User) -> bool:
    """Whether a user lacks a right now that ``before`` had. Everything begun with it has to end."""
    old, new = before.grant, now.grant
    return (
        new.role < old.role
        or not _includes(new.channels, old.channels)
        or not _includes(new.transmit, old.transmit)
    )


def _includes(new: tuple[object, ...] | None, old: tuple[object, ...] | None) -> bool:
    """Whether ``new`` has all of ``old``; ``None`` is everything."""
    return new is None or (old is not None and set(old) <= set(new))


# ----------------------------------------------------------------------------------------- streams


def _judge_subscription(user: User, stem: str, body: bytes) -> Verdict:
    if not body or body[0] not in {_SUBSCRIBE, _UNSUBSCRIBE}:
        return Close(Refused("malformed", "a stream takes subscriptions only"))
    topic, unsubscribes = body[1:], body[0] == _UNSUBSCRIBE
    try:
        _check_topic(user, stem, topic)
    except WireError as error:
        refused, forbidden = Refused("malformed", str(error)), None
    except DeniedError as error:
        refused, forbidden = Refused(error.kind, str(error)), user.forbidden()
    else:
        return Pass(body)
    if unsubscribes:  # from what was refused
        return Answer(())
    return Answer((topic, stream.encode_error(0, refused.sentence, forbidden)), refused)


def no_room(body: bytes, sentence: str) -> Verdict:
    """The verdict on a subscription that the user has no room for; ``sentence`` says so."""
    return Answer((body[1:], stream.encode_error(0, sentence)), Refused("limit", sentence))


def _check_topic(user: User, stem: str, text: bytes) -> None:
    """:raises DeniedError, WireError: the user may not subscribe to it; it is not a topic."""
    channel, topic = topic_of(text, stem)
    check_channel(user, channel)
    if isinstance(topic, PrivateTopic | LeftTopic):
        check_client(user, topic.client_id)
    if isinstance(topic, PrivateTopic) and topic.claim is not None:
        check_role(user, Role.TRANSMIT, "have the sole right to transmit")


# ---------------------------------------------------------------------------------------- transmit


class _Head(msgspec.Struct, array_like=True):
    """Of a :class:`Request`, what is checked if every frame is permitted. The channel decodes all
    of it, and refuses what is wrong with the rest."""

    version: int
    client_id: str
    token: int
    flags: int
    expires_ns: int
    frames: msgspec.Raw
    epoch: int = 0
    origins: list[str] = []


class _Identifier(msgspec.Struct, array_like=True, gc=False):
    """Of a :class:`~canbroker.model.frame.Frame`, what is checked."""

    timestamp_ns: int
    arbitration_id: int
    flags: int


class _Identified(_Head, array_like=True):
    """The same, and which frames they are."""

    frames: list[_Identifier]  # type: ignore[assignment]


_head_decoder = msgspec.msgpack.Decoder(_Head)
_identified_decoder = msgspec.msgpack.Decoder(_Identified)


def _judge_transmit(user: User, stem: str, body: bytes) -> Verdict:
    grant = user.grant
    permits_all = grant.role >= _MAY_TRANSMIT and grant.transmit is None
    try:
        if permits_all:
            _check_sender(user, stem, decode("transmit request", _head_decoder, body))
        else:
            request = decode("transmit request", _identified_decoder, body)
            _check_sender(user, stem, request)
            check_frames(user, request.frames)
    except WireError as error:
        return _malformed_transmit(error)
    except DeniedError as error:
        return _denied_transmit(user, body, error)
    return Pass(body)


def _check_sender(user: User, stem: str, request: _Head) -> None:
    """:raises DeniedError: it is another's client, or a channel that the user may not use."""
    if not _may_use(user, stem):
        raise _not_here(user, stem)
    check_client(user, request.client_id)
    if request.origins:
        for client_id in set(request.origins):
            check_client(user, client_id)


def _denied_transmit(user: User, body: bytes, error: DeniedError) -> Verdict:
    try:
        request = decode_request(body)
    except WireError as malformed:
        return _malformed_transmit(malformed)
    refused = Refused(error.kind, str(error))
    forbidden = user.forbidden(error.identifier)
    if error.kind == "transmit":
        # The channel answers, as it has to know of every request of its clients.
        return Pass(encode_refused(request, Refusal(refused.sentence, forbidden)), refused)
    failed = range(len(request.frames))
    reply = encode_reply(
        request.token, Status.NOT_PERMITTED, 0, 0, refused.sentence, [*failed], forbidden
    )
    return Answer((reply,), refused)


def _malformed_transmit(error: WireError) -> Verdict:
    reply = encode_reply(0, Status.MALFORMED, 0, 0, str(error))
    return Answer((reply,), Refused("malformed", str(error)))


# ----------------------------------------------------------------------------------------- control


def _judge_call(user: User, socket: RemoteSocket, body: bytes) -> Verdict:
    request_id = 0
    try:
        request = control.decode_request(body)
        request_id = request.id
        if socket.stem and not _may_use(user, socket.stem):
            raise _not_here(user, socket.stem)
        params = check_call(user, socket.serves, socket.stem, request)
    except WireError as error:
        refused = Refused("malformed", str(error))
        result = control.ErrorResult("malformed", refused.sentence)
    except DeniedError as error:
        refused = Refused(error.kind, str(error))
        result = control.forbidding(refused.sentence, user.forbidden(error.identifier))
    else:
        body = control.encode_request(request_id, request.method, params)
        return Pass(body, noted=_noted(request.method, params))
    return Answer((control.encode_reply(request_id, result),), refused)


def _noted(method: str, params: control.Params) -> Noted | None:
    match params:
        case control.Attach(interface=str(interface)):
            return Noted("open", f"{interface} {params.channel}")
        case control.TakeLease():
            return Noted("lease", params.pool)
        case control.SetState():
            return Noted("state", params.state)
    return Noted(method, "") if method in {"release", "shutdown"} else None


# ---------------------------------------------------------------------------------------- channels


def _may_use(user: User, stem: str) -> bool:
    channels = user.grant.channels
    return channels is None or stem in _stems(channels)


@functools.lru_cache(maxsize=256)  # each user sends many messages
def _stems(channels: tuple[str, ...]) -> frozenset[str]:
    return frozenset(map(stem_of, channels))


def _not_here(user: User, stem: str) -> DeniedError:
    return DeniedError("channel", f"{user.grant.name!r} may not use the channel at {stem!r}")
