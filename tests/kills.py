"""Kills brokers at random moments of their first seconds, and looks for what is left of them."""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from canbroker.system.entry_points import EntryPoint
from canbroker.transport.calls import call
from canbroker.transport.runtime import Runtime
from canbroker.transport.sockets import Context
from canbroker.wire import control
from tests.support.simulated import Simulated

#: A broker is killed before this time, in seconds.
LATEST_S = 2.0

#: Then its processes have this long to end, and to let go of the adapter, on an idle machine.
_PATIENCE_S = 2.0

#: What lives longer never ends.
FOREVER_S = 15.0

_CHANNELS = """
[channels.a]
interface = "virtual"
[channels.b]
interface = "virtual"
[channels.c]
interface = "slcan"
channel = "{adapter}"
bitrate = 500000
"""


def kill_at(seconds: float, adapter: str, patience_s: float) -> list[str]:
    """What is left of a broker with three channels and a scheduler that was killed.

    :param seconds: of its age.
    :param adapter: path of a simulated one.
    :param patience_s: seconds after the kill.
    """
    directory = Path(tempfile.mkdtemp(prefix="cb-kill-", dir="/tmp"))
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(directory)}
    (directory / "bench.toml").write_text(_CHANNELS.format(adapter=adapter))
    command = EntryPoint.COMMAND.command("serve", "-c", str(directory / "bench.toml"))
    context = Context()
    with (directory / "log").open("wb") as log:
        broker = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + seconds
        runtime = Runtime(directory / "canbroker")
        # Waits until the broker listens; then the scheduler is started.
        left_ns = int(seconds * 1e9)
        until = time.monotonic_ns() + left_ns
        params = control.Params()
        call(context, runtime.address, "scheduler", params, control.SchedulerAt, until)
        time.sleep(max(0.0, deadline - time.monotonic()))
        assert broker.poll() is None, (directory / "log").read_text()
        broker.kill()
        broker.wait()
        killed = time.monotonic()
        while (left := _left(directory, adapter)) and time.monotonic() < killed + patience_s:
            time.sleep(0.02)
        if left:  # did they end at all? A machine that is busy with something else is slow
            while _left(directory, adapter) and time.monotonic() < killed + FOREVER_S:
                time.sleep(0.02)
            left.append(f"until {time.monotonic() - killed:.1f} s, load {os.getloadavg()[0]:.1f}")
    finally:
        broker.kill()
        broker.wait()
        context.close()
        for process in _processes(directory):
            process.kill()
        shutil.rmtree(directory)
    return left


def _processes(directory: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("XDG_RUNTIME_DIR") == str(directory):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def _left(directory: Path, adapter: str) -> list[str]:
    left = []
    for process in _processes(directory):
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                continue
            has = [path.readlink() for path in Path(f"/proc/{process.pid}/fd").iterdir()]
            holds = " with the adapter open" if Path(adapter) in has else ""
            left.append(f"{' '.join(process.cmdline()[3:5])}{holds}")
        except (psutil.NoSuchProcess, FileNotFoundError):
            continue
    return left


def main() -> int:
    """Says what was left of each; 1 if there was something."""
    parser = argparse.ArgumentParser(prog="python -m tests.kills", description=__doc__)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=None)
    arguments = parser.parse_args()
    chance = random.Random(arguments.seed)
    bad = 0
    with Simulated() as adapter:
        for number in range(arguments.count):
            seconds = chance.uniform(0.0, LATEST_S)
            left = kill_at(seconds, adapter.path, _PATIENCE_S)
            if left:
                bad += 1
                print(f"{number}: killed after {seconds:.3f} s, left: {'; '.join(left)}")  # noqa: T201
    print(f"{arguments.count} brokers killed, something left of {bad}")  # noqa: T201
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
