"""Follows one route of a channel with ZeroMQ and MessagePack alone: nothing here is canbroker's.

Usage: ``plain_subscriber.py ENDPOINT ROUTE-TOPIC PRIVATE-TOPIC``. The protocol is in
``docs/protocol.md``. It prints a line of JSON when it is ready, twice a second, and at the end,
which is when its standard input ends.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections import deque
from pathlib import Path
from typing import Any

import msgpack
import zmq

VERSION = 1
KIND_FRAMES, KIND_HEARTBEAT, KIND_EVENT = 0, 1, 4
FLAG_EXTENDED = 1
REPORT_S = 0.5


class Route:
    """The frames of a route, checked by epoch and number."""

    def __init__(self, topic: bytes, private: bytes) -> None:
        self.ready = False
        self._topic = topic
        self._private = private
        self._epoch = 0
        self._next_seq = 0
        self._frames = 0
        self._lost = 0
        self._restarts = 0
        self._hash = hashlib.sha256()
        self._latencies_ns: deque[int] = deque(maxlen=10_000)
        self._since = (time.monotonic(), 0)

    def take(self, topic: bytes, packed: bytes) -> None:
        version, kind, epoch, first_seq, _dropped, payload = msgpack.unpackb(packed)[:6]
        if version != VERSION or kind not in (KIND_FRAMES, KIND_HEARTBEAT, KIND_EVENT):
            sys.exit(f"{topic.decode()}: version {version}, kind {kind}: {payload}")
        if topic == self._private:  # our filters are active from this number on
            self._restarts += int(self.ready and epoch != self._epoch)
            self._epoch, self._next_seq, self.ready = epoch, payload["next_seq"], True
        elif topic == self._topic and self.ready:
            self._batch(epoch, first_seq, payload)

    def _batch(self, epoch: int, first_seq: int, rows: list[list[Any]]) -> None:
        now_ns = time.time_ns()
        if epoch != self._epoch:
            self._restarts += 1
            self._epoch, self._next_seq = epoch, first_seq
        self._lost += first_seq - self._next_seq  # below 0: a repetition, which is as bad
        self._next_seq = first_seq + len(rows)
        for timestamp_ns, arbitration_id, flags, data, *_origin in rows:
            content = f"r{data}" if isinstance(data, int) else data.hex()
            frame_format = "x" if flags & FLAG_EXTENDED else "s"
            self._hash.update(f"{arbitration_id:x} {frame_format} {content}\n".encode())
            self._latencies_ns.append(now_ns - timestamp_ns)
        self._frames += len(rows)

    def report(self, *, final: bool) -> None:
        now = time.monotonic()
        at, frames = self._since
        self._since = (now, self._frames)
        ordered = sorted(self._latencies_ns)
        values = {
            "frames": self._frames,
            "lost": self._lost,
            "restarts": self._restarts,
            "rate": (self._frames - frames) / max(now - at, 1e-9),
            "p50_us": ordered[len(ordered) // 2] / 1000 if ordered else None,
            "p99_us": ordered[len(ordered) * 99 // 100] / 1000 if ordered else None,
            "digest": self._hash.hexdigest() if final else "",
        }
        sys.stdout.write(json.dumps(values) + "\n")
        sys.stdout.flush()


def follow(socket: zmq.Socket[bytes], route: Route) -> None:
    """Takes what arrives until standard input ends."""
    poller = zmq.Poller()
    poller.register(socket, zmq.POLLIN)
    poller.register(sys.stdin, zmq.POLLIN)
    due = None  # the first report says that the route is ready
    while True:
        left = 1.0 if due is None else due - time.monotonic()
        ready = dict(poller.poll(max(0, int(left * 1000))))
        while socket.poll(0):
            topic, body = socket.recv_multipart()
            route.take(topic, body)
        if route.ready and (due is None or time.monotonic() >= due):
            route.report(final=False)
            due = time.monotonic() + REPORT_S
        if sys.stdin.fileno() in ready:
            route.report(final=True)
            return


def connect(socket: zmq.Socket[bytes], path: Path) -> None:
    """Connects to the Unix socket at ``path``, or as the file there says."""
    if not path.is_file():
        socket.connect(f"ipc://{path}")
        return
    key = json.loads(path.with_name("fabric.key").read_bytes())
    socket.setsockopt_string(zmq.CURVE_SERVERKEY, key["public"])
    socket.setsockopt_string(zmq.CURVE_PUBLICKEY, key["public"])
    socket.setsockopt_string(zmq.CURVE_SECRETKEY, key["secret"])
    socket.connect(json.loads(path.read_bytes())["endpoint"])


def main() -> None:
    endpoint, topic, private = sys.argv[1:4]
    route = Route(topic.encode(), private.encode())
    with zmq.Context() as context, context.socket(zmq.SUB) as socket:
        socket.setsockopt(zmq.RCVHWM, 20_000)
        connect(socket, Path(endpoint.removeprefix("ipc://")))
        # In this order: the answer on the private topic then says that the route is active.
        socket.subscribe(topic)
        socket.subscribe(private)
        follow(socket, route)


if __name__ == "__main__":
    main()
