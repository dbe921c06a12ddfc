"""Methods of the scheduler, and of a channel that repeats frames itself.

They travel as the control requests of :mod:`canbroker.wire.control` do. A task is named by its
client and a number that the client gives it. What the scheduler has to say of a task without
being asked comes as a reply with the id 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final

import msgspec

from canbroker.model.frame import Frame
from canbroker.model.protection import Checksum, Counter
from canbroker.system.clock import MICROSECOND, MILLISECOND, SECOND
from canbroker.wire import ClientId
from canbroker.wire.control import Params

#: The name under which the scheduler transmits; each frame also names its task's owner.
SCHEDULER_ID: Final = "scheduler"

#: Tasks of one client.
MAX_TASKS: Final = 10_000

#: Messages that one task sends in turn.
MAX_MESSAGES: Final = 1_000

#: Tasks in one answer, which has to fit a message.
LISTED: Final = 1_000

#: As short as the shortest frame at 1 Mbit/s, and a year.
MIN_PERIOD_NS: Final = 50 * MICROSECOND
MAX_PERIOD_NS: Final = 365 * 24 * 3600 * SECOND

#: A frame of a task that is not on the bus after the task's period is not sent any more; it has
#: this long, though, and no longer than that.
_STALE_NS: Final = 100 * MILLISECOND
_STALE_MAX_NS: Final = SECOND

_Number = Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]
_Period = Annotated[int, msgspec.Meta(ge=MIN_PERIOD_NS, le=MAX_PERIOD_NS)]
_Messages = Annotated[list[Frame], msgspec.Meta(min_length=1, max_length=MAX_MESSAGES)]
_Text = Annotated[str, msgspec.Meta(max_length=4096)]


def stale_after_ns(period_ns: int) -> int:
    """How long after its due time a frame of a task with this period may still be sent."""
    return min(max(period_ns, _STALE_NS), _STALE_MAX_NS)


class TaskKey(Params):
    """One task."""

    client_id: ClientId
    task: _Number


class AddTask(TaskKey, kw_only=True):
    """Send ``messages`` on ``channel``, one of them in turn every ``period_ns``.

    The first goes out at once, or, with ``phase_ns``, when the host's monotonic clock modulo the
    period is that. ``duration_ns``: the last goes out before so much time is over. A task that
    runs already goes on as it is. After ``expires_ns`` (of that clock; 0: never) it is not started,
    as the client does not wait for it any more. A task ends with its client: when that leaves the
    channel, when process ``pid`` ends, if there is one, or, if the client was not seen on the
    channel since its epoch began, when it has no connection to the scheduler any more.
    """

    pid: Annotated[int, msgspec.Meta(ge=1)] | None = None
    channel: _Text
    messages: _Messages
    period_ns: _Period
    phase_ns: Annotated[int, msgspec.Meta(ge=0)] | None = None
    duration_ns: Annotated[int, msgspec.Meta(ge=1)] | None = None
    counter: Counter | None = None
    checksum: Checksum | None = None
    expires_ns: Annotated[int, msgspec.Meta(ge=0)] = 0


class ModifyTask(TaskKey):
    """From its next due time on a task sends other messages, as many, or at another period."""

    messages: _Messages | None = None
    period_ns: _Period | None = None


class StopTasks(Params):
    """End one task of a client, or all. Those that have ended before are no error."""

    client_id: ClientId
    task: _Number | None = None


class TaskAdded(msgspec.Struct, kw_only=True):
    """``warning``: what the user should know, such as a bus that the tasks are too much for."""

    warning: str = ""


class TaskTrouble(msgspec.Struct, kw_only=True, tag_field="event", tag="trouble"):
    """To the owner of a task, unasked: frames of it were refused, ``failed`` of them by now.

    Sent when that begins, and every second at most while it goes on.
    """

    task: int
    failed: int
    reason: str


class TaskStatus(msgspec.Struct, kw_only=True):
    """A task and its account, in frames.

    ``mode``: ``scheduler``, ``kernel`` (the driver repeats it by itself), or ``paused``
    (its channel is down). ``skipped``: slots that went by while the channel was down or the host
    too busy. ``late_*_ns``: how long after its due time a frame was handed to its channel;
    ``None`` where nobody can tell.
    """

    client_id: str
    task: int
    channel: str
    arbitration_id: int
    extended: bool
    messages: int
    period_ns: int
    mode: str
    sent: int
    skipped: int
    failed: int
    reason: str = ""
    late_p50_ns: int | None = None
    late_p99_ns: int | None = None
    late_max_ns: int | None = None


class ListTasks(Params):
    """Ask for :data:`LISTED` tasks from the ``start``-th on."""

    start: Annotated[int, msgspec.Meta(ge=0)] = 0


class TaskList(msgspec.Struct, kw_only=True):
    """Some of the ``total`` tasks, in the order in which they were added."""

    total: int
    tasks: list[TaskStatus]


class Repeat(TaskKey):
    """Have the driver send ``messages`` in turn every ``period_ns``, at once the first.

    The one that is due now was due at ``due_ns`` of the host's
    monotonic clock; the driver keeps to that rhythm. A task that is repeated already gets these
    messages and this period from its next frame on.
    """

    messages: _Messages
    period_ns: _Period
    due_ns: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class Repeating(msgspec.Struct, kw_only=True):
    """Whether the driver does it. If not, ``reason`` says why."""

    repeating: bool
    reason: str = ""


class RepeatCount(msgspec.Struct, kw_only=True):
    client_id: str
    task: int
    sent: int


class RepeatCounts(msgspec.Struct, kw_only=True):
    """What the driver has sent of each task that it repeats."""

    tasks: list[RepeatCount]


SCHEDULER_METHODS: Final[Mapping[str, type[Params]]] = {
    "task_add": AddTask,
    "task_modify": ModifyTask,
    "task_stop": StopTasks,
    "task_list": ListTasks,
}

#: In addition to those of every channel.
REPEAT_METHODS: Final[Mapping[str, type[Params]]] = {
    "repeat": Repeat,
    "repeat_stop": TaskKey,
    "repeat_counts": Params,
}
