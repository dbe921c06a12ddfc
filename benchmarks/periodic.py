"""``python -m benchmarks.periodic``: how regular periodic tasks are, beside python-can's.

Writes a table, all figures and a picture to ``benchmarks/results``. Every system runs alone, in
turns with the other; what is late is |gap - period| between two frames of one task.
"""

from __future__ import annotations

import argparse
import array
import json
import logging
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection
from typing import Any, Final, TypeAlias

import can
import numpy as np
import psutil
from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.figures import RESULTS
from benchmarks.team import PATIENCE_S, Team
from canbroker import Bus, Message
from canbroker.demo.broker import BrokerView
from canbroker.transport.runtime import Runtime

CHANNEL: Final = "bench"
PERIOD: Final = 0.01
_SETTLE: Final = 1.0  # seconds after the last task was started that do not count

Pipe: TypeAlias = "Connection[Any, Any]"


@dataclass
class Run:
    """One system, some tasks, some seconds. Lateness in ms, sorted."""

    system: str
    tasks: int
    seconds: float
    sent: float  # share of the frames that should have been
    late: array.array[float]  # by the time stamps of the driver
    late_at_recv: array.array[float]  # by the clock of the program that received them
    cpu: dict[str, float] = field(default_factory=dict)  # share of a core, by process
    growth: float = 1.0  # p99 of the last third over that of the first


def percentile(values: array.array[float], share: float) -> float:
    return values[min(len(values) - 1, int(share * len(values)))] if values else float("nan")


# ------------------------------------------------------------------------------------ observing


class Observer:
    """Notes which frames were sent and received when."""

    def __init__(self) -> None:
        self.identifiers = array.array("L")
        self.stamps = array.array("d")
        self.arrivals = array.array("d")

    def note(self, message: Any) -> None:
        self.arrivals.append(time.time())
        self.identifiers.append(message.arbitration_id)
        self.stamps.append(message.timestamp)

    def has_reached(self, end: float) -> bool:
        return bool(self.stamps) and self.stamps[-1] >= end

    def run(self, system: str, tasks: int, begin: float, seconds: float) -> Run:
        """What was seen of frames that were sent in these ``seconds``."""
        identifiers, stamps, arrivals = (
            np.asarray(column) for column in (self.identifiers, self.stamps, self.arrivals)
        )
        inside = np.flatnonzero((stamps >= begin) & (stamps < begin + seconds))
        # Stable: the frames of a task stay in the order in which they came.
        inside = inside[np.argsort(identifiers[inside], kind="stable")]
        same = identifiers[inside][1:] == identifiers[inside][:-1]
        late = np.abs(np.diff(stamps[inside])[same] - PERIOD) * 1e3
        at_recv = np.abs(np.diff(arrivals[inside])[same] - PERIOD) * 1e3
        first, _, last = np.array_split(late[np.argsort(stamps[inside][:-1][same])], 3)
        return Run(
            system,
            tasks,
            seconds,
            sent=len(inside) / (tasks * seconds / PERIOD),
            late=array.array("d", np.sort(late)),
            late_at_recv=array.array("d", np.sort(at_recv)),
            growth=float(np.percentile(last, 99) / np.percentile(first, 99)),
        )


def python_can_member(pipe: Pipe, tasks: int, seconds: float) -> None:
    """Tasks and receiver in one process, which is where python-can's virtual bus lives."""
    # Threads of stopped tasks go on for a while, and complain that the bus is closed.
    logging.disable(logging.CRITICAL)
    threading.excepthook = lambda _: None
    observer = Observer()
    with (
        can.Bus(CHANNEL, interface="virtual", ignore_config=True) as receiver,
        can.Bus(CHANNEL, interface="virtual", ignore_config=True) as sender,
    ):
        for number in range(tasks):
            message = can.Message(arbitration_id=number, is_extended_id=True, data=bytes(8))
            sender.send_periodic(message, PERIOD)
        begin = time.time() + _SETTLE
        while time.time() < begin + seconds:
            received = receiver.recv(0.1)
            if received is not None:
                observer.note(received)
        sender.stop_all_periodic_tasks()
    pipe.send(observer.run("python-can", tasks, begin, seconds))


def owner_member(pipe: Pipe, first: int, tasks: int, burning: bool) -> None:
    """A client that owns tasks, and burns its processor time meanwhile, or sleeps."""
    with Bus(CHANNEL, "virtual") as bus:
        for number in range(first, first + tasks):
            bus.send_periodic(Message(arbitration_id=number, data=bytes(8)), PERIOD)
        pipe.send("ready")
        while not pipe.poll(0 if burning else None):
            sum(range(10_000))
        pipe.recv()


def observer_member(pipe: Pipe, tasks: int, seconds: float) -> None:
    """A client that receives everything."""
    observer = Observer()
    with Bus(CHANNEL, "virtual") as bus:
        pipe.send("ready")
        begin = pipe.recv()
        # At 100,000 frames/s it may lag behind what is sent. It is given the time to catch up.
        deadline = begin + seconds + PATIENCE_S / 2
        while not observer.has_reached(begin + seconds) and time.time() < deadline:
            if (message := bus.recv(0.1)) is not None:
                observer.note(message)
        lost = bus.stats.lost
    if lost:
        raise RuntimeError(f"{lost} frames lost on the way to the observer")
    pipe.send(observer.run("canbroker", tasks, begin, seconds))


