"""``python -m benchmarks.replay``: how far replayed frames are from their time, beside others.

Each program plays the same log, in turns with the others: canbroker and python-can's player on
virtual channels, and, where there is a virtual CAN interface, these two and canplayer on that. An
error is by how much a frame was later than the one that was least late, by the time stamps of the
adapter: both virtual buses and the kernel stamp a frame when it is sent. What the machine itself
adds is shown by two programs that send nothing: they only sleep until each frame is due.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias

import can
from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks import vcan
from benchmarks.figures import RESULTS, US
from benchmarks.periodic import private_broker
from benchmarks.team import Team
from canbroker import Bus
from canbroker.demo.broker import BrokerView
from canbroker.system.priority import RealTime

CHANNEL: Final = "bench"
_THEIRS: Final = "python-can's player"
_SLEEPING: Final = "nothing but sleep"
_NOWHERE: Final = "-"
_URGENT: Final = f"{_SLEEPING}, with a channel's priority"

#: A program may take this long to start, in User Mode Linux.
_START_S: Final = 60.0

#: A frame of 8 bytes takes this long at 1 Mbit/s.
_LEAST_GAP_S: Final = 130e-6

Pipe: TypeAlias = "Connection[Any, Any]"

#: When each frame that arrived was sent, in seconds, by its number.
Stamps: TypeAlias = dict[int, float]


class Row(NamedTuple):
    """Errors are in milliseconds."""

    where: str
    system: str
    sent: str
    p50: float
    p99: float
    worst: float


def write_log(path: Path, rate: int, seconds: float) -> list[float]:
    """A log with frames at random distances, numbered; returns their times."""
    chance = random.Random(rate)
    times, at = [], 0.0
    while at < seconds:
        times.append(round(at, 6))
        at += _LEAST_GAP_S + chance.expovariate(1 / (1 / rate - _LEAST_GAP_S))
    lines = (
        f"({1_700_000_000 + at:.6f}) {CHANNEL} {number % 0x700:03X}#{number:016X}\n"
        for number, at in enumerate(times)
    )
    path.write_text("".join(lines))
    return times


def row_of(where: str, system: str, times: list[float], stamps: Stamps) -> Row:
    offsets = [stamps[number] - times[number] for number in stamps if number < len(times)]
    errors = sorted((offset - min(offsets)) * 1e3 for offset in offsets)
    share = f"{len(errors) / len(times):.2%}"
    if not errors:
        return Row(where, system, share, *[float("nan")] * 3)
    return Row(
        where, system, share, statistics.median(errors), errors[len(errors) * 99 // 100], errors[-1]
    )


def _number(data: bytes | bytearray) -> int:
    return int.from_bytes(data, "big")


# ------------------------------------------------------------------------------------ observing


def _observe(pipe: Pipe, open_bus: Callable[[], Any], count: int) -> None:
    """Tells the stamps of ``count`` frames, or of those that came before a long silence."""
    stamps: Stamps = {}
    with open_bus() as bus:
        pipe.send("ready")
        patience = _START_S
        while len(stamps) < count and (message := bus.recv(patience)) is not None:
            stamps[_number(message.data)] = message.timestamp
            patience = 2.0
    pipe.send(stamps)


def observe_ours(pipe: Pipe, count: int) -> None:
    _observe(pipe, lambda: Bus(CHANNEL, "virtual"), count)


def observe_interface(pipe: Pipe, interface: str, count: int) -> None:
    _observe(pipe, lambda: vcan.python_can(interface), count)


def play_theirs(pipe: Pipe, path: str) -> None:
    """What ``can.player`` does, in the process where python-can's virtual bus lives."""
    with (
        can.Bus(CHANNEL, interface="virtual", ignore_config=True) as receiver,
        can.Bus(CHANNEL, interface="virtual", ignore_config=True) as sender,
        can.LogReader(path) as reader,
    ):
        for message in can.MessageSync(reader):
            message.is_rx = False
            sender.send(message)
        stamps: Stamps = {}
        while (received := receiver.recv(0)) is not None:
            stamps[_number(received.data)] = received.timestamp
    pipe.send(stamps)


def sleep_only(pipe: Pipe, times: list[float], urgent: bool) -> None:
    """What the errors would be if there were nothing to do when a frame is due."""
    if urgent:
        RealTime().want()
    begin = time.monotonic() + 0.1
    stamps: Stamps = {}
    for number, at in enumerate(times):
        left = begin + at - time.monotonic()
        if left > 0:
            time.sleep(left)
        stamps[number] = time.monotonic()
    pipe.send(stamps)


