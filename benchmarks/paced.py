"""At a pace: how long a frame takes from just before ``send`` to just after ``recv`` elsewhere."""

from __future__ import annotations

import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final, NamedTuple

from benchmarks.figures import Key, latencies
from benchmarks.peers import Delivery, Peer, Sender
from benchmarks.streams import cpu_per_frame, rate
from benchmarks.team import Team
from benchmarks.usage import resident_mb
from canbroker.logs.reader import LogReader
from canbroker.model.frame import EXTENDED

#: Bytes of a time stamp. Frames of this length carry when they were sent.
_STAMP: Final = 8

#: How long a pace is kept, and how many frames it has at most.
_SECONDS: Final = 2.0
_FRAMES: Final = 4_000


class Due(NamedTuple):
    """A frame of a schedule, seconds after its beginning."""

    at: float
    arbitration_id: int
    length: int
    extended: bool = False


class Arrivals(NamedTuple):
    """What a receiver of a schedule has seen."""

    delivery: Delivery
    taken_ns: list[int]
    resident_mb: float


def uniform(rate: int, seconds: float) -> list[Due]:
    """``rate`` frames a second."""
    return [Due(number / rate, 0x123, _STAMP) for number in range(int(rate * seconds))]


def steady(rate: int, scale: float = 1.0) -> list[Due]:
    """``rate`` frames a second for two seconds, or 4,000 of them if those are fewer."""
    return uniform(rate, scale * min(_SECONDS, _FRAMES / rate))


def recorded(path: Path, speed: float) -> list[Due]:
    """The classic data frames of a candump log, so many times as fast."""
    with LogReader.open(path) as log:
        entries = list(log)
    begin = entries[0].timestamp_ns
    return [
        Due(
            (entry.timestamp_ns - begin) / 1e9 / speed,
            entry.frame.arbitration_id,
            len(entry.frame.data),
            bool(entry.frame.flags & EXTENDED),
        )
        for entry in entries
        if isinstance(entry.frame.data, bytes) and len(entry.frame.data) <= _STAMP
    ]


def latency(load: str, peer: Peer, schedule: Sequence[Due]) -> dict[Key, float]:
    """Of the frames that carry a stamp; with what all of them cost at this pace."""
    if peer.alone:
        return _alone(load, peer, schedule)
    with Team() as team, peer.open_sender() as port:
        team.start(_receive, peer, len(schedule))
        port.wait_for(1)
        team.hear()
        middle = peer.middle_cpu_s()
        began, cpu = time.monotonic_ns(), time.process_time_ns()
        _send(port, schedule)
        port.flush()
        cpu = time.process_time_ns() - cpu
        (arrivals,) = team.hear()
        middle = peer.middle_cpu_s() - middle
    found = latencies(load, peer.name, arrivals.taken_ns)
    found |= rate(load, peer.name, len(schedule), began, [arrivals.delivery])
    found |= cpu_per_frame(load, peer.name, cpu / len(schedule), [arrivals.delivery])
    found[Key(load, peer.name, "memory of a receiver", "MB")] = arrivals.resident_mb
    if peer.middle is not None:
        found[Key(load, peer.name, "CPU in the middle", "µs/frame")] = middle * 1e6 / len(schedule)
        found[Key(load, peer.name, "memory in the middle", "MB")] = resident_mb(peer.middle)
    return found


def _send(port: Sender, schedule: Sequence[Due]) -> None:
    """One after the other; several at once, when they are due at once or it is late."""
    began = time.monotonic()
    position = 0
    while position < len(schedule):
        time.sleep(max(0.0, began + schedule[position].at - time.monotonic()))
        now = time.monotonic() - began
        first = position
        while position < len(schedule) and schedule[position].at <= now:
            position += 1
        messages = [_stamped(port, due) for due in schedule[first:position]]
        if len(messages) == 1:
            port.send(messages[0])
        elif messages:
            port.send_all(messages)


def _stamped(port: Sender, due: Due) -> Any:
    stamp = time.monotonic_ns().to_bytes(_STAMP, "little")
    return port.message(due.arbitration_id, stamp[: due.length], extended=due.extended)


def _alone(load: str, peer: Peer, schedule: Sequence[Due]) -> dict[Key, float]:
    """In one process and thread, each frame is received when it has been sent."""
    taken: list[int] = []
    with peer.open_sender() as port, peer.open_receiver() as other:
        began = time.monotonic()
        for due in schedule:
            time.sleep(max(0.0, began + due.at - time.monotonic()))
            port.send(_stamped(port, due))
            data = other.receive()
            if data is not None and len(data) == _STAMP:
                taken.append(time.monotonic_ns() - int.from_bytes(data, "little"))
    return latencies(load, peer.name, taken)


def _receive(pipe: Connection[Any, Any], peer: Peer, count: int) -> None:
    taken: list[int] = []
    received = last = 0
    with peer.open_receiver() as port:
        pipe.send(None)
        began = time.process_time_ns()
        while received < count and (data := port.receive()) is not None:
            last = time.monotonic_ns()
            received += 1
            if len(data) == _STAMP:
                taken.append(last - int.from_bytes(data, "little"))
        delivery = Delivery(received, last, time.process_time_ns() - began)
        pipe.send(Arrivals(delivery, taken, resident_mb()))
