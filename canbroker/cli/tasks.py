"""The periodic tasks of a broker, for ``canbroker status --tasks``."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Final

from rich.console import Console
from rich.table import Table

from canbroker.cli.tables import alarm, cell, table
from canbroker.errors import CanOperationError
from canbroker.system import clock
from canbroker.transport.address import parse_address
from canbroker.transport.calls import Peer, ask
from canbroker.transport.sockets import Context
from canbroker.wire import control
from canbroker.wire.tasks import ListTasks, RepeatCounts, TaskList, TaskStatus

_ANSWER_S: Final = 5.0

_STYLES: Final = {"scheduler": "green", "kernel": "cyan", "paused": "yellow"}


def running_tasks(
    status: control.BrokerStatus, silent: Container[str], context: Context
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


def tasks_table(status: control.BrokerStatus, tasks: Sequence[TaskStatus]) -> Table:
    """A line for each task: its owner, its frames, how many were sent, and how late they were."""
    programs = {
        client.client_id: str(client.pid or "?")
        for channel in status.channels
        for client in channel.clients
    }
    numbers = ("id", "period", "sent", "skipped", "failed", "late p50", "p99", "max")
    made = table("tasks", "channel", "pid", *numbers, "by", right=(*numbers, "pid"))
    for task in tasks:
        width = 8 if task.extended else 3
        made.add_row(
            cell(task.channel),
            programs.get(task.client_id, "?"),
            f"{task.arbitration_id:0{width}X}"
            + (f" x{task.messages}" if task.messages > 1 else ""),
            _milliseconds(task.period_ns),
            f"{task.sent:,}",
            alarm(task.skipped),
            alarm(task.failed),
            *map(_milliseconds, (task.late_p50_ns, task.late_p99_ns, task.late_max_ns)),
            cell(task.mode, _STYLES.get(task.mode, "")),
        )
    return made


def show_tasks(status: control.BrokerStatus, tasks: Sequence[TaskStatus], console: Console) -> None:
    """Prints the tasks, and the last problem of each."""
    if not tasks:
        console.print("no periodic tasks")
        return
    console.print(tasks_table(status, tasks))
    for task in tasks:
        if task.reason:
            console.print(cell(f"{task.channel} {task.arbitration_id:X}: {task.reason}"))


def _count_repeated(
    context: Context,
    status: control.BrokerStatus,
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


def _milliseconds(time_ns: int | None) -> str:
    return "-" if time_ns is None else f"{time_ns / clock.MILLISECOND:,.3f}".rstrip("0").rstrip(".")
