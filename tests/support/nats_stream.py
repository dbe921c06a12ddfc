"""What is in a stream of a real NATS server, read as a consumer does, and by plain counting."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from canbroker.jetstream import heads
from canbroker.jetstream.heads import Head
from canbroker.jetstream.places import Follower
from canbroker.jetstream.server import Server, connect
from canbroker.wire.stream import decode_batch

_PATIENCE_S = 20.0


@dataclass
class Found:
    """Of one subject. ``numbers``: the first four bytes of each frame, in the order of the stream.

    ``begins``: at which of them an epoch begins. ``again``: frames that a follower has had before;
    ``missing``: that it never gets; ``lost``: as gap messages say, ``gaps``: how many say nothing
    of a number.
    """

    numbers: list[int] = field(default_factory=list)
    heads: list[Head] = field(default_factory=list)
    begins: list[int] = field(default_factory=list)
    again: int = 0
    missing: int = 0
    lost: int = 0
    gaps: int = 0

    @property
    def epochs(self) -> int:
        return len({head.epoch for head in self.heads})


def read(url: str | list[str], subject: str) -> Found:
    """All messages of a subject."""
    return asyncio.run(_read(url, subject))


async def _read(url: str | list[str], subject: str) -> Found:
    client = await connect(Server(url=url), "test")
    found, follower = Found(), Follower()
    try:
        js = client.jetstream(timeout=_PATIENCE_S)
        stream = await js.find_stream_name_by_subject(subject)
        info = await js.stream_info(stream, subjects_filter=subject)
        left = (info.state.subjects or {}).get(subject, 0)
        subscription = await js.subscribe(subject, ordered_consumer=True)
        for _ in range(left):
            message = await subscription.next_msg(_PATIENCE_S)
            _note(found, follower, heads.parse(message.headers), message.data)
    finally:
        await client.close()
    return found


def _note(found: Found, follower: Follower, head: Head, body: bytes) -> None:
    batch = decode_batch(body)
    assert isinstance(batch.payload, list)
    assert len(batch.payload) == head.frames
    assert (batch.epoch, batch.first_seq) == (
        head.epoch,
        head.first_seq if head.gap is None else head.next_seq,
    )
    if not found.heads or found.heads[-1].epoch != head.epoch:
        found.begins.append(len(found.numbers))
    found.heads.append(head)
    step = follower.follow(head)
    found.again += step.skip
    found.missing += step.missing
    if head.gap is not None and head.gap.kind == heads.LOST_FRAMES:
        found.lost += head.gap.lost or 0
        found.gaps += head.gap.lost is None
    for frame in batch.payload[step.skip :]:
        assert isinstance(frame.data, bytearray)
        found.numbers.append(int.from_bytes(frame.data[:4], "big"))
