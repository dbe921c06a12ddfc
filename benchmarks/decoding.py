"""What a client does with a frame that has arrived: decoding a batch and making messages of it."""

from __future__ import annotations

import time
from typing import Final

from benchmarks.figures import US, Key
from canbroker.model.frame import EchoFrame
from canbroker.model.message import Message
from canbroker.wire.stream import decode_batch, encode_frames, pack_frame

LOAD: Final = "decode and construct"
_BATCH: Final = 128


def decoding(count: int) -> dict[Key, float]:
    """Microseconds of processor time a frame, in batches as streams have them."""
    frames = [EchoFrame(time.time_ns(), n, 0, bytes(8), "c1") for n in range(_BATCH)]
    body = encode_frames(time.time_ns(), 12_345, 0, [pack_frame(frame) for frame in frames])
    rounds = count // _BATCH
    decode_ns = construct_ns = 0
    for _ in range(rounds):
        began = time.thread_time_ns()
        payload = decode_batch(body).payload
        decoded = time.thread_time_ns()
        if isinstance(payload, str):
            raise TypeError("a batch of frames")
        Message.from_frames(payload, "bench")
        construct_ns += time.thread_time_ns() - decoded
        decode_ns += decoded - began
    per_frame = 1000 * rounds * _BATCH
    return {
        Key(LOAD, US, "decode", "µs/frame"): decode_ns / per_frame,
        Key(LOAD, US, "construct", "µs/frame"): construct_ns / per_frame,
        Key(LOAD, US, "both", "µs/frame"): (decode_ns + construct_ns) / per_frame,
    }
