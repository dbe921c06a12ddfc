"""The periodic tasks of a broker, for ``canbroker status --tasks``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich.console import Console
from rich.table import Table

from canbroker.cli.tables import alarm, cell, table
from canbroker.model.frame import identifier_text
from canbroker.system import clock
from canbroker.wire.status import BrokerStatus
from canbroker.wire.tasks import TaskStatus

_STYLES: Final = {"scheduler": "green", "kernel": "cyan", "paused": "yellow"}


def tasks_table(status: BrokerStatus, tasks: Sequence[TaskStatus]) -> Table:
    """A line for each task: its owner, its frames, how many were sent, and how late they were."""
    programs = {
        client.client_id: str(client.pid or "?")
        for channel in status.channels
        for client in channel.clients
    }
    numbers = ("id", "period", "sent", "skipped", "failed", "late p50", "p99", "max")
    made = table("tasks", "channel", "pid", *numbers, "by", right=(*numbers, "pid"))
    for task in tasks:
        made.add_row(
            cell(task.channel),
            programs.get(task.client_id, "?"),
            identifier_text(task.arbitration_id, task.extended)
            + (f" x{task.messages}" if task.messages > 1 else ""),
            _milliseconds(task.period_ns),
            f"{task.sent:,}",
            alarm(task.skipped),
            alarm(task.failed),
            *map(_milliseconds, (task.late_p50_ns, task.late_p99_ns, task.late_max_ns)),
            cell(task.mode, _STYLES.get(task.mode, "")),
        )
    return made


def show_tasks(status: BrokerStatus, tasks: Sequence[TaskStatus], console: Console) -> None:
    """Prints the tasks, and the last problem of each."""
    if not tasks:
        console.print("no periodic tasks")
        return
    console.print(tasks_table(status, tasks))
    for task in tasks:
        if task.reason:
            console.print(cell(f"{task.channel} {task.arbitration_id:X}: {task.reason}"))


def _milliseconds(time_ns: int | None) -> str:
    return "-" if time_ns is None else f"{time_ns / clock.MILLISECOND:,.3f}".rstrip("0").rstrip(".")
