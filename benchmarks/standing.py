"""Costs that do not depend on traffic: importing, attaching, and being there."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import ExitStack
from typing import Final

import psutil

from canbroker import Bus
from canbroker.demo.broker import BrokerView
from canbroker.runtime import Runtime

_IDLE_CHANNELS: Final = 4

_TIME_IMPORT: Final = """
import time
began = time.perf_counter()
import {modules}
print((time.perf_counter() - began) * 1000)
"""


def imports() -> dict[str, float]:
    """Milliseconds in a new process, with and without us."""
    return {
        "import zmq, msgpack [ms]": _import_ms("zmq, msgpack"),
        "import zmq, msgpack, canbroker [ms]": _import_ms("zmq, msgpack, canbroker"),
    }


def cold_start() -> dict[str, float]:
    """From no broker at all to an open bus; leaves no broker behind."""
    with BrokerView(Runtime.at()):  # stops it
        return {"Bus(), starting a broker [ms]": _attach_ms()}


def warm_attach() -> dict[str, float]:
    """A further bus on a channel that is open."""
    with Bus(channel="attach", interface="virtual"):
        return {"Bus(), channel open [ms]": _attach_ms()}


def idle(seconds: float) -> dict[str, float]:
    """Processor time of broker and actors with open channels and no traffic."""
    with ExitStack() as stack:
        broker = stack.enter_context(BrokerView(Runtime.at()))
        for number in range(_IDLE_CHANNELS):
            stack.enter_context(Bus(channel=f"idle{number}", interface="virtual"))
        status = broker.status()
        actors = [channel.pid for channel in status.channels if channel.clients]
        processes = [psutil.Process(pid) for pid in (status.pid, *actors) if pid is not None]
        before = [_cpu_s(process) for process in processes]
        time.sleep(seconds)
        used = [_cpu_s(process) - began for process, began in zip(processes, before, strict=True)]
        memory = sum(process.memory_info().rss for process in processes)
    return {
        "idle, broker [% core]": used[0] / seconds * 100,
        f"idle, {_IDLE_CHANNELS} channels [% core]": sum(used[1:]) / seconds * 100,
        f"idle, all {len(processes)} processes [% core]": sum(used) / seconds * 100,
        f"resident, all {len(processes)} processes [MB]": memory / 1e6,
    }


def _attach_ms() -> float:
    began = time.monotonic()
    with Bus(channel="attach", interface="virtual"):
        return (time.monotonic() - began) * 1000


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _import_ms(modules: str) -> float:
    command = [sys.executable, "-P", "-c", _TIME_IMPORT.format(modules=modules)]
    return float(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
