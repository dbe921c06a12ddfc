"""Which role may call which method, and what else a gateway checks of a call.

One table. A method that is not in it is refused, so one that is added later is refused until
somebody has decided who may call it.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol, TypeVar
from urllib.parse import unquote

from msgspec.structs import replace

from canbroker.keys.authorized import Grant, Role
from canbroker.model.frame import ERROR, EXTENDED, identifier_text
from canbroker.model.key import PublicKey
from canbroker.transport.place import stem_of
from canbroker.wire import WireError, control, topics
from canbroker.wire.control import BROKER_METHODS, CHANNEL_METHODS, Params, Viewed
from canbroker.wire.forbidden import Forbidden
from canbroker.wire.ids import is_owned, owner_of_key
from canbroker.wire.replay import REPLAY_METHODS, History, Replay
from canbroker.wire.tasks import (
    REPEAT_METHODS,
    SCHEDULER_METHODS,
    AddTask,
    ModifyTask,
    StopTasks,
)

_FORMAT: Final = EXTENDED | ERROR

#: pyserial's URL of a port whose traffic it copies to any file, which it overwrites.
_SPY: Final = "spy:"

_Viewed = TypeVar("_Viewed", bound=Viewed)


class Serves(enum.Enum):
    """What a socket of the runtime directory serves, by how its name ends."""

    BROKER = "broker"
    SCHEDULER = "scheduler.ctl"
    STREAM = ".rx"
    TRANSMIT = ".tx"
    CONTROL = ".ctl"


@dataclass(frozen=True)
class User:
    """Somebody with a key: what it grants, and what the ids of the user's clients begin with.

    ``owner`` is ``None`` if keys do not tell users apart; then all ids are anybody's.
    """

    grant: Grant
    owner: str | None

    @classmethod
    def of(cls, grant: Grant, key: PublicKey) -> User:
        """The user of a connection; ``key`` is the one that it has proved to have."""
        return cls(grant, owner_of_key(key.raw))

    def forbidden(self, identifier: int | None = None) -> Forbidden:
        """What a refusal says beside its sentence."""
        return Forbidden(name=self.grant.name, role=str(self.grant.role), identifier=identifier)


class DeniedError(Exception):
    """The user does not have the right. ``kind``: which one, to count; the text is a sentence."""

    def __init__(self, kind: str, sentence: str, identifier: int | None = None) -> None:
        super().__init__(sentence)
        self.kind = kind
        self.identifier = identifier


#: Checks the parameters of a call on a socket with this stem. Returns them, with what the process
#: that serves it has to know of the caller's rights.
Check = Callable[[User, str, Any], Params]


class Rule(NamedTuple):
    """``role``: the least one that may call; ``None``: nobody from outside. ``what`` the call
    does, for sentences."""

    role: Role | None
    what: str
    check: Check = lambda _user, _stem, params: params


# ----------------------------------------------------------------------------------------- checks


def check_role(user: User, least: Role, what: str) -> None:
    """:raises DeniedError: the user's role is a lesser one."""
    if user.grant.role < least:
        raise DeniedError(
            "role",
            f"{user.grant.name!r} may not {what}: "
            f"that needs the role {least}, not {user.grant.role}",
        )


def check_client(user: User, client_id: str) -> None:
    """:raises DeniedError: the client is not one of the user's."""
    if user.owner is not None and not is_owned(client_id, user.owner):
        raise DeniedError("client", f"{user.grant.name!r} may not act for client {client_id!r}")


def check_channel(user: User, channel: str) -> None:
    """:raises DeniedError: the user may not use that channel."""
    if not user.grant.may_use(channel):
        raise DeniedError("channel", f"{user.grant.name!r} may not use channel {channel!r}")


class Identified(Protocol):
    """Of a frame, what is checked."""

    arbitration_id: int
    flags: int


def check_frames(user: User, frames: Iterable[Identified]) -> None:
    """:raises DeniedError: the user may not transmit one of them."""
    grant = user.grant
    # A batch has many frames of few identifiers.
    for identifier, flags in dict.fromkeys((f.arbitration_id, f.flags & _FORMAT) for f in frames):
        extended = bool(flags & EXTENDED)
        if flags & ERROR and grant.transmit is not None:
            raise DeniedError("transmit", f"{grant.name!r} may not transmit error frames")
        if not grant.may_transmit(identifier, extended):
            text = identifier_text(identifier, extended)
            raise DeniedError("transmit", f"{grant.name!r} may not transmit {text}", identifier)


def topic_of(text: bytes, stem: str) -> tuple[str, topics.Topic]:
    """A topic's channel, and its meaning.

    :raises WireError: it is not a topic of the channel whose sockets have this stem.
    """
    if len(text) > topics.MAX_TOPIC_BYTES:
        raise WireError(f"a topic may have {topics.MAX_TOPIC_BYTES} bytes")
    channel = unquote(text.partition(b"/")[0].decode("ascii", "replace"), errors="replace")
    if stem_of(channel) != stem:
        raise WireError(f"topic {text[:80]!r} is not one of the channel at {stem!r}")
    return channel, topics.parse(text, channel)


def _attach(user: User, _: str, params: control.Attach) -> Params:
    check_client(user, params.client_id)
    name = params.channel
    if params.interface is not None:
        check_role(user, Role.ADMIN, "open adapters")
        _check_device(user, params)
        name = f"{params.interface}.{params.channel}"
    check_channel(user, name)
    # A process id of another host says nothing here.
    params = replace(_seen(user, params), pid=0)
    return params if user.grant.role >= Role.ADMIN else replace(params, as_it_is=True)


