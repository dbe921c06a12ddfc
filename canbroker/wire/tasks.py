"""Methods of the scheduler, and of a channel that repeats frames itself.

They have the form of the control requests of :mod:`canbroker.wire.control`. A task is identified
by its client and a number that the client chooses. Unsolicited reports of the scheduler are replies
with the id 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final

import msgspec

from canbroker.model.frame import Frame
from canbroker.model.protection import Checksum, Counter
from canbroker.system.clock import MICROSECOND, MILLISECOND, SECOND
from canbroker.wire import ClientId
from canbroker.wire.control import Params, Viewed

#: The client id of the scheduler; each frame of it also names the owner of its task.
SCHEDULER_ID: Final = "scheduler"

#: The most tasks of one client.
MAX_TASKS: Final = 10_000

#: The most messages that one task sends in turn.
MAX_MESSAGES: Final = 1_000

#: The most tasks in one answer, which must fit into a message.
LISTED: Final = 1_000

#: The time of the shortest frame at 1 Mbit/s, and a year.
MIN_PERIOD_NS: Final = 50 * MICROSECOND
MAX_PERIOD_NS: Final = 365 * 24 * 3600 * SECOND

#: A frame of a task expires after the task's period, but after no less than the first and no more
#: than the second of these times.
_STALE_NS: Final = 100 * MILLISECOND
_STALE_MAX_NS: Final = SECOND

_Number = Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]
_Period = Annotated[int, msgspec.Meta(ge=MIN_PERIOD_NS, le=MAX_PERIOD_NS)]
_Messages = Annotated[list[Frame], msgspec.Meta(min_length=1, max_length=MAX_MESSAGES)]
_Text = Annotated[str, msgspec.Meta(max_length=4096)]


def stale_after_ns(period_ns: int) -> int:
    """How long after its due time a frame of a task with this period expires."""
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
    """Change the messages of a task, or its period, from its next due time on.

    The number of messages must stay the same.
    """

    messages: _Messages | None = None
    period_ns: _Period | None = None


class StopTasks(Params):
    """End one task of a client, or all. It is not an error if they have ended before."""

    client_id: ClientId
    task: _Number | None = None


class TaskAdded(msgspec.Struct, kw_only=True):
    """``warning``: a sentence for the user, for instance that the tasks overload the bus."""

    warning: str = ""


class TaskTrouble(msgspec.Struct, kw_only=True, tag_field="event", tag="trouble"):
    """Unsolicited, to the owner of a task: ``failed`` of its frames were refused so far.

    Sent when the first frame is refused, then at most once per second.
    """

    task: int
    failed: int
    reason: str


class TaskStatus(msgspec.Struct, kw_only=True):
    """A task and its account, in frames.

    ``mode``: ``scheduler``, ``kernel`` (the driver repeats it by itself), or ``paused``
    (its channel is down). ``skipped``: due times missed while the channel was down or the host too
    busy. ``late_*_ns``: how long after its due time a frame was handed to its channel; ``None`` if
    it is not known.
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


class ListTasks(Viewed):
    """Ask for :data:`LISTED` tasks from the ``start``-th on."""

    start: Annotated[int, msgspec.Meta(ge=0)] = 0


class TaskList(msgspec.Struct, kw_only=True):
    """A part of the ``total`` tasks, in the order in which they were added."""

    total: int
    tasks: list[TaskStatus]


class Repeat(TaskKey):
    """Have the driver send ``messages`` in turn every ``period_ns``, the first at once.

    The message that is due now was due at ``due_ns`` of the host's monotonic clock; the driver
    keeps that rhythm. If the task is repeated already, its messages and period change with its next
    frame.
    """

    messages: _Messages
    period_ns: _Period
    due_ns: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class Repeating(msgspec.Struct, kw_only=True):
    """Whether the driver repeats the task. If not, ``reason`` says why."""

    repeating: bool
    reason: str = ""


class RepeatCount(msgspec.Struct, kw_only=True):
    client_id: str
    task: int
    sent: int


class RepeatCounts(msgspec.Struct, kw_only=True):
    """How many frames the driver has sent of each task that it repeats."""

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