# -------------------------------------------------------------------------------------- playing


def _canbroker(path: Path, *channel: str) -> list[str]:
    return [sys.executable, "-m", "canbroker.cli", "replay", str(path), *channel]


def ours(path: Path, count: int) -> Stamps:
    with Team() as team:
        team.start(observe_ours, count)
        team.hear()
        subprocess.run(_canbroker(path, CHANNEL, "-i", "virtual"), check=True)
        (stamps,) = team.hear()
    return stamps  # type: ignore[no-any-return]  # what a pipe carries has no type


def theirs(path: Path, seconds: float) -> Stamps:
    return _alone(seconds, play_theirs, str(path))


def sleeping(times: list[float], *, urgent: bool) -> Stamps:
    return _alone(times[-1], sleep_only, times, urgent)


def _alone(seconds: float, target: Callable[..., None], *arguments: object) -> Stamps:
    """The result of a process that plays the whole log itself, which takes ``seconds``."""
    with Team() as team:
        team.start(target, *arguments)
        time.sleep(seconds)
        (stamps,) = team.hear()
    return stamps  # type: ignore[no-any-return]  # as above


def on_interface(command: list[str], interface: str, count: int) -> Stamps:
    with Team() as team:
        team.start(observe_interface, interface, count)
        team.hear()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        (stamps,) = team.hear()
    return stamps  # type: ignore[no-any-return]  # as above


def measure(interface: str, rate: int, seconds: float, rounds: int) -> list[Row]:
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as place:
        log = Path(place, "bench.log")
        times = write_log(log, rate, seconds)
        count = len(times)
        for _ in range(rounds):
            with private_broker() as runtime, BrokerView(runtime):
                rows += [
                    row_of("virtual", US, times, ours(log, count)),
                    row_of("virtual", _THEIRS, times, theirs(log, seconds)),
                    row_of(_NOWHERE, _SLEEPING, times, sleeping(times, urgent=False)),
                    row_of(_NOWHERE, _URGENT, times, sleeping(times, urgent=True)),
                ]
                if not Path(f"/sys/class/net/{interface}").exists():
                    continue
                commands = {
                    US: _canbroker(log, interface, "-i", "socketcan"),
                    _THEIRS: [
                        *(sys.executable, "-m", "can.player", "-i", "socketcan"),
                        *("-c", interface, str(log)),
                    ],
                }
                if shutil.which("canplayer"):
                    commands["canplayer"] = ["canplayer", "-I", str(log), f"{interface}={CHANNEL}"]
                for system, command in commands.items():
                    stamps = on_interface(command, interface, count)
                    rows.append(row_of(interface, system, times, stamps))
    return rows


def table_of(rows: list[Row], rate: int, seconds: float) -> Table:
    title = f"error of {rate:,} frames/s for {seconds:g} s, in ms"
    table = Table(box=box.MARKDOWN, title=title)
    for column in ("channel", "player"):
        table.add_column(column)
    for column in ("sent", "p50", "p99", "max"):
        table.add_column(column, justify="right")
    order = {"virtual": 0, _NOWHERE: 2}
    for row in sorted(rows, key=lambda row: (order.get(row.where, 1), row.system)):
        figures = (f"{value:.3f}" for value in (row.p50, row.p99, row.worst))
        table.add_row(row.where, row.system, row.sent, *figures)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.replay", description=__doc__)
    parser.add_argument("--rate", type=int, default=2000, help="frames/s (default: 2000)")
    parser.add_argument("--seconds", type=float, default=15.0, help="of the log (default: 15)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--interface", default="vcan0", help="a virtual CAN interface")
    arguments = parser.parse_args()
    console = Console(width=120)
    rows = measure(arguments.interface, arguments.rate, arguments.seconds, arguments.rounds)
    table = table_of(rows, arguments.rate, arguments.seconds)
    RESULTS.mkdir(exist_ok=True)
    with (RESULTS / "replay.md").open("w") as file:
        Console(file=file, width=120).print(table)
    console.print(table)
    if not any(row.where == arguments.interface for row in rows):
        console.print(
            f"There is no {arguments.interface} here, so the players on SocketCAN were left out."
            " Run this in tools/can-vm for them."
        )
    if os.cpu_count() == 1:
        console.print("There is one processor: all wait for each other.")


if __name__ == "__main__":
    main()
