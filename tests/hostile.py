"""Clients that send garbage, and what others notice: ``python -m tests.hostile`` shows figures.

An attack is a process of its own. While it goes on, frames make round trips between two clients
of the same channel; before it they do the same. Shown beside it: while it attacks nobody, as it
takes processor time of its own.
"""

from __future__ import annotations

import json
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Final, NamedTuple

import msgpack
import psutil
import zmq

from canbroker import Bus, Message
from canbroker.transport.runtime import Runtime
from canbroker.wire.topics import MAX_TOPIC_BYTES
from tests.support.brokers import private_runtime, processes_of, status_of

CHANNEL: Final = "virtual.x"
ROUND_TRIPS: Final = 100
_SHOWN_ROUND_TRIPS: Final = 1_500
_SHOWN_S: Final = 5.0

#: Of different topics, in the longest of attacks.
_SUBSCRIPTIONS: Final = 1_000_000
_TIMEOUT_S: Final = 30.0

#: What a ZMTP peer says first.
_GREETING: Final = b"\xff\0\0\0\0\0\0\0\x01\x7f\x03\0NULL" + bytes(48)


class Endpoints(NamedTuple):
    """Everything that listens, but the stream."""

    stream: str
    requests: list[str]


def busy(to: Endpoints, seconds: float) -> None:
    """No attack: a process that burns its processor and sends nothing, for comparison."""
    for _ in _steps(seconds, 0):
        sum(range(1000))


def garbage(to: Endpoints, seconds: float) -> None:
    """Some thousand bodies a second that are of no protocol, deep, huge, or of another version."""
    chance = random.Random(1)
    bodies = [
        b"\x91" * 100_000,  # nested
        b"\xdd\xff\xff\xff\xff",  # an array of four billion
        b"\xdb\xff\xff\xff\xff" + bytes(1000),  # as many characters
        msgpack.packb([9, 1, "hello", {}]),
        msgpack.packb([1, 1, "hello", {"x": [[[]]] * 1000}]),
        bytes(1 << 20),
    ]
    with zmq.Context() as context:
        sockets = [_dealer(context, endpoint) for endpoint in to.requests]
        for _ in _steps(seconds, 0.01):
            for peer in sockets:
                _try(peer, [chance.choice(bodies)])
                _try(peer, [chance.randbytes(100)] * chance.randint(1, 50))
        for peer in sockets:
            peer.close()


def flood(to: Endpoints, seconds: float) -> None:
    """Garbage as fast as it goes out."""
    with zmq.Context() as context:
        sockets = [_dealer(context, endpoint) for endpoint in to.requests]
        for _ in _steps(seconds, 0):
            for peer in sockets:
                _try(peer, [b"garbage"])
        for peer in sockets:
            peer.close()


def subscriptions(to: Endpoints, seconds: float) -> None:
    """Every one of another route, and beyond the limit of them, as fast as they go out."""
    with zmq.Context() as context, context.socket(zmq.XSUB) as peer:
        peer.setsockopt(zmq.SNDHWM, 0)  # it drops subscriptions beyond it
        _prepare(peer, to.stream)
        end = time.monotonic() + seconds
        for number in range(_SUBSCRIPTIONS):
            peer.send(f"\x01{CHANNEL}/rx?{number:x}:1fffffff;".encode())
            if time.monotonic() > end:
                return


def presences(to: Endpoints, seconds: float) -> None:
    """Many clients that are one."""
    with zmq.Context() as context, context.socket(zmq.XSUB) as peer:
        _prepare(peer, to.stream)
        for number in range(3_000):
            peer.send(f"\x01{CHANNEL}/@c{number};".encode())
        time.sleep(seconds)


def topics(to: Endpoints, seconds: float) -> None:
    """Topics as long as they may be, and longer; at the end all of them go at once."""
    for length in (MAX_TOPIC_BYTES, MAX_TOPIC_BYTES + 1000):
        with zmq.Context() as context, context.socket(zmq.XSUB) as peer:
            _prepare(peer, to.stream)
            for _ in _steps(seconds / 2, 0.05):
                peer.send(b"\x01" + random.randbytes(length))


def unread(to: Endpoints, seconds: float) -> None:
    """Asks for all frames of the past, again and again, and reads none."""
    past = {"topic": f"{CHANNEL}/rx;", "seconds": 1000.0}
    with zmq.Context() as context:
        sockets = [_dealer(context, endpoint) for endpoint in to.requests]
        for number in _steps(seconds, 0.002):
            for peer in sockets:
                _try(peer, [msgpack.packb([1, number, "history", past])])
        for peer in sockets:
            peer.close()


