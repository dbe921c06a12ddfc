"""``python -m benchmarks.socketcan``: python-can's SocketCAN bus and canbroker on one interface.

Every round measures everything once, python-can and canbroker in turns, so that what else the
machine does meanwhile falls on both. Needs a virtual CAN interface with nothing else on it.
"""

from __future__ import annotations

import argparse
import os
import select
import shutil
import socket
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

import can
import psutil
from rich.console import Console

from benchmarks.figures import Delivery, Figures, stream
from benchmarks.team import Team
from canbroker import Bus
from canbroker.backends import open_backend, parse_options
from canbroker.backends.base import Backend
from canbroker.demo.broker import BrokerView
from canbroker.runtime import Runtime

#: Frames that may wait in a receive buffer. Less than what the smallest one holds that a kernel
#: gives by default to who asks for more (about 550).
_WINDOW: Final = 400
_HALF: Final = _WINDOW // 2
_BACKLOGS: Final = 10
_LIVE: Final = 50 * _WINDOW
_SILENCE_S: Final = 2.0

#: Passes nothing of what is sent here.
_OTHERS: Final = [{"can_id": 0x7FF, "can_mask": 0x7FF, "extended": False}]
_LAYOUT: Final = struct.Struct("=IB3x8s")  # struct can_frame

#: Takes about that many frames; returns how many it got, 0 when there are none.
Take = Callable[[int], int]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.socketcan", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--interface", default="vcan0")
    arguments = parser.parse_args()
    name = arguments.interface
    if not Path(f"/sys/class/net/{name}").exists():
        parser.exit(
            1,
            f"There is no CAN interface {name} here. With a kernel that has CAN: ip link add "
            f"{name} type vcan; ip link set {name} up. Without: run this in tools/can-vm.\n",
        )
    console = Console()
    began = time.monotonic()
    place = Path(tempfile.mkdtemp(prefix="cb-bench-"))
    os.environ["XDG_RUNTIME_DIR"] = str(place)
    try:
        figures = _measure(name, arguments.rounds, console)
    finally:
        shutil.rmtree(place)
    console.print(figures.table())
    console.print(f"{arguments.rounds} rounds in {time.monotonic() - began:.0f} s")
    return 0


def _measure(interface: str, rounds: int, console: Console) -> Figures:
    figures = Figures()
    streams = [_python_can_live, _backend_live, _broker_live]
    with BrokerView(Runtime.at()) as broker:
        for number in range(rounds):
            console.print(f"round {number + 1} of {rounds}")
            figures.add(_backlog(interface))
            for measurement in streams:
                figures.add(measurement(interface))
            figures.add(_filtering(interface, broker))
            streams.reverse()
    for ours, theirs in (
        ("backlog, backend.read", "backlog, python-can recv"),
        ("stream, backend.read", "stream, python-can recv"),
        ("stream, Bus.recv", "stream, python-can recv"),
    ):
        figures.add_ratio(f"{ours} / python-can", f"{ours} [frames/s]", f"{theirs} [frames/s]")
    name = "actor, kernel filter"
    figures.add_ratio(f"{name} / none", f"{name} [µs/frame]", "actor, no filter [µs/frame]")
    return figures


# -------------------------------------------------------------------------------- what is read


def _backlog(interface: str) -> dict[str, float]:
    """Reading the same frames from full receive buffers: what a frame costs its reader."""
    taken = {"backend.read": 0, "python-can recv": 0}
    spent_ns = dict.fromkeys(taken, 0)
    with (
        _backend(interface) as backend,
        _python_can(interface) as bus,
        _raw(interface) as raw,
    ):
        readers: list[tuple[str, Take]] = [
            ("backend.read", lambda _: _read(backend)),
            ("python-can recv", lambda count: _recv(bus, count)),
        ]
        for _ in range(_BACKLOGS):
            for number in range(_WINDOW):
                raw.send(_frame(number))
            for name, take in readers:
                began = time.monotonic_ns()
                taken[name] += _take_all(take, _WINDOW)
                spent_ns[name] += time.monotonic_ns() - began
            readers.reverse()
    figures: dict[str, float] = {}
    for name, received in taken.items():
        delivery = Delivery(received, spent_ns[name])
        figures |= stream(f"backlog, {name}", _BACKLOGS * _WINDOW, 0, [delivery])
    return figures


