"""What fuzzing has found, and what covers each decoder, once more. ``make fuzz`` looks for more."""

from __future__ import annotations

import msgpack
import pytest

from canbroker.delivery.replayer import Replayer
from canbroker.delivery.ring import MIN_BYTES, SLOT_BYTES, Ring, anonymous
from canbroker.delivery.routes import Route
from canbroker.logs import candump
from canbroker.model.filters import EVERYTHING
from canbroker.model.frame import FD, Frame
from canbroker.wire import stream
from canbroker.wire.replay import Replay, Replayed
from tests.fuzz.mutation import mutated
from tests.fuzz.targets import CORPUS, TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_the_corpus_holds(name: str) -> None:
    inputs = sorted((CORPUS / name).iterdir())
    assert inputs
    for path in inputs:
        try:
            TARGETS[name](path.read_bytes())
        except Exception as error:
            error.add_note(f"input: {path}")
            raise


def test_the_corpus_is_that_of_the_targets() -> None:
    assert {path.name for path in CORPUS.iterdir()} == set(TARGETS)
    assert sum(path.stat().st_size for path in CORPUS.glob("*/*")) < 300_000


def test_an_error_frame_is_never_an_fd_frame() -> None:
    with pytest.raises(ValueError, match="an error frame is never an FD frame"):
        candump.parse_frame("3FFFFFFF##0008289340289")


@pytest.mark.parametrize("header", [b"\xff" * 36, bytes(8) + b"\x01" * 28])
def test_a_damaged_slot_of_a_predecessor_is_passed_over(header: bytes) -> None:
    memory = anonymous()
    for start in range(0, MIN_BYTES, SLOT_BYTES):
        memory[start : start + len(header)] = header
    ring = Ring(memory, 1, 60)
    assert [(segment.epoch, segment.count) for segment in ring.segments] == [(1, 0)]
    ring.close()


def test_frames_behind_a_damaged_slot_keep_their_numbers() -> None:
    memory = anonymous(6 * SLOT_BYTES)
    route = Route(b"can0/rx;", EVERYTHING)
    before = Ring(memory, 1, 60)
    count = 2000  # with so many bytes, a slot each
    for number in range(3):
        before.append([stream.pack_frame(Frame(number, number, FD, bytes(64)))] * count, [route])
        route.next_seq += count
    damaged = before.segments[1].start + 36
    memory[damaged : damaged + 4] = b"\xc1" * 4
    ring = Ring(memory, 2, 60)
    replayer = Replayer(ring, "can0", 2, lambda _: None)
    answers = []
    for first in range(4):
        wanted = Replay(topic="can0/rx;", epoch=1, first_seq=first * count)
        while (answer := replayer.replay(wanted)) is None:
            continue
        answers.append(answer)
    assert [(a.first_seq, a.complete) for a in answers if isinstance(a, Replayed)] == [
        (0, False),  # the rest is asked for from there on
        (2 * count, False),
        (2 * count, False),
        (3 * count, True),
    ]
    ring.close()


def test_mutations_are_messages_again() -> None:
    body = msgpack.packb([1, 0, 5, {"a": [1, b"2", "\N{SNOWMAN}"]}])
    made = {mutated(body, seed, lambda data: data) for seed in range(200)}
    assert len(made) > 100
    for data in made:
        msgpack.unpackb(data, strict_map_key=False)
