"""ZeroMQ alone: what the machine gives to anything that is built on it."""

from __future__ import annotations

import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

import msgspec
import zmq

from benchmarks.figures import Delivery, latencies, stream
from benchmarks.pace import paced
from benchmarks.team import Team
from canbroker.frame import Frame
from canbroker.wire.stream import encode_frames, pack_frame

SILENCE_MS: Final = 2_000
_WARM_UP: Final = 100


def ping_pong(place: Path, count: int, rate: float | None, name: str) -> dict[str, float]:
    """Round trips of 8 bytes to another process, ``rate`` a second or one after the other."""
    endpoint = f"ipc://{place}/ping"
    with Team() as team, zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        team.start(_pong, endpoint, count + _WARM_UP)
        socket.connect(endpoint)
        team.hear()
        _round_trips(socket, _WARM_UP, None)
        return latencies(name, _round_trips(socket, count, rate))


def publish(place: Path, count: int, batch: int, receivers: int, name: str) -> dict[str, float]:
    """Frames a second from one publisher, ``batch`` frames a message, at the slowest receiver."""
    endpoint = f"ipc://{place}/stream"
    frame = Frame(time.time_ns(), 0x123, 0, bytes(8))
    with Team() as team, zmq.Context() as context, context.socket(zmq.XPUB) as socket:
        # Unbounded: this shall be the rate of ZeroMQ, and not what it drops.
        socket.setsockopt(zmq.SNDHWM, 0)
        socket.setsockopt(zmq.XPUB_VERBOSE, 1)
        socket.bind(endpoint)
        for _ in range(receivers):
            team.start(_subscribe, endpoint, count)
        for _ in range(receivers):
            socket.recv()  # its subscription
        team.hear()
        began = time.monotonic_ns()
        for sequence in range(0, count, batch):
            socket.send(b"bench;", zmq.SNDMORE)
            socket.send(encode_frames(1, sequence, 0, [pack_frame(frame) for _ in range(batch)]))
        return stream(name, count, began, team.hear())


def _round_trips(socket: zmq.Socket[bytes], count: int, rate: float | None) -> list[int]:
    taken = []
    for _ in paced(count, rate):
        began = time.monotonic_ns()
        socket.send(began.to_bytes(8, "little"))
        socket.recv()
        taken.append(time.monotonic_ns() - began)
    return taken


def _pong(pipe: Connection[Any, Any], endpoint: str, count: int) -> None:
    with zmq.Context() as context, context.socket(zmq.ROUTER) as socket:
        socket.bind(endpoint)
        pipe.send(None)
        for _ in range(count):
            socket.send_multipart(socket.recv_multipart())


def _subscribe(pipe: Connection[Any, Any], endpoint: str, count: int) -> None:
    with zmq.Context() as context, context.socket(zmq.SUB) as socket:
        socket.setsockopt(zmq.RCVHWM, 0)
        socket.connect(endpoint)
        socket.subscribe(b"bench;")
        pipe.send(None)
        pipe.send(_count(socket, count))


def _count(socket: zmq.Socket[bytes], count: int) -> Delivery:
    received = last = 0
    unpack = msgspec.msgpack.Decoder(list[Any]).decode
    while received < count and socket.poll(SILENCE_MS):
        _topic, body = socket.recv_multipart()
        rows = unpack(body)
        last = time.monotonic_ns()
        received += len(rows[5])
    return Delivery(received, last)
