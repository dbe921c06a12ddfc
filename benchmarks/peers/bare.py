"""ZeroMQ alone: what the machine gives to anything that is built on it.

Frames are packed and unpacked as on our wire, as plain rows: nobody builds messages, checks,
filters or acknowledges.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final

import msgspec
import zmq

from benchmarks.peers import CLASSIC_BYTES, SILENCE_S, Receiver, Sender
from canbroker.model.frame import EXTENDED, FD, Frame
from canbroker.wire.stream import encode_frames, pack_frame

_TOPIC: Final = b"bench;"
_BATCH: Final = 128  # as many as our batches easily have


class Publisher(Sender):
    """PUB → SUB, ``batch`` frames a message."""

    batch = _BATCH

    def __init__(self, endpoint: str) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.XPUB)
        # Unbounded: this shall be the rate of ZeroMQ, and not what it drops.
        self._socket.setsockopt(zmq.SNDHWM, 0)
        self._socket.setsockopt(zmq.XPUB_VERBOSE, 1)
        self._socket.bind(endpoint)

    def message(self, arbitration_id: int, data: bytes, *, extended: bool = False) -> Frame:
        flags = (EXTENDED if extended else 0) | (FD if len(data) > CLASSIC_BYTES else 0)
        return Frame(time.time_ns(), arbitration_id, flags, data)

    def send(self, message: Frame) -> None:
        self._publish([message])

    def send_all(self, messages: Sequence[Frame]) -> None:
        for start in range(0, len(messages), self.batch):
            self._publish(messages[start : start + self.batch])

    def wait_for(self, receivers: int) -> None:
        for _ in range(receivers):
            self._socket.recv()  # its subscription

    def close(self) -> None:
        self._socket.close()
        self._context.term()

    def _publish(self, frames: Sequence[Frame]) -> None:
        self._socket.send(_TOPIC, zmq.SNDMORE)
        self._socket.send(encode_frames(1, 0, 0, [pack_frame(frame) for frame in frames]))


class SinglePublisher(Publisher):
    """One frame a message."""

    batch = 1


class Subscriber(Receiver):
    """The other end."""

    def __init__(self, endpoint: str) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.SUB)
        self._socket.setsockopt(zmq.RCVHWM, 0)
        self._socket.connect(endpoint)
        self._socket.subscribe(_TOPIC)
        self._unpack = msgspec.msgpack.Decoder(list[Any]).decode

    def count(self, expected: int) -> tuple[int, int]:
        received = last = 0
        while received < expected and (frames := self._next()):
            last = time.monotonic_ns()
            received += len(frames)
        return received, last

    def receive(self) -> bytes | None:
        frames = self._next()
        return frames[0][3] if frames else None

    def close(self) -> None:
        self._socket.close()
        self._context.term()

    def _next(self) -> list[tuple[int, int, int, bytes]]:
        if not self._socket.poll(int(SILENCE_S * 1000)):
            return []
        _topic, body = self._socket.recv_multipart()
        frames: list[tuple[int, int, int, bytes]] = self._unpack(body)[5]
        return frames
