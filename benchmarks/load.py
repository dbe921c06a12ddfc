"""Channels with receiving clients, at a pace: what they cost, and how late frames are.

One process sends on all channels, another one receives with all clients, each a bus of its own, so
that Python's interpreters are not what is measured.
"""

from __future__ import annotations

import os
import selectors
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from multiprocessing.connection import Connection
from typing import Any, Final, NamedTuple, TypeAlias

import psutil

from benchmarks.actors import FULL_BITRATE
from benchmarks.figures import percentile
from benchmarks.hardware import adapter
from benchmarks.pace import paced
from benchmarks.peers import LAST_ID, SILENCE_S
from benchmarks.team import PATIENCE_S, Team
from benchmarks.usage import cpu_s
from canbroker import Bus, Message
from canbroker.demo.broker import BrokerView
from canbroker.model.frame import Frame

#: A batch is sent this many times a second on each channel.
_BATCHES: Final = 50

#: What is sent before the measurement begins.
_WARM_UP_S: Final = 1.0

#: All channels are open within this time.
_OPENING_S: Final = 90.0

_AT_ONCE: Final = 1000
_NOTHING: Final = [{"can_id": 0x7FF, "can_mask": 0x7FF, "extended": True}]


class Load(NamedTuple):
    """``clients`` receive on each of ``channels``, ``rate`` frames a second."""

    channels: int
    clients: int
    rate: int


#: What sends, in another process: by a pipe it says the channels, as arguments of ``Bus``. When it
#: is told something, it sends for that many seconds, then it reports how many frames it has sent.
Source: TypeAlias = "Callable[[Connection[Any, Any], Load, float, set[int]], None]"


class Outcome(NamedTuple):
    """``lost``: of all clients' frames together. ``p50``, ``p99``: ms from before ``send_batch``
    until a client has the frame. ``actors``, ``clients``: cores. The same in MB: what belongs to
    these processes alone."""

    frames: int
    lost: int
    p50: float
    p99: float
    actors: float
    clients: float
    actors_mb: float
    clients_mb: float


class _Received(NamedTuple):
    frames: int
    ages_ns: list[int]


def measure(
    broker: BrokerView,
    load: Load,
    seconds: float,
    source: Source,
    cores: set[int],
    beside: Callable[[Sequence[int]], AbstractContextManager[None]] = lambda _: nullcontext(),
) -> Outcome:
    """
    :param cores: on which ``source`` runs.
    :param beside: is entered with the numbers of all other processes, while there is traffic.
    """
    with Team() as receivers, Team() as senders, ExitStack() as stack:
        senders.start(source, load, _WARM_UP_S + seconds, cores)
        (channels,) = senders.hear(_OPENING_S)
        receivers.start(_receive, channels, load.clients)
        (receiver,) = receivers.hear(_OPENING_S)
        status = broker.status()
        actors = [channel.pid for channel in status.channels if channel.pid is not None]
        stack.enter_context(beside([receiver, status.pid, *actors]))
        senders.tell(None)
        time.sleep(_WARM_UP_S)
        before = [cpu_s(pid) for pid in (receiver, *actors)]
        began = time.monotonic()
        time.sleep(seconds)
        lasted = time.monotonic() - began
        used = [cpu_s(pid) - first for pid, first in zip((receiver, *actors), before, strict=True)]
        memory = [_own_mb(pid) for pid in (receiver, *actors)]
        (sent,) = senders.hear()
        (received,) = receivers.hear()
        senders.tell(None)  # adapters are there until nobody uses them
    return Outcome(
        received.frames,
        sent * load.clients - received.frames,
        percentile(received.ages_ns, 50) / 1e6,
        percentile(received.ages_ns, 99) / 1e6,
        sum(used[1:]) / lasted,
        used[0] / lasted,
        sum(memory[1:]),
        memory[0],
    )


def _own_mb(pid: int) -> float:
    """Memory that would be free without this process."""
    return float(psutil.Process(pid).memory_full_info().uss) / 1e6


def clients(pipe: Connection[Any, Any], load: Load, seconds: float, cores: set[int]) -> None:
    """A :data:`Source`: a client on each of virtual channels, which sends 50 batches a second."""
    os.sched_setaffinity(0, cores)
    names = [f"load{number}" for number in range(load.channels)]
    buses = [Bus(name, "virtual", can_filters=_NOTHING) for name in names]
    pipe.send([{"channel": name, "interface": "virtual"} for name in names])
    pipe.recv()
    at_once = load.rate // _BATCHES
    turns = int(seconds * _BATCHES) * len(buses)
    for turn in paced(turns, _BATCHES * len(buses)):
        message = Message(arbitration_id=turn % LAST_ID, is_extended_id=False, data=_stamp())
        buses[turn % len(buses)].send_batch([message] * at_once)
    for bus in buses:
        bus.send(Message(arbitration_id=LAST_ID, is_extended_id=False))
        bus.flush(PATIENCE_S)
    pipe.send(turns * at_once)
    pipe.recv()
    for bus in buses:
        bus.shutdown()


def adapters(pipe: Connection[Any, Any], load: Load, seconds: float, cores: set[int]) -> None:
    """A :data:`Source`: serial adapters, which tell each frame as it comes."""
    os.sched_setaffinity(0, cores)
    with ExitStack() as stack:
        made = [stack.enter_context(adapter()) for _ in range(load.channels)]
        named = {"interface": "slcan", "bitrate": FULL_BITRATE}
        pipe.send([{"channel": path, **named} for path, _ in made])
        pipe.recv()
        count = int(seconds * load.rate) * len(made)
        for number in paced(count, load.rate * len(made)):
            _, inject = made[number % len(made)]
            inject(Frame(0, number % LAST_ID, 0, _stamp()))
        for _, inject in made:
            inject(Frame(0, LAST_ID, 0, b""))
        pipe.send(count)
        pipe.recv()


def _stamp() -> bytes:
    return time.monotonic_ns().to_bytes(8, "big")


def _receive(pipe: Connection[Any, Any], channels: Sequence[dict[str, Any]], clients: int) -> None:
    """[another process] Sends its number; what it has received when the last frames have come."""
    buses = [Bus(**channel) for channel in channels for _ in range(clients)]
    selector = selectors.DefaultSelector()
    for bus in buses:
        selector.register(bus.fileno(), selectors.EVENT_READ, bus)
    pipe.send(os.getpid())
    frames = 0
    ages_ns: list[int] = []
    counted_from = None
    while selector.get_map() and (ready := selector.select(SILENCE_S)):
        for key, _ in ready:
            messages = key.data.recv_batch(_AT_ONCE, 0)
            now = time.monotonic_ns()
            if messages and messages[-1].arbitration_id == LAST_ID:
                selector.unregister(key.fileobj)
                messages.pop()
            counted_from = counted_from or now + int(_WARM_UP_S * 1e9)
            if now >= counted_from:
                ages_ns += [now - int.from_bytes(each.data, "big") for each in messages]
            frames += len(messages)
    pipe.send(_Received(frames, ages_ns))
    for bus in buses:
        bus.shutdown()
