"""Messages between the threads of a channel actor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from canbroker.backends import Backend, Transmit
from canbroker.transport.replier import Caller
from canbroker.wire.replay import History, Hold, Replay
from canbroker.wire.transmit import Status


@dataclass(frozen=True)
class Up:
    """The adapter is open: use this backend from now on."""

    backend: Backend


@dataclass(frozen=True)
class Down:
    """The adapter is lost, or the actor ends: release the backend and confirm with `LetGo`.

    ``status`` answers all transmits from now on.
    """

    reason: str
    status: Status = Status.DEVICE_GONE


@dataclass(frozen=True)
class LetGo:
    """To the keeper: the thread of this name has released the backend."""

    thread: str


@dataclass(frozen=True)
class Lost:
    """To the keeper: a thread found that the adapter is gone."""

    backend: Backend
    reason: str


@dataclass(frozen=True)
class Opened:
    """To the keeper: an attempt to open the adapter has ended; ``problem`` says why it failed."""

    backend: Backend | None
    problem: str = ""


@dataclass(frozen=True)
class Finished:
    """To the send thread: these transmits have ended, without the recv thread."""

    transmits: Sequence[Transmit]


@dataclass(frozen=True)
class Gone:
    """To the send thread: these clients have left."""

    client_ids: Sequence[str]


@dataclass(frozen=True)
class ChangeState:
    """To the keeper: a client asks to make the channel listen-only, or active again."""

    caller: Caller
    listen_only: bool


@dataclass(frozen=True)
class CatchUp:
    """To the recv thread: publish all that the adapter has read, then answer this caller."""

    caller: Caller


@dataclass(frozen=True)
class Expect:
    """To the recv thread: a client may wait for an answer, so the adapter's pause ends."""


@dataclass(frozen=True)
class Ask:
    """To the recv thread: a control request for frames of the past."""

    caller: Caller
    params: Replay | History


@dataclass(frozen=True)
class HoldRoute:
    """To the recv thread: a control request to keep a route open."""

    caller: Caller
    params: Hold


@dataclass(frozen=True)
class Answer:
    """To the send thread: the answer to a control request that another thread handled."""

    caller: Caller
    result: msgspec.Struct


@dataclass(frozen=True)
class Stop:
    """End. The threads get it after :class:`Down`, when all transmits have been answered.

    ``for_good``: no successor will take over the channel.
    """

    reason: str
    for_good: bool = False


@dataclass(frozen=True)
class Crashed:
    """To the keeper: a thread ended with a bug; its traceback is in the log."""

    thread: str


SenderMessage = Up | Down | Finished | Gone | Answer | Stop
ReceiverMessage = Up | Down | CatchUp | Expect | Ask | HoldRoute | Stop
KeeperMessage = Lost | LetGo | Opened | ChangeState | Crashed | Stop
