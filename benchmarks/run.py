"""``python -m benchmarks.run``: measures, shows a table, and writes it to ``benchmarks/results``.

Every round measures everything once, canbroker and ZeroMQ alone in turns, so that what else the
machine does meanwhile falls on both.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import zmq
from rich.console import Console

from benchmarks import bare, shared, standing
from benchmarks.figures import Figures
from canbroker import Bus
from canbroker.demo.broker import BrokerView
from canbroker.runtime import Runtime

RESULTS: Final = Path(__file__).with_name("results")
_IDLE_S: Final = 10.0
_BATCH: Final = 128

Measurement = Callable[[], dict[str, float]]


def measurements(place: Path) -> list[Measurement]:
    """What one round does, each beside what it is compared with."""
    return [
        standing.imports,
        standing.warm_attach,
        lambda: bare.ping_pong(place, 1500, None, "bare ping-pong"),
        lambda: bare.ping_pong(place, 300, 500, "bare ping-pong at 500/s"),
        lambda: shared.latency(300, 500, "latency at 500 frames/s"),
        lambda: bare.ping_pong(place, 1200, 2000, "bare ping-pong at 2000/s"),
        lambda: shared.latency(1200, 2000, "latency at 2000 frames/s"),
        lambda: bare.publish(place, 50_048, 1, 1, "bare stream, singly"),
        lambda: shared.throughput(20_000, 1, batch=False, name="send, 1 rx"),
        lambda: bare.publish(place, 500_096, _BATCH, 1, "bare stream, 128 a time"),
        lambda: shared.throughput(50_000, 1, batch=True, name="send_batch, 1 rx"),
        lambda: bare.publish(place, 200_064, _BATCH, 4, "bare stream, 128, 4 rx"),
        lambda: shared.throughput(20_000, 4, batch=True, name="send_batch, 4 rx"),
        lambda: shared.python_can(10_000, "python-can virtual, 1 process"),
    ]


def add_ratios(figures: Figures) -> None:
    for rate in (500, 2000):
        latency = f"latency at {rate} frames/s, p50 [µs]"
        round_trip = f"bare ping-pong at {rate}/s, p50 [µs]"
        figures.add_ratio(f"latency / round trip at {rate}/s", latency, round_trip)
    rates = (
        ("send, 1 rx", "bare stream, singly"),
        ("send_batch, 1 rx", "bare stream, 128 a time"),
        ("send_batch, 4 rx", "bare stream, 128, 4 rx"),
    )
    for ours, theirs in rates:
        figures.add_ratio(f"{ours} / {theirs}", f"{ours} [frames/s]", f"{theirs} [frames/s]")


def measure(rounds: int, place: Path, console: Console) -> Figures:
    figures = Figures()
    for number in range(rounds):
        console.print(f"round {number + 1} of {rounds}")
        figures.add(standing.cold_start())
        # This bus keeps the broker and its channel: a broker that starts is measured above.
        with BrokerView(Runtime.at()), Bus(channel=shared.CHANNEL, interface="virtual"):
            for measurement in measurements(place):
                figures.add(measurement())
    console.print(f"idle for {_IDLE_S:g} s")
    figures.add(standing.idle(_IDLE_S))
    add_ratios(figures)
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    console = Console()
    began = time.monotonic()
    place = Path(tempfile.mkdtemp(prefix="cb-bench-"))
    os.environ["XDG_RUNTIME_DIR"] = str(place)
    try:
        figures = measure(rounds, place, console)
    finally:
        shutil.rmtree(place)
    console.print(figures.table())
    about = {
        "python": platform.python_version(),
        "pyzmq": zmq.__version__,
        "libzmq": zmq.zmq_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "rounds": rounds,
        "date": time.strftime("%Y-%m-%d"),
    }
    figures.write(RESULTS, about)
    console.print(f"{time.monotonic() - began:.0f} s; written to {RESULTS}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