def strangers(to: Endpoints, seconds: float) -> None:
    """Connections that are no ZMTP, stop within the greeting, or go on byte by byte."""
    connections = []
    for endpoint in (to.stream, *to.requests):
        for number in range(100):
            connection = socket.socket(socket.AF_UNIX)
            connection.settimeout(_TIMEOUT_S)
            connection.connect(endpoint.removeprefix("ipc://"))
            connection.send(random.randbytes(50) if number % 10 else _GREETING[: number // 10])
            connections.append(connection)
    slow = connections[::10]
    for number in _steps(seconds, 0.05):
        for at, connection in enumerate(slow):
            try:
                begun = at % 10 + number
                connection.send(_GREETING[begun : begun + 1])
            except (BrokenPipeError, ConnectionResetError):
                continue  # it has hung up, as it may
    for connection in connections:
        connection.close()


ATTACKS: Final[Mapping[str, Callable[[Endpoints, float], None]]] = {
    attack.__name__: attack
    for attack in (busy, garbage, flood, subscriptions, presences, topics, unread, strangers)
}


class Figures(NamedTuple):
    """Round trips in ms: median, 99th percentile, worst; and the processes' growth in bytes."""

    before: tuple[float, float, float]
    during: tuple[float, float, float]
    grown: int


def measure(
    name: str,
    runtime: Runtime,
    sender: Bus,
    receiver: Bus,
    seconds: float = 1.0,
    round_trips: int = ROUND_TRIPS,
) -> Figures:
    """What the clients of ``runtime``'s channel notice of an attack.

    :raises AssertionError: a frame was lost, or a process of the broker has ended.
    """
    sender.send_periodic(Message(arbitration_id=0x70), 60).stop()  # starts the scheduler
    status = status_of(runtime)
    channel = next(channel for channel in status.channels if channel.name == CHANNEL)
    endpoints = Endpoints(
        channel.stream,
        [channel.transmit, channel.control, status.scheduler.control, str(runtime.address)],
    )
    before = round_trip_times(sender, receiver, round_trips)
    processes = {process: process.memory_info().rss for process in processes_of(runtime)}
    with _attacking(name, endpoints, seconds) as attack:
        during = round_trip_times(sender, receiver, round_trips)
        grown = _growth(processes)
        assert attack.wait(_TIMEOUT_S) == 0
    grown = max(grown, _growth(processes))
    assert set(processes_of(runtime)) == set(processes)
    return Figures(before, during, grown)


@contextmanager
def nobody() -> Iterator[Endpoints]:
    """Endpoints where nothing is ever answered."""
    with tempfile.TemporaryDirectory(prefix="cb-", dir="/tmp") as directory, ExitStack() as stack:
        paths = [f"{directory}/{number}" for number in range(5)]
        for path in paths:
            listening = stack.enter_context(socket.socket(socket.AF_UNIX))
            listening.bind(path)
            listening.listen(200)
        stream, *requests = (f"ipc://{path}" for path in paths)
        yield Endpoints(stream, requests)


def round_trip_times(sender: Bus, receiver: Bus, count: int) -> tuple[float, float, float]:
    times = []
    for number in range(count):
        began = time.perf_counter()
        sender.send(Message(arbitration_id=1, data=number.to_bytes(4, "big")), timeout=_TIMEOUT_S)
        message = receiver.recv(_TIMEOUT_S)
        while message is not None and message.arbitration_id != 1:
            message = receiver.recv(_TIMEOUT_S)
        assert message is not None
        assert int.from_bytes(message.data, "big") == number
        times.append((time.perf_counter() - began) * 1000)
        time.sleep(0.002)
    times.sort()
    return times[len(times) // 2], times[len(times) * 99 // 100], times[-1]


def _growth(processes: Mapping[psutil.Process, int]) -> int:
    return max(process.memory_info().rss - rss for process, rss in processes.items())


@contextmanager
def _attacking(
    name: str, endpoints: Endpoints, seconds: float
) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "tests.hostile", name, str(seconds), json.dumps(endpoints)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            yield process
        finally:
            process.kill()


def _dealer(context: zmq.Context[zmq.Socket[bytes]], endpoint: str) -> zmq.Socket[bytes]:
    peer = context.socket(zmq.DEALER)
    _prepare(peer, endpoint)
    return peer


def _prepare(peer: zmq.Socket[bytes], endpoint: str) -> None:
    peer.setsockopt(zmq.LINGER, 0)
    peer.setsockopt(zmq.RCVHWM, 1)
    peer.connect(endpoint)


def _try(peer: zmq.Socket[bytes], parts: list[bytes]) -> None:
    try:
        peer.send_multipart(parts, zmq.NOBLOCK)
    except zmq.Again:
        return


def _steps(seconds: float, pause_s: float) -> Iterator[int]:
    """Counts, for the time that an attack has."""
    end = time.monotonic() + seconds
    number = 0
    while time.monotonic() < end:
        yield number
        number += 1
        time.sleep(pause_s)


def _show() -> None:
    print(f"{'p50, p99, max in ms':20}{'before':18}{'at nobody':18}{'at us':19}p99   MiB")
    for name in ATTACKS:
        with (
            private_runtime() as runtime,
            Bus("x", "virtual") as sender,
            Bus("x", "virtual") as receiver,
        ):
            with nobody() as endpoints, _attacking(name, endpoints, _SHOWN_S):
                elsewhere = round_trip_times(sender, receiver, _SHOWN_ROUND_TRIPS)
            found = measure(name, runtime, sender, receiver, _SHOWN_S, _SHOWN_ROUND_TRIPS)
        shown = (found.before, elsewhere, found.during)
        times = "".join("".join(f"{ms:6.2f}" for ms in figures) for figures in shown)
        ratio = found.during[1] / found.before[1]
        print(f"{name:14}{times}{ratio:6.1f}x{found.grown >> 20:6}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print("begins", flush=True)
        ATTACKS[sys.argv[1]](Endpoints(*json.loads(sys.argv[3])), float(sys.argv[2]))
    else:
        _show()