def _python_can_live(interface: str) -> dict[str, float]:
    with _python_can(interface) as bus:
        return _live(interface, "stream, python-can recv", lambda count: _recv(bus, count))


def _backend_live(interface: str) -> dict[str, float]:
    with _backend(interface) as backend:
        return _live(interface, "stream, backend.read", lambda _: _read(backend))


def _broker_live(interface: str) -> dict[str, float]:
    name = "stream, Bus.recv"
    with Bus(channel=interface, interface="socketcan") as bus:
        return _live(interface, name, lambda count: _recv(bus, count))


def _filtering(interface: str, broker: BrokerView) -> dict[str, float]:
    """Processor time of the actor for each frame on the bus; the kernel's part is not in it."""
    with Bus(channel=interface, interface="socketcan", can_filters=_OTHERS) as bus:
        pid = broker.channel().pid
        if pid is None:
            raise RuntimeError("the channel has no process")
        actor = psutil.Process(pid)
        began = _cpu_s(actor)
        _live(interface, "", lambda _: 0)
        filtered = _cpu_s(actor) - began
        bus.set_filters(None)
        began = _cpu_s(actor)
        _live(interface, "", lambda count: _recv(bus, count))
        received = _cpu_s(actor) - began
    return {
        "actor, kernel filter [µs/frame]": filtered / _LIVE * 1e6,
        "actor, no filter [µs/frame]": received / _LIVE * 1e6,
    }


# --------------------------------------------------------------------------------- who sends


def _live(interface: str, name: str, take: Take) -> dict[str, float]:
    """Another process sends, never more than a window ahead of the reader: vcan has no pace."""
    received = 0
    with Team() as team:
        team.start(_flood, interface)
        team.hear()
        began = time.monotonic_ns()
        team.tell("go")
        for sent in range(_HALF, _LIVE + 1, _HALF):
            if sent < _LIVE:
                team.tell("go")
            received += _take_all(take, sent - received)
        ended = time.monotonic_ns()
    return stream(name, _LIVE, began, [Delivery(received, ended)])


def _take_all(take: Take, count: int) -> int:
    received = 0
    while received < count and (got := take(count - received)):
        received += got
    return received


def _flood(pipe: Connection[Any, Any], interface: str) -> None:
    with _raw(interface) as raw:
        pipe.send("ready")
        for number in range(_LIVE):
            if number % _HALF == 0:
                pipe.recv()
            raw.send(_frame(number))


def _frame(number: int) -> bytes:
    return _LAYOUT.pack(number % 0x700, 8, number.to_bytes(8, "big"))


# ----------------------------------------------------------------------------------- readers


@contextmanager
def _raw(interface: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_CAN, socket.SOCK_RAW, socket.CAN_RAW) as raw:
        raw.bind((interface,))
        yield raw


@contextmanager
def _backend(interface: str) -> Iterator[Backend]:
    backend = open_backend("socketcan", parse_options("socketcan", {"channel": interface}))
    try:
        yield backend
    finally:
        backend.close()


@contextmanager
def _python_can(interface: str) -> Iterator[can.BusABC]:
    with can.Bus(channel=interface, interface="socketcan", ignore_config=True) as bus:
        # It does not ask for more than the kernel's default, which may hold less than a window.
        with socket.socket(fileno=os.dup(bus.fileno())) as raw:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        yield bus


def _read(backend: Backend) -> int:
    """What is there, when something is."""
    ready, _, _ = select.select([backend.fileno()], [], [], _SILENCE_S)
    return len(backend.read()) if ready else 0


def _recv(bus: Bus | can.BusABC, count: int) -> int:
    received = 0
    while received < count and bus.recv(_SILENCE_S) is not None:
        received += 1
    return received


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


if __name__ == "__main__":
    sys.exit(main())
