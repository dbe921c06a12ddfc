"""Flat out: how many frames a second go from one sender to all receivers, and what each costs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from multiprocessing.connection import Connection
from typing import Any

from benchmarks.figures import LOST, Key
from benchmarks.peers import CLASSIC_BYTES, LAST_ID, Delivery, Peer, Sender
from benchmarks.team import Team


def stream(
    load: str, peer: Peer, count: int, receivers: int = 1, size: int = CLASSIC_BYTES
) -> dict[Key, float]:
    """From one process to others, each of which receives all."""
    if peer.alone:
        return _alone(load, peer, count, receivers, size)
    with Team() as team, peer.open_sender() as port:
        messages = _messages(port, count, size)
        for _ in range(receivers):
            team.start(_receive, peer, count)
        port.wait_for(receivers)
        team.hear()
        middle = peer.middle_cpu_s()
        began, cpu = time.monotonic_ns(), time.process_time_ns()
        port.send_all(messages)
        port.flush()
        cpu = time.process_time_ns() - cpu
        deliveries = team.hear()
        middle = peer.middle_cpu_s() - middle
        team.tell(None)
    found = rate(load, peer.name, count, began, deliveries)
    found |= cpu_per_frame(load, peer.name, cpu / count, deliveries)
    if peer.middle is not None:
        each = middle * 1e6 / count
        found[Key(load, peer.name, "CPU in the middle", "µs/frame")] = each
        found[Key(load, peer.name, "the same for each receiver", "µs/frame")] = each / receivers
    return found


def rate(
    load: str, who: str, sent: int, began_ns: int, deliveries: Sequence[Delivery]
) -> dict[Key, float]:
    """Frames a second from the first send to the last frame at the slowest receiver; and losses."""
    rates = [item.frames * 1e9 / (item.last_ns - began_ns) for item in deliveries if item.frames]
    lost = sum(sent - delivery.frames for delivery in deliveries)
    return {
        Key(load, who, "rate", "frames/s"): min(rates, default=0.0),
        Key(load, who, LOST, "%"): 100 * lost / (sent * len(deliveries)),
    }


def cpu_per_frame(
    load: str, who: str, send_ns: float, deliveries: Sequence[Delivery]
) -> dict[Key, float]:
    """Processor time of the clients; that of receivers is the mean."""
    found = {Key(load, who, "CPU of the sender", "µs/frame"): send_ns / 1000}
    received = sum(delivery.frames for delivery in deliveries)
    if received:
        cpu = sum(delivery.cpu_ns for delivery in deliveries) / received
        found[Key(load, who, "CPU of a receiver", "µs/frame")] = cpu / 1000
    return found


def _messages(port: Sender, count: int, size: int) -> list[Any]:
    messages = [port.message(number % LAST_ID, bytes(size)) for number in range(count - 1)]
    return [*messages, port.message(LAST_ID, bytes(size))]


def _alone(load: str, peer: Peer, count: int, receivers: int, size: int) -> dict[Key, float]:
    """In one process and one thread: all is sent, then all is received."""
    with ExitStack() as stack:
        port = stack.enter_context(peer.open_sender())
        others = [stack.enter_context(peer.open_receiver()) for _ in range(receivers)]
        messages = _messages(port, count, size)
        began, cpu = time.monotonic_ns(), time.process_time_ns()
        port.send_all(messages)
        cpu = time.process_time_ns() - cpu
        deliveries = [other.drain(count) for other in others]
    found = rate(load, peer.name, count, began, deliveries)
    return found | cpu_per_frame(load, peer.name, cpu / count, deliveries)


def _receive(pipe: Connection[Any, Any], peer: Peer, count: int) -> None:
    with peer.open_receiver() as port:
        pipe.send(None)
        pipe.send(port.drain(count))
        pipe.recv()  # all have received everything: leaving costs the middle something, too
