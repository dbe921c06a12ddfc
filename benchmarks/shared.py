"""The same through canbroker: from one client to others, over a virtual channel and its actor."""

from __future__ import annotations

import time
from multiprocessing.connection import Connection
from typing import Any, Final

import can

from benchmarks.figures import Delivery, latencies, stream
from benchmarks.pace import paced
from benchmarks.team import Team
from canbroker import Bus, Message

SILENCE_S: Final = 2.0
CHANNEL: Final = "bench"


def throughput(count: int, receivers: int, *, batch: bool, name: str) -> dict[str, float]:
    """Frames a second at the slowest receiver, sent one by one or in batches, then flushed."""
    messages = [
        Message(arbitration_id=number & 0x7FF, is_extended_id=False, data=bytes(8))
        for number in range(count)
    ]
    with Team() as team, Bus(channel=CHANNEL, interface="virtual") as bus:
        for _ in range(receivers):
            team.start(_count, count)
        team.hear()
        began = time.monotonic_ns()
        if batch:
            bus.send_batch(messages)
        else:
            for message in messages:
                bus.send(message)
        bus.flush(SILENCE_S)
        return stream(name, count, began, team.hear())


def latency(count: int, rate: float, name: str) -> dict[str, float]:
    """From just before ``send`` to just after ``recv`` in another process."""
    with Team() as team, Bus(channel=CHANNEL, interface="virtual") as bus:
        team.start(_measure, count)
        team.hear()
        for _ in paced(count, rate):
            sent = time.monotonic_ns().to_bytes(8, "little")
            bus.send(Message(arbitration_id=0x123, is_extended_id=False, data=sent))
        (taken,) = team.hear()
        lost = {f"{name}, lost [frames]": float(count - len(taken))}
        return latencies(name, taken) | lost


def python_can(count: int, name: str) -> dict[str, float]:
    """python-can's virtual bus: two buses, one process and one thread. No sharing, for scale."""
    messages = [
        can.Message(arbitration_id=number & 0x7FF, is_extended_id=False, data=bytes(8))
        for number in range(count)
    ]
    with (
        can.Bus(interface="virtual", channel=CHANNEL) as sender,
        can.Bus(interface="virtual", channel=CHANNEL) as receiver,
    ):
        began = time.monotonic_ns()
        for message in messages:
            sender.send(message)
        received = sum(receiver.recv(SILENCE_S) is not None for _ in messages)
        delivery = Delivery(received, time.monotonic_ns())
    return stream(name, count, began, [delivery])


def _count(pipe: Connection[Any, Any], count: int) -> None:
    received = last = 0
    with Bus(channel=CHANNEL, interface="virtual") as bus:
        pipe.send(None)
        while received < count and bus.recv(SILENCE_S) is not None:
            last = time.monotonic_ns()
            received += 1
    pipe.send(Delivery(received, last))


def _measure(pipe: Connection[Any, Any], count: int) -> None:
    taken: list[int] = []
    with Bus(channel=CHANNEL, interface="virtual") as bus:
        pipe.send(None)
        while len(taken) < count and (message := bus.recv(SILENCE_S)) is not None:
            taken.append(time.monotonic_ns() - int.from_bytes(message.data, "little"))
    pipe.send(taken)