# -------------------------------------------------------------------------------------- running


def python_can(tasks: int, seconds: float) -> Run:
    with Team() as team:
        team.start(python_can_member, tasks, seconds)
        time.sleep(seconds)
        (run,) = team.hear()
    return run  # type: ignore[no-any-return]  # what a pipe carries has no type


def canbroker(tasks: int, seconds: float, owners: int = 1, *, burning: bool = False) -> Run:
    """``burning``: the last of the owners burns its processor time."""
    with private_broker() as runtime, BrokerView(runtime) as view, Team() as team:
        share = tasks // owners
        with Team() as watching:
            watching.start(observer_member, tasks, seconds)
            watching.hear()
            for number in range(owners):
                last = number == owners - 1
                count = tasks - share * number if last else share
                team.start(owner_member, share * number, count, burning and last)
            team.hear()
            status = view.status()
            pids = {"scheduler": status.scheduler.pid, "channel": status.channels[0].pid}
            begin = time.time() + _SETTLE  # until then the observer reads what has come before
            watching.tell(begin)
            time.sleep(_SETTLE)
            before = {name: _cpu(pid) for name, pid in pids.items()}
            time.sleep(seconds)
            used = {name: (_cpu(pid) - before[name]) / seconds for name, pid in pids.items()}
            (run,) = watching.hear()
        team.tell("end")
    run.system += f", {owners} owners, one burning" if burning else ""
    run.cpu = used
    return run  # type: ignore[no-any-return]  # what a pipe carries has no type


def _cpu(pid: int | None) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


@contextmanager
def private_broker() -> Iterator[Runtime]:
    """A runtime directory of its own for all that is started inside."""
    place = tempfile.mkdtemp(prefix="cb-", dir="/tmp")
    before = os.environ.get("XDG_RUNTIME_DIR")
    os.environ["XDG_RUNTIME_DIR"] = place
    try:
        yield Runtime.at()
    finally:
        if before is None:
            del os.environ["XDG_RUNTIME_DIR"]
        else:
            os.environ["XDG_RUNTIME_DIR"] = before
        shutil.rmtree(place, ignore_errors=True)


# ------------------------------------------------------------------------------------- reporting


def table_of(runs: list[Run]) -> Table:
    table = Table(box=box.MARKDOWN, title="|gap - 10 ms| of tasks with a period of 10 ms")
    for column in ("tasks", "system", "p50 ms", "p99 ms", "max ms", "p99 at recv", "sent"):
        table.add_column(column, justify="left" if column == "system" else "right")
    for column in ("scheduler / 10,000 frames/s", "p99 last/first third"):
        table.add_column(column, justify="right")
    for run in runs:
        rate = run.tasks / PERIOD * run.sent / 10_000
        table.add_row(
            f"{run.tasks:,}",
            run.system,
            *(f"{percentile(run.late, share):.3f}" for share in (0.5, 0.99, 1.0)),
            f"{percentile(run.late_at_recv, 0.99):.3f}",
            f"{run.sent:.2%}",
            f"{run.cpu['scheduler'] / rate:.1%} of a core" if run.cpu and rate > 0.1 else "-",
            f"{run.growth:.2f}",
        )
    return table


def write(runs: list[Run], console: Console) -> None:
    RESULTS.mkdir(exist_ok=True)
    kept = []
    for run in runs:
        values = asdict(run)
        for name in ("late", "late_at_recv"):
            full = getattr(run, name)
            values[name] = [percentile(full, n / 1000) for n in range(1001)]
        kept.append(values)
    (RESULTS / "periodic.json").write_text(json.dumps(kept))
    with (RESULTS / "periodic.md").open("w") as file:
        Console(file=file, width=160).print(table_of(runs))
    Console(width=160).print(table_of(runs))
    try:
        from benchmarks.picture import draw_lateness  # noqa: PLC0415 - needs the bench extra
    except ImportError:
        console.print("no picture: pip install 'canbroker[bench]'")
        return
    picture = RESULTS / "periodic.png"
    draw_lateness([(run.tasks, run.system, run.late) for run in runs], picture)
    console.print(f"picture: {picture}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=8.0, help="of each run (default: 8)")
    parser.add_argument("--long", type=float, default=60.0, help="of the run with 1,000 tasks")
    parser.add_argument("--tasks", type=int, nargs="*", default=[1, 60, 200, 500])
    arguments = parser.parse_args()
    console = Console()
    runs = []
    for tasks in arguments.tasks:
        console.print(f"{tasks} tasks")
        runs += [python_can(tasks, arguments.seconds), canbroker(tasks, arguments.seconds)]
    console.print("200 tasks of three clients, one of which burns its processor time")
    runs.append(canbroker(200, arguments.seconds, 3, burning=True))
    if arguments.long:
        console.print(f"1,000 tasks for {arguments.long:g} s")
        runs.append(canbroker(1000, arguments.long))
    write(runs, console)


if __name__ == "__main__":
    main()
