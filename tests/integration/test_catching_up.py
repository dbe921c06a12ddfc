"""A client that was away, and catches up in pieces."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from canbroker import Bus, Message
from canbroker.bus.pieces import Pieces
from canbroker.transport.runtime import Runtime

FRAMES = 2_000
AT_ONCE = 20


class Pauses(Pieces):
    """Counts the chances to pause."""

    def __init__(self) -> None:
        super().__init__()
        self.chances = 0

    def pause(self) -> None:
        self.chances += 1
        super().pause()


@pytest.fixture
def away(runtime: Runtime) -> Iterator[Bus]:
    """A bus whose program has not looked for more than a second, while much has come."""
    with Bus("x", "virtual") as bus, Bus("x", "virtual") as other:
        bus._reception._pieces = Pauses()
        for first in range(0, FRAMES, AT_ONCE):
            other.send_batch([Message(arbitration_id=n) for n in range(first, first + AT_ONCE)])
        other.flush(20)
        time.sleep(1.1)
        other.send(Message(arbitration_id=FRAMES), timeout=20)
        yield bus


def chances(bus: Bus) -> int:
    pieces = bus._reception._pieces
    assert isinstance(pieces, Pauses)
    return pieces.chances


def test_it_pauses_while_it_reads_what_has_waited(away: Bus) -> None:
    numbers = [
        message.arbitration_id for message in (away.recv(20) for _ in range(FRAMES + 1)) if message
    ]
    assert numbers == list(range(FRAMES + 1))
    assert chances(away) > 1
    assert away.recv(0.1) is None  # all is read
    before = chances(away)
    with Bus("x", "virtual") as other:
        for number in range(100):
            other.send(Message(arbitration_id=number), timeout=20)
            assert away.recv(20) is not None
    assert chances(away) == before


def test_it_does_not_pause_where_it_may_not_wait(away: Bus) -> None:
    numbers = []
    while (message := away.recv(0)) is not None:
        numbers.append(message.arbitration_id)
    assert numbers == list(range(FRAMES + 1))
    assert chances(away) == 0
