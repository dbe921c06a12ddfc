"""The periodic tasks of a broker, as its scheduler tells them."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Final

from canbroker.errors import CanOperationError
from canbroker.transport.address import parse_address
from canbroker.transport.calls import Peer, ask
from canbroker.transport.sockets import Context
from canbroker.wire import control
from canbroker.wire.status import BrokerStatus
from canbroker.wire.tasks import ListTasks, RepeatCounts, TaskList, TaskStatus

_ANSWER_S: Final = 5.0


def running_tasks(
    status: BrokerStatus, silent: Container[str], context: Context
) -> list[TaskStatus]:
    """All tasks, in the order in which they were added; none if the scheduler does not run.

    :param silent: endpoints of actors that do not answer; they are not asked.
    :param context: reaches the actors.
    :raises CanError: the scheduler does not answer.
    """
    tasks: list[TaskStatus] = []
    if status.scheduler.phase != "running" or status.scheduler.control in silent:
        return tasks
    scheduler = Peer(parse_address(status.scheduler.control), "the scheduler")
    while True:
        params = ListTasks(start=len(tasks))
        listed = ask(context, scheduler, "task_list", params, TaskList, _ANSWER_S)
        tasks += listed.tasks
        if not listed.tasks or len(tasks) >= listed.total:
            break
    if any(task.mode == "kernel" for task in tasks):
        _count_repeated(context, status, tasks, silent)
    return tasks


def _count_repeated(
    context: Context,
    status: BrokerStatus,
    tasks: Sequence[TaskStatus],
    silent: Container[str],
) -> None:
    """Adds the frames that drivers repeat, which channels count; skips channels that are down."""
    by_key = {(task.client_id, task.task): task for task in tasks if task.mode == "kernel"}
    channels = {task.channel for task in by_key.values()}
    for channel in status.channels:
        if channel.name in channels and channel.control not in silent:
            peer = Peer(parse_address(channel.control), f"channel {channel.name!r}")
            try:
                counts = ask(
                    context, peer, "repeat_counts", control.Params(), RepeatCounts, _ANSWER_S
                )
            except CanOperationError:
                continue
            for count in counts.tasks:
                task = by_key.get((count.client_id, count.task))
                if task is not None:
                    task.sent += count.sent
