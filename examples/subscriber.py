"""A subscriber that does not need canbroker, only pyzmq, msgpack and docs/protocol.md.

Usage: subscriber.py ENDPOINT CHANNEL FILTERS [COUNT]

    subscriber.py ipc:///run/user/1000/canbroker/virtual.x.rx virtual.x '?451:7ff'

On Windows and macOS there is a file at that path, which says where the channel listens.

FILTERS is '' for all frames, or a question mark and filters. Prints each frame like candump, and
how many frames were lost; ends after COUNT frames.
"""
# ruff: noqa: T201 - this program prints

from __future__ import annotations

import json
import secrets
import sys
from pathlib import Path
from typing import Any

import msgpack
import zmq

EXTENDED, REMOTE, FD, BITRATE_SWITCH, ERROR_STATE = 1, 2, 8, 16, 32
FRAMES, HEARTBEAT, END, ERROR, EVENT = range(5)
SILENCE_MS = 1500


def text_of(frame: list[Any]) -> str:
    """A frame in candump's notation."""
    timestamp_ns, arbitration_id, flags, data = frame[:4]
    identifier = f"{arbitration_id:0{8 if flags & EXTENDED else 3}X}"
    if flags & REMOTE:
        rest = f"#R{data}"
    elif flags & FD:
        bits = bool(flags & BITRATE_SWITCH) + 2 * bool(flags & ERROR_STATE)
        rest = f"##{bits:X}{data.hex().upper()}"
    else:
        rest = f"#{data.hex().upper()}"
    return f"({timestamp_ns // 10**9}.{timestamp_ns // 1000 % 10**6:06}) {identifier}{rest}"


def connect(socket: zmq.Socket[bytes], endpoint: str) -> None:
    """Connects to a Unix socket, or to the port that a file in its place names."""
    path = Path(endpoint.removeprefix("ipc://"))
    if path.is_file():  # which a socket is not
        key = json.loads(path.with_name("fabric.key").read_bytes())
        socket.curve_serverkey = socket.curve_publickey = key["public"].encode()
        socket.curve_secretkey = key["secret"].encode()
        endpoint = json.loads(path.read_bytes())["endpoint"]
    socket.connect(endpoint)


def main(endpoint: str, channel: str, filters: str, count: float) -> int:
    epoch = expected = received = lost = 0
    with zmq.Context() as context, context.socket(zmq.SUB) as socket:
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.RCVTIMEO, SILENCE_MS)
        connect(socket, endpoint)
        socket.subscribe(f"{channel}/rx{filters};")
        # Second, so that its answer confirms that both subscriptions are active.
        socket.subscribe(f"{channel}/@{secrets.token_hex(8)}{filters};")
        while received < count:
            try:
                _, body = socket.recv_multipart()
            except zmq.Again:
                sys.exit("the channel is silent")
            version, kind, its_epoch, first_seq, _, payload = msgpack.unpackb(body)[:6]
            if version != 1:
                sys.exit(f"protocol version {version}")
            if kind in {END, ERROR}:
                sys.exit(payload)
            if kind == EVENT:
                print("ready", file=sys.stderr, flush=True)
                continue
            if epoch and (its_epoch != epoch or first_seq < expected):
                print("frames were missed", file=sys.stderr)
            elif epoch:
                lost += first_seq - expected
            epoch, expected = its_epoch, first_seq + len(payload)
            received += len(payload)
            for frame in payload:
                print(text_of(frame), flush=True)
    print(f"received {received}, lost {lost}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    if len(sys.argv) not in {4, 5}:
        sys.exit(__doc__)
    wanted = int(sys.argv[4]) if len(sys.argv) == 5 else float("inf")
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3], wanted))
