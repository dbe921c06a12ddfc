"""The floor: what two hops between two processes take that do nothing else."""

from __future__ import annotations

import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

import zmq

from benchmarks.figures import Key, latencies
from benchmarks.pace import paced
from benchmarks.team import Team

ROUND_TRIP: Final = "bare pyzmq, round trip"
_WARM_UP: Final = 100


def ping_pong(place: Path, load: str, count: int, rate: float | None) -> dict[Key, float]:
    """Round trips of 8 bytes PAIR → PAIR → PAIR, so many a second or one after the other."""
    endpoint = f"ipc://{place}/ping"
    with Team() as team, zmq.Context() as context, context.socket(zmq.PAIR) as socket:
        team.start(_pong, endpoint, count + _WARM_UP)
        socket.connect(endpoint)
        team.hear()
        _round_trips(socket, _WARM_UP, None)
        return latencies(load, ROUND_TRIP, _round_trips(socket, count, rate))


def _round_trips(socket: zmq.Socket[bytes], count: int, rate: float | None) -> list[int]:
    taken = []
    for _ in paced(count, rate):
        began = time.monotonic_ns()
        socket.send(began.to_bytes(8, "little"))
        socket.recv()
        taken.append(time.monotonic_ns() - began)
    return taken


def _pong(pipe: Connection[Any, Any], endpoint: str, count: int) -> None:
    with zmq.Context() as context, context.socket(zmq.PAIR) as socket:
        socket.bind(endpoint)
        pipe.send(None)
        for _ in range(count):
            socket.send(socket.recv())
