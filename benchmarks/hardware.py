"""A serial adapter on a pseudo-terminal: from its line to a client, beside the bare driver."""

from __future__ import annotations

import os
import select
import threading
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any, Final

from benchmarks.actors import FULL_BITRATE, FULL_RATE, actor_of
from benchmarks.figures import LOST, US, Key, latencies
from benchmarks.pace import paced
from benchmarks.peers import SILENCE_S
from benchmarks.team import Team
from benchmarks.usage import cpu_s
from canbroker import Bus
from canbroker.backends import open_backend, parse_options
from canbroker.backends.slcan.codec import encode
from canbroker.demo.broker import BrokerView
from canbroker.model.frame import Frame
from canbroker.simulator.firmware import create
from canbroker.simulator.options import SimulatorOptions

READ: Final = "driver alone"
_STAMP: Final = 8

#: Puts a frame on the bus of an adapter.
Inject = Callable[[Frame], None]


def latency(load: str, count: int, rate: float) -> dict[Key, float]:
    """From the adapter's line to ``recv`` of a client, and to ``read`` of the driver alone."""
    found: dict[Key, float] = {}
    for who, receive in ((READ, _read), (US, _recv)):
        with Team() as team, adapter() as (path, inject):
            team.start(receive, path, count)
            team.hear()
            for _ in paced(count, rate):
                inject(Frame(0, 0x123, 0, time.monotonic_ns().to_bytes(_STAMP, "little")))
            (taken,) = team.hear()
        found |= latencies(load, who, taken)
        found[Key(load, who, LOST, "%")] = 100 * (1 - len(taken) / count)
    return found


def full_bus(broker: BrokerView, seconds: float) -> dict[Key, float]:
    """Processor time of the channel actor of an adapter on a full bus, with one client."""
    load = "full bus of 1 Mbit/s, slcan"
    count = int(FULL_RATE * seconds)
    with Team() as team, adapter() as (path, inject):
        team.start(_recv, path, count)
        team.hear()
        pid = actor_of(broker, path)
        began, cpu = time.monotonic(), cpu_s(pid)
        for _ in paced(count, FULL_RATE):
            inject(Frame(0, 0x123, 0, time.monotonic_ns().to_bytes(_STAMP, "little")))
        taken, cpu = time.monotonic() - began, cpu_s(pid) - cpu
        (received,) = team.hear()
    return {
        Key(load, US, "CPU in the middle", "% core"): 100 * cpu / taken,
        Key(load, US, "CPU in the middle", "µs/frame"): cpu * 1e6 / count,
        Key(load, US, "rate", "frames/s"): count / taken,
        Key(load, US, LOST, "%"): 100 * (1 - len(received) / count),
    }


@contextmanager
def adapter() -> Iterator[tuple[str, Inject]]:
    """A Lawicel adapter that answers commands; its path, and what puts frames on its bus."""
    master, slave = os.openpty()
    tty.setraw(slave)
    stop, stopper = os.pipe()
    answering = threading.Thread(target=_answer, args=(master, stop))
    answering.start()
    try:
        yield os.ttyname(slave), lambda frame: _write(master, encode(frame))
    finally:
        os.close(stopper)
        answering.join()
        for descriptor in (stop, slave, master):
            os.close(descriptor)


def _answer(master: int, stop: int) -> None:
    device = create(SimulatorOptions())
    while True:
        ready, _, _ = select.select([master, stop], [], [])
        if stop in ready:
            return
        answers = device.receive(os.read(master, 4096), time.monotonic_ns())
        if answers:
            _write(master, answers)


def _write(master: int, line: bytes) -> None:
    if os.write(master, line) != len(line):
        raise BlockingIOError("the terminal takes no more: its reader does not follow")


def _read(pipe: Connection[Any, Any], path: str, count: int) -> None:
    """The driver in a process of its own, without broker."""
    options = parse_options("slcan", {"channel": path, "bitrate": FULL_BITRATE})
    backend = open_backend("slcan", options)
    taken: list[int] = []
    try:
        pipe.send(None)
        while len(taken) < count:
            if not select.select([backend.fileno()], [], [], SILENCE_S)[0]:
                break
            items = backend.read()
            now = time.monotonic_ns()
            taken += [_since(item.data, now) for item in items if isinstance(item, Frame)]
    finally:
        backend.close()
    pipe.send(taken)


def _recv(pipe: Connection[Any, Any], path: str, count: int) -> None:
    taken: list[int] = []
    with Bus(path, "slcan", bitrate=FULL_BITRATE) as bus:
        pipe.send(None)
        while len(taken) < count and (message := bus.recv(SILENCE_S)) is not None:
            taken.append(_since(message.data, time.monotonic_ns()))
    pipe.send(taken)


def _since(stamp: bytes | bytearray | int, now_ns: int) -> int:
    if isinstance(stamp, int):
        raise TypeError("a remote frame has no time stamp")
    return now_ns - int.from_bytes(stamp, "little")
