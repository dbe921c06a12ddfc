"""``python -m benchmarks.socketcan``: python-can's SocketCAN bus and canbroker on one interface.

Every round measures everything once, python-can and canbroker in turns, so that what else the
machine does meanwhile falls on both. Needs a virtual CAN interface with nothing else on it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from benchmarks import paced, vcan
from benchmarks.figures import US, Figures, Found, Key, latencies
from benchmarks.pace import paced as at_pace
from benchmarks.peers import Delivery, Peer, bare
from benchmarks.streams import rate
from benchmarks.team import Team
from benchmarks.usage import cpu_s
from canbroker import Bus
from canbroker.demo.broker import BrokerView
from canbroker.transport.runtime import Runtime

#: Frames that may wait in a receive buffer. Less than what the smallest one holds that a kernel
#: gives by default to who asks for more (about 550).
_WINDOW: Final = 400
_HALF: Final = _WINDOW // 2
_BACKLOGS: Final = 10
_LIVE: Final = 50 * _WINDOW

#: Frames whose delay is measured, and how many a second: the kernel of can-vm is slow.
_DELAYED: Final = 600
_DELAY_RATE: Final = 200

_DELAY: Final = f"{_DELAY_RATE} frames/s"
_THEIRS: Final = "python-can"
_DRIVER: Final = f"{US}'s driver alone"

#: Passes nothing of what is sent here.
_OTHERS: Final = [{"can_id": 0x7FF, "can_mask": 0x7FF, "extended": False}]

#: Takes about that many frames; returns how many it got, 0 when there are none.
Take = Callable[[int], int]

#: Takes what is there, when something is; returns the data of the frames.
TakeData = Callable[[], Sequence[bytes | bytearray]]


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
    console = Console(width=160)
    began = time.monotonic()
    place = Path(tempfile.mkdtemp(prefix="cb-bench-"))
    os.environ["XDG_RUNTIME_DIR"] = str(place)
    try:
        figures = _measure(name, arguments.rounds, place, console)
    finally:
        shutil.rmtree(place)
    console.print(figures.table())
    console.print(f"{arguments.rounds} rounds in {time.monotonic() - began:.0f} s")
    return 0


def _measure(interface: str, rounds: int, place: Path, console: Console) -> Figures:
    figures = Figures()
    streams = [_python_can_live, _backend_live, _broker_live]
    delays = [_python_can_delay, _backend_delay, _broker_delay]
    with BrokerView(Runtime.at()) as broker:
        for number in range(rounds):
            console.print(f"round {number + 1} of {rounds}")
            figures.add(_backlog(interface))
            for measurement in streams:
                figures.add(measurement(interface))
            for measurement in delays:
                figures.add(measurement(interface))
            figures.add(_bare_hop(place))
            figures.add(_filtering(interface, broker))
            streams.reverse()
            delays.reverse()
    return figures


# -------------------------------------------------------------------------------- what is read


def _backlog(interface: str) -> Found:
    """Reading the same frames from full receive buffers: what a frame costs its reader."""
    taken = {US: 0, _THEIRS: 0}
    spent_ns = dict.fromkeys(taken, 0)
    with (
        vcan.backend(interface) as backend,
        vcan.python_can(interface) as bus,
        vcan.raw(interface) as raw,
    ):
        readers: list[tuple[str, Take]] = [
            (US, lambda _: vcan.read(backend)),
            (_THEIRS, lambda count: vcan.recv(bus, count)),
        ]
        for _ in range(_BACKLOGS):
            for number in range(_WINDOW):
                raw.send(vcan.frame(number))
            for name, take in readers:
                began = time.monotonic_ns()
                taken[name] += _take_all(take, _WINDOW)
                spent_ns[name] += time.monotonic_ns() - began
            readers.reverse()
    figures: dict[Key, float] = {}
    for name, received in taken.items():
        delivery = Delivery(received, spent_ns[name])
        figures |= rate("backlog of the driver", name, _BACKLOGS * _WINDOW, 0, [delivery])
    return figures


def _python_can_live(interface: str) -> Found:
    with vcan.python_can(interface) as bus:
        return _live(interface, _THEIRS, lambda count: vcan.recv(bus, count))


def _backend_live(interface: str) -> Found:
    with vcan.backend(interface) as backend:
        return _live(interface, _DRIVER, lambda _: vcan.read(backend))


def _broker_live(interface: str) -> Found:
    with Bus(channel=interface, interface="socketcan") as bus:
        return _live(interface, US, lambda count: vcan.recv(bus, count))


def _filtering(interface: str, broker: BrokerView) -> Found:
    """Processor time of the actor for each frame on the bus; the kernel's part is not in it."""
    with Bus(channel=interface, interface="socketcan", can_filters=_OTHERS) as bus:
        pid = broker.channel().pid
        if pid is None:
            raise RuntimeError("the channel has no process")
        began = cpu_s(pid)
        _live(interface, "", lambda _: 0)
        filtered = cpu_s(pid) - began
        bus.set_filters(None)
        began = cpu_s(pid)
        _live(interface, "", lambda count: vcan.recv(bus, count))
        received = cpu_s(pid) - began
    load, what = "filter that passes nothing", "CPU in the middle"
    return {
        Key(load, US, what, "µs/frame"): filtered / _LIVE * 1e6,
        Key(load, f"{US}, no filter", what, "µs/frame"): received / _LIVE * 1e6,
    }


