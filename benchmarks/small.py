"""``python -m benchmarks.small``: a budget for a small computer.

Four serial adapters receive 2,000 frames/s each, which they tell one by one, and each has two
clients. Broker, actors and clients have one processor, and of that a share: they are stopped and
continued every 10 ms, as cpulimit does. The adapters, on pseudo-terminals, have another processor.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import Connection
from typing import Any, Final

from rich.console import Console

from benchmarks.load import Load, adapters, measure
from benchmarks.periodic import private_broker
from benchmarks.team import Team
from canbroker.demo.broker import BrokerView

_LOAD: Final = Load(channels=4, clients=2, rate=2_000)
_CYCLE_S: Final = 0.01


def main() -> int:
    """Returns 1 if a frame was lost."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.small", description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    shares = parser.add_argument("--shares", type=float, nargs="+", default=[1.0, 0.5, 0.3])
    shares.help = "of one processor (default: 1.0 0.5 0.3)"
    options = parser.parse_args()
    console = Console(highlight=False)
    small, *others = sorted(os.sched_getaffinity(0))
    if not others:
        console.print("needs two processors: one for what sends")
        return 1
    cores = set(others)
    os.sched_setaffinity(0, {small})  # and with it all that is started
    lost = 0
    for share in options.shares:
        with private_broker() as runtime, BrokerView(runtime) as broker:
            throttled = partial(_throttled, share, cores)
            found = measure(broker, _LOAD, options.seconds, adapters, cores, throttled)
        lost += found.lost
        console.print(
            f"{share:.0%} of a processor: {found.frames:,} frames received, {found.lost} lost, p50 "
            f"{found.p50:.1f} ms, p99 {found.p99:.1f} ms; actors {found.actors:.1%} and clients "
            f"{found.clients:.1%} of it"
        )
    return int(lost > 0)


@contextmanager
def _throttled(share: float, cores: set[int], pids: Sequence[int]) -> Iterator[None]:
    """These processes run for that share of the time."""
    if share >= 1:
        yield
        return
    with Team() as team:
        team.start(_throttle, pids, share, cores)
        team.hear()
        try:
            yield
        finally:
            team.tell(None)
            team.hear()


def _throttle(
    pipe: Connection[Any, Any], pids: Sequence[int], share: float, cores: set[int]
) -> None:
    """[another process] Until it is told something, which it answers when all run again."""
    os.sched_setaffinity(0, cores)
    pipe.send(None)
    while not pipe.poll():
        for number, seconds in ((signal.SIGSTOP, 1 - share), (signal.SIGCONT, share)):
            for pid in pids:
                os.kill(pid, number)
            time.sleep(seconds * _CYCLE_S)
    pipe.send(None)


if __name__ == "__main__":
    sys.exit(main())
