"""Costs that do not depend on traffic: importing, attaching, and being there."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import ExitStack
from typing import Final

from benchmarks.figures import US, Key
from benchmarks.peers import Peer
from benchmarks.usage import cpu_s, resident_mb
from canbroker import Bus
from canbroker.demo.broker import BrokerView
from canbroker.transport.runtime import Runtime

STARTING: Final = "starting"
IDLE: Final = "idle"
FURTHER: Final = "each further Bus"
BOTH: Final = "import and Bus(), warm"
_IDLE_CHANNELS: Final = 4

_IMPORTS: Final = {
    "zmq and msgpack alone": "zmq, msgpack",
    US: "zmq, msgpack, canbroker",
    "python-can": "can",
}
_TIME_IMPORT: Final = """
import time
began = time.perf_counter()
import {modules}
print((time.perf_counter() - began) * 1000)
"""

#: What 20 more buses of a process add to the first one: each a part of that.
_OPEN_BUSES: Final = """
import os, resource, sys, time
began = time.perf_counter()
from canbroker import Bus
buses = [Bus({channel!r}, "virtual")]
taken = time.perf_counter() - began

def used():
    pages = int(open("/proc/self/statm").read().split()[1])
    tasks, descriptors = (len(os.listdir("/proc/self/" + name)) for name in ("task", "fd"))
    return descriptors, tasks, pages * resource.getpagesize() / 2**20

before = used()
buses += [Bus({channel!r}, "virtual") for _ in range(20)]
print(1000 * taken, *((after - first) / 20 for first, after in zip(before, used())))
"""


def buses(channel: str) -> dict[Key, float]:
    """What buses on an open channel cost in a new process: the first one, and each further one."""
    command = [sys.executable, "-P", "-c", _OPEN_BUSES.format(channel=channel)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    milliseconds, descriptors, threads, mebibytes = map(float, done.stdout.split())
    return {
        Key(STARTING, US, BOTH, "ms"): milliseconds,
        Key(FURTHER, US, "descriptors", ""): descriptors,
        Key(FURTHER, US, "threads", ""): threads,
        Key(FURTHER, US, "resident", "MiB"): mebibytes,
    }


def imports() -> dict[Key, float]:
    """Milliseconds in a new process."""
    return {Key(STARTING, who, "import", "ms"): _import_ms(what) for who, what in _IMPORTS.items()}


def cold_start() -> dict[Key, float]:
    """From no broker at all to an open bus; leaves no broker behind."""
    with BrokerView(Runtime.at()):  # stops it
        began = time.monotonic()
        with Bus("attach", "virtual"):
            taken = time.monotonic() - began
    return {Key(STARTING, US, "Bus(), cold", "ms"): 1000 * taken}


def warm_start(peer: Peer) -> dict[Key, float]:
    """A further bus on a channel that is open."""
    began = time.monotonic()
    with peer.open_receiver():
        return {Key(STARTING, peer.name, "Bus(), warm", "ms"): 1000 * (time.monotonic() - began)}


def idle(seconds: float) -> dict[Key, float]:
    """Broker and actors with open channels, a client each and no traffic; actors: the mean."""
    with ExitStack() as stack:
        broker = stack.enter_context(BrokerView(Runtime.at()))
        for number in range(_IDLE_CHANNELS):
            stack.enter_context(Bus(f"idle{number}", "virtual"))
        status = broker.status()
        pids = [status.pid, *(channel.pid for channel in status.channels if channel.pid)]
        before = [cpu_s(pid) for pid in pids]
        time.sleep(seconds)
        percent = [
            100 * (cpu_s(pid) - began) / seconds for pid, began in zip(pids, before, strict=True)
        ]
        memory = [resident_mb(pid) for pid in pids]
    actors = len(pids) - 1
    return {
        Key(IDLE, "broker", "CPU", "% core"): percent[0],
        Key(IDLE, "broker", "memory", "MB"): memory[0],
        Key(IDLE, "channel actor", "CPU", "% core"): sum(percent[1:]) / actors,
        Key(IDLE, "channel actor", "memory", "MB"): sum(memory[1:]) / actors,
    }


def _import_ms(modules: str) -> float:
    command = [sys.executable, "-P", "-c", _TIME_IMPORT.format(modules=modules)]
    return float(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