# ------------------------------------------------------------------------------- how late it is


def _python_can_delay(interface: str) -> Found:
    with vcan.python_can(interface) as bus:
        return _delay(interface, _THEIRS, lambda: vcan.recv_data(bus))


def _backend_delay(interface: str) -> Found:
    with vcan.backend(interface) as backend:
        return _delay(interface, _DRIVER, lambda: vcan.read_data(backend))


def _broker_delay(interface: str) -> Found:
    with Bus(channel=interface, interface="socketcan") as bus:
        return _delay(interface, US, lambda: vcan.recv_data(bus))


def _bare_hop(place: Path) -> Found:
    endpoint = f"ipc://{place}/hop"
    peer = Peer("bare pyzmq's hop", endpoint, bare.SinglePublisher, bare.Subscriber)
    found = paced.latency(_DELAY, peer, paced.uniform(_DELAY_RATE, _DELAYED / _DELAY_RATE))
    return {key: value for key, value in found.items() if key.unit == "µs"}


def _delay(interface: str, name: str, take: TakeData) -> Found:
    """From just before another process sends to when the reader has the frame."""
    taken: list[int] = []
    with Team() as team:
        team.start(_stamp, interface)
        team.hear()
        team.tell("go")
        while len(taken) < _DELAYED and (received := take()):
            now = time.monotonic_ns()
            taken += [now - int.from_bytes(data, "big") for data in received]
    return latencies(_DELAY, name, taken)


# --------------------------------------------------------------------------------- who sends


def _live(interface: str, name: str, take: Take) -> Found:
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
    return rate("stream", name, _LIVE, began, [Delivery(received, ended)])


def _take_all(take: Take, count: int) -> int:
    received = 0
    while received < count and (got := take(count - received)):
        received += got
    return received


def _flood(pipe: Connection[Any, Any], interface: str) -> None:
    with vcan.raw(interface) as raw:
        pipe.send("ready")
        for number in range(_LIVE):
            if number % _HALF == 0:
                pipe.recv()
            raw.send(vcan.frame(number))


def _stamp(pipe: Connection[Any, Any], interface: str) -> None:
    with vcan.raw(interface) as raw:
        pipe.send("ready")
        pipe.recv()
        for _ in at_pace(_DELAYED, _DELAY_RATE):
            raw.send(vcan.frame(time.monotonic_ns()))


if __name__ == "__main__":
    sys.exit(main())