def _check_device(user: User, params: control.Attach) -> None:
    """:raises DeniedError: pyserial would write all traffic to a file of the bench."""
    for text in (params.channel, *params.parameters.values()):
        if isinstance(text, str) and text.strip().lower().startswith(_SPY):
            name = user.grant.name
            raise DeniedError("device", f"{name!r} may not have files written: {text[:80]!r}")


def _database(user: User, _: str, params: control.GetDatabase) -> Params:
    check_channel(user, params.channel)
    return params


def _own(user: User, _: str, params: control.Detach | control.Discard | StopTasks) -> Params:
    check_client(user, params.client_id)
    return params


def _lease(user: User, _: str, params: control.TakeLease) -> Params:
    check_client(user, params.lease_id)
    # With a process of the bench, a lease would not end with its remote holder.
    return replace(_seen(user, params), pid=None, started=0)


def _release(user: User, _: str, params: control.Release) -> Params:
    check_client(user, params.lease_id)
    return params


def _view(user: User, _: str, params: Viewed) -> Params:
    return _seen(user, params)


def _seen(user: User, params: _Viewed) -> _Viewed:
    """The parameters, with the channels that the user may know of."""
    channels = user.grant.channels
    return replace(params, channels=None if channels is None else list(channels))


def _past(user: User, stem: str, params: Replay | History) -> Params:
    channel, topic = topic_of(params.topic.encode(), stem)
    check_channel(user, channel)
    if not isinstance(topic, topics.RouteTopic):
        raise WireError(f"topic {params.topic[:80]!r} has no frames of the past")
    if isinstance(params, Replay) and params.client_id:
        check_client(user, params.client_id)
    return params


def _add_task(user: User, _: str, params: AddTask) -> Params:
    check_client(user, params.client_id)
    check_channel(user, params.channel)
    check_frames(user, params.messages)
    return replace(params, pid=None)  # as of a lease


def _modify_task(user: User, _: str, params: ModifyTask) -> Params:
    check_client(user, params.client_id)
    check_frames(user, params.messages or ())
    return params


# ------------------------------------------------------------------------------------------ table

_OBSERVE, _TRANSMIT, _ADMIN = Role.OBSERVE, Role.TRANSMIT, Role.ADMIN

#: For each kind of control socket the rule of each method.
RULES: Final[Mapping[Serves, Mapping[str, Rule]]] = {
    Serves.BROKER: {
        "hello": Rule(_OBSERVE, "greet the broker"),
        "status": Rule(_OBSERVE, "see the broker's status", _view),
        "database": Rule(_OBSERVE, "read the databases of channels", _database),
        "attach": Rule(_OBSERVE, "attach to channels", _attach),
        "detach": Rule(_OBSERVE, "detach clients", _own),
        "scheduler": Rule(_TRANSMIT, "start periodic tasks"),
        "lease": Rule(_TRANSMIT, "lease channels", _lease),
        "release": Rule(_TRANSMIT, "give back leases", _release),
        # They write files on the broker's host, wherever the request says.
        "record_start": Rule(None, "start recordings"),
        "record_stop": Rule(None, "stop recordings"),
        "shutdown": Rule(_ADMIN, "stop the broker"),
    },
    Serves.CONTROL: {
        "replay": Rule(_OBSERVE, "see frames of the past", _past),
        "history": Rule(_OBSERVE, "see frames of the past", _past),
        # For recorders, which are the broker's; a route that is held costs the channel memory.
        "hold": Rule(None, "have a channel keep frames"),
        "discard": Rule(_TRANSMIT, "discard frames", _own),
        "set_state": Rule(_ADMIN, "change the state of a channel"),
        "repeat_counts": Rule(_OBSERVE, "see periodic tasks"),
        # How the scheduler hands tasks to drivers; task_add has the rights of the user's client.
        "repeat": Rule(None, "have a driver repeat frames"),
        "repeat_stop": Rule(None, "have a driver stop repeating frames"),
    },
    Serves.SCHEDULER: {
        "task_list": Rule(_OBSERVE, "see periodic tasks", _view),
        "task_add": Rule(_TRANSMIT, "start periodic tasks", _add_task),
        "task_modify": Rule(_TRANSMIT, "change periodic tasks", _modify_task),
        "task_stop": Rule(_TRANSMIT, "stop periodic tasks", _own),
    },
}

#: The methods that there are.
METHODS: Final[Mapping[Serves, Mapping[str, type[Params]]]] = {
    Serves.BROKER: BROKER_METHODS,
    Serves.CONTROL: {**CHANNEL_METHODS, **REPEAT_METHODS, **REPLAY_METHODS},
    Serves.SCHEDULER: SCHEDULER_METHODS,
}


def check_call(user: User, serves: Serves, stem: str, request: control.Request) -> Params:
    """The parameters of a call that the user may make, as they are to be passed on.

    :raises DeniedError: the user may not make it.
    :raises WireError: it does not follow the protocol.
    """
    methods = METHODS[serves]
    rule = RULES[serves].get(request.method)
    if rule is None or rule.role is None:
        if request.method not in methods:
            control.decode_params(request, methods)  # says which methods there are
        what = f"call {request.method!r}" if rule is None else rule.what
        raise DeniedError("role", f"{user.grant.name!r} may not {what}: nobody may from outside")
    check_role(user, rule.role, rule.what)
    return rule.check(user, stem, control.decode_params(request, methods))
