"""Users of a gateway, and messages that they may or may not send."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from canbroker.actors.gateway.methods import Serves, User
from canbroker.keys.authorized import Grant, IdentifierRange, Role
from canbroker.model.frame import Frame
from canbroker.model.key import PublicKey
from canbroker.wire import control, replay, tasks
from canbroker.wire.ids import new_id

FRAME: Final = Frame(0, 0x123, 0, b"\x01")

#: What the table of the documents says: the least role for each method, ``None``: nobody.
LEAST_ROLE: Final[Mapping[Serves, Mapping[str, Role | None]]] = {
    Serves.BROKER: {
        "hello": Role.OBSERVE,
        "status": Role.OBSERVE,
        "attach": Role.OBSERVE,
        "detach": Role.OBSERVE,
        "database": Role.OBSERVE,
        "scheduler": Role.TRANSMIT,
        "lease": Role.TRANSMIT,
        "release": Role.TRANSMIT,
        "record_start": None,
        "record_stop": None,
        "shutdown": Role.ADMIN,
    },
    Serves.CONTROL: {
        "replay": Role.OBSERVE,
        "history": Role.OBSERVE,
        "hold": None,
        "repeat_counts": Role.OBSERVE,
        "discard": Role.TRANSMIT,
        "set_state": Role.ADMIN,
        "repeat": None,
        "repeat_stop": None,
    },
    Serves.SCHEDULER: {
        "task_list": Role.OBSERVE,
        "task_add": Role.TRANSMIT,
        "task_modify": Role.TRANSMIT,
        "task_stop": Role.TRANSMIT,
    },
}


def user(
    name: str = "bob",
    role: Role = Role.TRANSMIT,
    channels: tuple[str, ...] | None = None,
    transmit: tuple[str, ...] | None = None,
) -> User:
    """Somebody with a key of that name's own."""
    key = PublicKey(name.encode().ljust(32, b"\x07"))
    ranges = None if transmit is None else tuple(map(IdentifierRange.parse, transmit))
    return User.of(Grant(name, (key,), role, channels, ranges), key)


def calls(client_id: str, channel: str = "can0") -> Mapping[str, control.Params]:
    """A call of each method that somebody may make for a client with this id."""
    topic = f"{channel}/rx;"
    return {
        "hello": control.Params(),
        "status": control.Viewed(),
        "attach": control.Attach(client_id=client_id, pid=1, program="p", channel=channel),
        "detach": control.Detach(client_id=client_id),
        "database": control.GetDatabase(channel=channel),
        "scheduler": control.Params(),
        "lease": control.TakeLease(lease_id=client_id, program="p", pool="bench"),
        "release": control.Release(lease_id=client_id),
        "record_start": control.StartRecording(
            name="r", options={"channels": [channel], "directory": "/r"}
        ),
        "record_stop": control.StopRecording(name="r"),
        "shutdown": control.Params(),
        "replay": replay.Replay(topic=topic, epoch=1, first_seq=0, client_id=client_id),
        "history": replay.History(topic=topic, seconds=1),
        "hold": replay.Hold(topic=topic, holder="recording r", seconds=60),
        "repeat_counts": control.Params(),
        "discard": control.Discard(client_id=client_id, token=0),
        "set_state": control.SetState(state="nonsense"),
        "repeat": tasks.Repeat(
            client_id=client_id, task=1, messages=[FRAME], period_ns=10**7, due_ns=0
        ),
        "repeat_stop": tasks.TaskKey(client_id=client_id, task=1),
        "task_list": tasks.ListTasks(),
        "task_add": tasks.AddTask(
            client_id=client_id, task=1, channel=channel, messages=[FRAME], period_ns=10**7
        ),
        "task_modify": tasks.ModifyTask(client_id=client_id, task=1, messages=[FRAME]),
        "task_stop": tasks.StopTasks(client_id=client_id),
    }


def client_of(someone: User) -> str:
    """The id of a new client of that user's."""
    return new_id(someone.owner or "")
