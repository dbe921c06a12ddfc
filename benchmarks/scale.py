"""``python -m benchmarks.scale``: what more channels of a broker, and more clients of one, cost.

Each channel carries 1,000 frames/s, in 50 batches a second. First one client receives on each of 1
to 64 channels, then 1 to 256 clients on one. Prints a table and draws a picture of it.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.figures import RESULTS
from benchmarks.load import Load, Outcome, clients, measure
from benchmarks.periodic import private_broker
from canbroker.demo.broker import BrokerView

_RATE: Final = 1_000
_CHANNELS: Final = (1, 4, 16, 64)
_CLIENTS: Final = (1, 4, 16, 64, 256)


class Point(NamedTuple):
    load: Load
    outcome: Outcome


def main() -> int:
    """Returns 1 if a frame was lost."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement")
    parser.add_argument("--picture", type=Path, default=RESULTS / "scale.png")
    options = parser.parse_args()
    console = Console(width=160)
    many = [_point(Load(number, 1, _RATE), options.seconds) for number in _CHANNELS]
    crowd = [_point(Load(1, number, _RATE), options.seconds) for number in _CLIENTS]
    console.print(_table([*many, *crowd]))
    options.picture.parent.mkdir(exist_ok=True)
    _draw(many, crowd, options.picture)
    return int(any(point.outcome.lost for point in (*many, *crowd)))


def _point(load: Load, seconds: float) -> Point:
    with private_broker() as runtime, BrokerView(runtime) as broker:
        return Point(load, measure(broker, load, seconds, clients, os.sched_getaffinity(0)))


def _table(points: Sequence[Point]) -> Table:
    table = Table(box=box.MARKDOWN)
    columns = ("channels", "clients of each", "frames received", "lost", "p50 ms", "p99 ms")
    for column in (*columns, "actors % core", "clients % core", "actors MB", "clients MB"):
        table.add_column(column, justify="right")
    for load, outcome in points:
        table.add_row(
            str(load.channels),
            str(load.clients),
            f"{outcome.frames:,}",
            str(outcome.lost),
            f"{outcome.p50:.2f}",
            f"{outcome.p99:.2f}",
            f"{100 * outcome.actors:.1f}",
            f"{100 * outcome.clients:.1f}",
            f"{outcome.actors_mb:.0f}",
            f"{outcome.clients_mb:.0f}",
        )
    return table


def _draw(many: Sequence[Point], crowd: Sequence[Point], path: Path) -> None:
    from benchmarks import picture  # noqa: PLC0415 - needs the bench extra

    rows = []
    for points, label, numbers in (
        (many, "channels with one client each", [load.channels for load, _ in many]),
        (crowd, "clients of one channel", [load.clients for load, _ in crowd]),
    ):
        lines = {
            "processor time [% of a core]": {
                "actors": [100 * outcome.actors for _, outcome in points],
                "clients": [100 * outcome.clients for _, outcome in points],
            },
            "from send to recv [ms]": {
                "p50": [outcome.p50 for _, outcome in points],
                "p99": [outcome.p99 for _, outcome in points],
            },
            "memory [MB]": {
                "actors": [outcome.actors_mb for _, outcome in points],
                "clients": [outcome.clients_mb for _, outcome in points],
            },
        }
        rows.append((label, numbers, lines))
    picture.draw_growth(rows, path)


if __name__ == "__main__":
    sys.exit(main())
