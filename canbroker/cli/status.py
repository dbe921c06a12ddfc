"""``canbroker status``."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import click
import msgspec
import psutil

from canbroker.cli.common import broker_option
from canbroker.cli.tables import ProcessUse, show, terminal
from canbroker.cli.tasks import show_tasks
from canbroker.errors import CanError
from canbroker.system import clock
from canbroker.transport.address import parse_address
from canbroker.transport.calls import call
from canbroker.transport.sockets import Context
from canbroker.view.running import RunningBroker
from canbroker.view.tasks import running_tasks
from canbroker.wire import WireError, control
from canbroker.wire.status import BrokerStatus
from canbroker.wire.tasks import ListTasks, RepeatCounts, TaskList

_SAMPLE_S: Final = 0.2

#: Actors answer at once, on a busy machine within this time.
_ANSWER_S: Final = 0.7

#: Round trips of a connection by which something is asked, with some that are lost.
_CONNECT: Final = 10

#: Clocks that differ by more than this are worth a warning.
_CLOCK_NS: Final = clock.SECOND


@click.command()
@click.option("--tasks", "with_tasks", is_flag=True, help="Also show periodic tasks.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@broker_option
def status(with_tasks: bool, as_json: bool, broker: str | None) -> None:
    """Show channels, clients and processes of a broker.

    Does not start one. Rates, bus load and processor time are current values; counts are totals
    since the channel was opened.

    \b
    Examples:
      canbroker status --tasks
      canbroker status --json | jq '.channels[].state.load'
    """
    with RunningBroker(broker) as running:
        answer, met = running.status(), running.met
        silent = silent_actors(answer, running.context, 0 if met is None else met.round_trip_ns)
        # Processes of another host are not seen from here.
        processes = sample_processes(answer) if met is None else []
        tasks = running_tasks(answer, silent, running.context) if with_tasks else []
    if as_json:
        everything = msgspec.to_builtins(answer)
        everything["silent"] = list(silent.values())
        everything["processes"] = msgspec.to_builtins(processes)
        if met is not None:
            everything["round_trip_s"] = met.round_trip_ns / clock.SECOND
            everything["clock_offset_s"] = met.wall_ahead_ns / clock.SECOND
        if with_tasks:
            everything["tasks"] = msgspec.to_builtins(tasks)
        click.echo(json.dumps(everything, indent=2))
    else:
        show(answer, processes)
        if met is not None:
            for line in remote_lines(met.round_trip_ns, met.wall_ahead_ns):
                click.echo(line)
        if with_tasks:
            show_tasks(answer, tasks, terminal())
        for name in silent.values():
            click.echo(f"{name} does not answer")


def remote_lines(round_trip_ns: int, ahead_ns: int) -> list[str]:
    """Lines about a broker on another host: the round trip, and its clock if that is far off.

    :param ahead_ns: what its wall clock shows more than ours.
    """
    lines = [f"round trip {round_trip_ns / clock.MILLISECOND:.1f} ms"]
    if abs(ahead_ns) > _CLOCK_NS:
        lines.append(
            f"its clock is {abs(ahead_ns) / clock.SECOND:,.1f} s "
            f"{'ahead of' if ahead_ns > 0 else 'behind'} this one: "
            "time stamps of frames are those of its clock"
        )
    return lines


def silent_actors(answer: BrokerStatus, context: Context, round_trip_ns: int = 0) -> dict[str, str]:
    """The actors that do not answer now: their names for people, by endpoint.

    :param context: reaches them.

    All are asked at the same time. The broker kills an actor that hangs some seconds later.
    """
    asked: dict[str, tuple[str, str, control.Params, type[object]]] = {}
    for channel in answer.channels:
        if channel.phase == "running":
            name = f"the channel actor of {channel.name!r} (process {channel.pid})"
            asked[channel.control] = name, "repeat_counts", control.Params(), RepeatCounts
    if answer.scheduler.phase == "running":
        name = f"the scheduler (process {answer.scheduler.pid})"
        asked[answer.scheduler.control] = name, "task_list", ListTasks(), TaskList
    if not asked:
        return {}
    deadline = clock.deadline_after(_ANSWER_S + _CONNECT * round_trip_ns / clock.SECOND)

    def is_silent(endpoint: str) -> bool:
        _, method, params, result = asked[endpoint]
        try:
            return call(context, parse_address(endpoint), method, params, result, deadline) is None
        except (WireError, CanError):  # it has answered
            return False

    with ThreadPoolExecutor(len(asked)) as threads:
        silent = list(threads.map(is_silent, asked))
    return {
        endpoint: asked[endpoint][0] for endpoint, is_it in zip(asked, silent, strict=True) if is_it
    }


def sample_processes(answer: BrokerStatus) -> list[ProcessUse]:
    """The use of resources by the broker and its actors, measured for a fifth of a second."""
    names = {answer.pid: "broker"}
    names |= {channel.pid: channel.name for channel in answer.channels if channel.pid}
    names |= {each.pid: f"recorder {each.name}" for each in answer.recordings if each.pid}
    if answer.scheduler.pid:
        names[answer.scheduler.pid] = "scheduler"
    if answer.gateway is not None and answer.gateway.pid:
        names[answer.gateway.pid] = "gateway"
    if answer.web is not None and answer.web.pid:
        names[answer.web.pid] = "web page"
    if answer.nats is not None and answer.nats.pid:
        names[answer.nats.pid] = "NATS bridge"
    started = []
    for pid, name in names.items():
        try:
            process = psutil.Process(pid)
            process.cpu_percent()  # the next call measures from here
        except psutil.NoSuchProcess:
            continue
        started.append((name, process))
    time.sleep(_SAMPLE_S)
    uses = []
    for name, process in started:
        try:
            uses.append(_use(name, process))
        except psutil.NoSuchProcess:
            continue
    return uses


def _use(name: str, process: psutil.Process) -> ProcessUse:
    with process.oneshot():
        return ProcessUse(
            name=name,
            pid=process.pid,
            cpu_percent=process.cpu_percent(),
            memory_bytes=process.memory_info().rss,
            descriptors=process.num_fds() if hasattr(process, "num_fds") else None,
        )
