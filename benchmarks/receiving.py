"""What a frame costs a receiving program, in each way that python-can has to receive.

canbroker's frames come from another process, through the channel's actor. python-can's own are
those of its virtual interface: they are in the receiver's process already, and only taken from a
queue there. Processor time is that of the receiving process, from when it begins to receive.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from types import ModuleType
from typing import Any, Final

import can

import canbroker
from benchmarks.figures import US, Key
from benchmarks.peers import LAST_ID
from benchmarks.team import PATIENCE_S, Team

#: The participant to compare with: python-can's own interface within a process.
THEIRS: Final = "python-can virtual"
WHAT: Final = "CPU of a receiver"

ITERATING: Final = "for m in bus"
BATCHES: Final = "recv_batch(1000)"
NOTIFYING: Final = "Notifier, 10 listeners"
AWAITING: Final = "async for"

_CHANNEL: Final = "receiving"
_LISTENERS: Final = 10
_AT_ONCE: Final = 1000

#: Receives all frames up to the last one from a bus of this module; returns how many.
Way = Callable[[ModuleType, Any], int]


def costs(way: str, count: int) -> dict[Key, float]:
    """Processor time of a receiver of ``count`` frames, of canbroker and of python-can."""
    found = {Key(way, US, WHAT, "µs/frame"): _ours(way, count)}
    if way != BATCHES:  # python-can has none
        found[Key(way, THEIRS, WHAT, "µs/frame")] = _theirs(way, count)
    return found


def _ours(way: str, count: int) -> float:
    with Team() as team, canbroker.Bus(_CHANNEL, "virtual") as bus:
        team.start(_receive, way)
        team.hear()
        bus.send_batch(_messages(canbroker.Message, count))
        bus.flush(PATIENCE_S)
        (each_us,) = team.hear()
    return float(each_us)


def _receive(pipe: Connection[Any, Any], way: str) -> None:
    with canbroker.Bus(_CHANNEL, "virtual") as bus:
        pipe.send(None)
        bus.recv(PATIENCE_S)  # the first frame has come
        pipe.send(_cpu_us(way, canbroker, bus))


def _theirs(way: str, count: int) -> float:
    with (
        can.Bus(channel=_CHANNEL, interface="virtual", ignore_config=True) as sender,
        can.Bus(channel=_CHANNEL, interface="virtual", ignore_config=True) as receiver,
    ):
        for message in _messages(can.Message, count):
            sender.send(message)
        return _cpu_us(way, can, receiver)


def _messages(kind: Callable[..., Any], count: int) -> list[Any]:
    identifiers = [*(number % LAST_ID for number in range(count - 1)), LAST_ID]
    return [
        kind(arbitration_id=number, is_extended_id=False, data=bytes(8)) for number in identifiers
    ]


def _cpu_us(way: str, module: ModuleType, bus: Any) -> float:
    began = time.process_time_ns()
    received = _WAYS[way](module, bus)
    return (time.process_time_ns() - began) / received / 1000


def _iterate(module: ModuleType, bus: Any) -> int:  # noqa: ARG001
    received = 0
    for message in bus:
        received += 1
        if message.arbitration_id == LAST_ID:
            break
    return received


def _take_batches(module: ModuleType, bus: Any) -> int:  # noqa: ARG001
    received = 0
    while messages := bus.recv_batch(_AT_ONCE, PATIENCE_S):
        received += len(messages)
        if messages[-1].arbitration_id == LAST_ID:
            break
    return received


def _listen(module: ModuleType, bus: Any) -> int:
    received = 0
    ended = threading.Event()

    def count(message: Any) -> None:
        nonlocal received
        received += 1
        if message.arbitration_id == LAST_ID:
            ended.set()

    others = [lambda _message: None for _ in range(_LISTENERS - 1)]
    notifier = module.Notifier(bus, [*others, count])
    ended.wait(PATIENCE_S)
    notifier.stop()
    return received


def _await(module: ModuleType, bus: Any) -> int:
    return asyncio.run(_read(module, bus))


async def _read(module: ModuleType, bus: Any) -> int:
    received = 0
    reader = module.AsyncBufferedReader()
    notifier = module.Notifier(bus, [reader], loop=asyncio.get_running_loop())
    async for message in reader:
        received += 1
        if message.arbitration_id == LAST_ID:
            break
    notifier.stop()
    return received


_WAYS: Final[dict[str, Way]] = {
    ITERATING: _iterate,
    BATCHES: _take_batches,
    NOTIFYING: _listen,
    AWAITING: _await,
}
WAYS: Final = tuple(_WAYS)
