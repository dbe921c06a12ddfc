"""``python -m benchmarks.client``: what a client loads, in modules, memory and time.

Each row is a new process of this interpreter, beside a broker that runs and a channel that is open.
Rows are measured in turns. To measure another checkout with the same dependencies, put it in front:
``PYTHONPATH=../other python -P benchmarks/client.py``.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import IO, Final, cast

from rich.console import Console
from rich.table import Table

import canbroker
from benchmarks.usage import resident_mb

_CHANNEL: Final = "client"
_WHOLE: Final = "Bus(), recv, send"

#: name of a row -> what its process does
STATEMENTS: Final = {
    "python": "pass",
    "zmq and msgspec alone": "import zmq, msgspec",
    "import canbroker": "import canbroker",
    "from canbroker import Bus": "from canbroker import Bus",
    _WHOLE: f"""
from canbroker import Bus, Message
bus = Bus({_CHANNEL!r}, "virtual")
bus.recv(0)
bus.send(Message(arbitration_id=1))
""",
}

# The process waits when it is done, until its memory has been read.
_PROGRAM: Final = """
import sys, time
began, used = time.perf_counter(), time.process_time()
{statement}
taken, used = time.perf_counter() - began, time.process_time() - used
print(1000 * taken, 1000 * used, *sys.modules, flush=True)
sys.stdin.read()
"""


@dataclass
class Cost:
    """What processes of one row took; a value for each of them."""

    milliseconds: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)  # depends less on what else the machine does
    megabytes: list[float] = field(default_factory=list)  # resident, shared pages included
    modules: list[int] = field(default_factory=list)
    packages: set[str] = field(default_factory=set)  # distributions beside canbroker


def measure(statement: str, cost: Cost) -> None:
    """Runs ``statement`` in a new process and adds what that took to ``cost``."""
    with subprocess.Popen(
        [sys.executable, "-P", "-c", _PROGRAM.format(statement=statement)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        output = cast(IO[str], process.stdout)
        milliseconds, cpu_ms, *modules = output.readline().split()
        memory = resident_mb(process.pid)
        process.communicate("")
    cost.milliseconds.append(float(milliseconds))
    cost.cpu_ms.append(float(cpu_ms))
    cost.megabytes.append(memory)
    cost.modules.append(len(modules))
    cost.packages |= _distributions(modules)


def _distributions(modules: Iterable[str]) -> set[str]:
    homes = packages_distributions()
    roots = {module.partition(".")[0] for module in modules}
    return {home for root in roots for home in homes.get(root, [])} - {"canbroker"}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.client")
    parser.add_argument("--rounds", type=int, default=15, help="processes of each row (default 15)")
    rounds = parser.parse_args().rounds
    costs = {name: Cost() for name in STATEMENTS}
    with tempfile.TemporaryDirectory() as directory:
        os.environ["XDG_RUNTIME_DIR"] = directory
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # installed packages are compiled, too
        with canbroker.Bus(_CHANNEL, "virtual"):
            measure(STATEMENTS[_WHOLE], Cost())  # compiles what is not compiled yet
            for _ in range(rounds):
                for name, statement in STATEMENTS.items():
                    measure(statement, costs[name])
    table = Table("process", "modules", "MB", "ms", "CPU ms", "packages", box=None)
    for name, cost in costs.items():
        table.add_row(
            name,
            str(round(statistics.median(cost.modules))),
            f"{statistics.median(cost.megabytes):.1f}",
            f"{statistics.median(cost.milliseconds):.1f}",
            f"{statistics.median(cost.cpu_ms):.1f}",
            ", ".join(sorted(cost.packages - costs["python"].packages)),
        )
    console = Console()
    console.print(f"{Path(canbroker.__file__).parents[1]}, medians of {rounds} processes")
    console.print(table)


if __name__ == "__main__":
    main()
