"""When idle routes are told their next number; the time is passed in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import pytest

from canbroker.delivery.publisher import HEARTBEAT_NS, IDLE_HEARTBEAT_NS, Publisher
from canbroker.delivery.ring import Ring, anonymous
from canbroker.delivery.subscriber import SILENCE_NS
from canbroker.model.frame import Frame
from canbroker.system import clock
from canbroker.transport.address import IpcAddress
from canbroker.transport.sockets import Context
from canbroker.wire.replay import Hold

SECOND = clock.SECOND


class Bench:
    """A publisher with routes, and a time that only the test moves."""

    def __init__(self, publisher: Publisher, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = clock.monotonic_ns()
        monkeypatch.setattr(clock, "monotonic_ns", lambda: self.now)
        self.sent: list[tuple[int, bytes]] = []  # when, and on which topic
        monkeypatch.setattr(publisher, "_send", self._note)
        self.publisher = publisher

    def _note(self, topic: bytes, _: bytes) -> None:
        self.sent.append((self.now, topic))

    def open(self, topic: str) -> None:
        self.publisher.begin_hold(Hold(topic=topic, holder="bench", seconds=60.0, epoch=1))
        self.publisher.greet()

    def run(self, seconds: float) -> list[int]:
        """The times of heartbeats, each called for when it is due; from now on."""
        begin, self.sent = self.now, []
        wakes: list[int] = []
        until = begin + int(seconds * SECOND)
        while (due_ns := self.publisher.heartbeat(self.now)) is not None and due_ns <= until:
            assert due_ns > self.now
            self.now = due_ns
            wakes.append(self.now - begin)
        self.now = until
        return wakes


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    with closing(Context()) as context:
        ring = Ring(anonymous(), 1, 60.0)
        publisher = Publisher(context, IpcAddress(tmp_path / "can0.rx"), "can0", 1, ring)
        with monkeypatch.context() as patched:
            yield Bench(publisher, patched)
        publisher.close("the test is over")


def test_the_end_of_a_stream_is_told_soon_and_silence_less_often(bench: Bench) -> None:
    bench.open("can0/rx;")
    bench.run(10)
    bench.publisher.publish([Frame(0, 1, 0, b"")])
    wakes = bench.run(10)
    assert wakes[0] == HEARTBEAT_NS
    assert [later - earlier for earlier, later in pairwise(wakes)][:4] == [HEARTBEAT_NS] * 4
    assert len(wakes) == 5 + (10 * SECOND - wakes[4]) // IDLE_HEARTBEAT_NS


def test_a_subscriber_that_misses_one_does_not_take_it_for_the_end() -> None:
    assert 2 * IDLE_HEARTBEAT_NS < SILENCE_NS


def test_routes_have_their_heartbeats_together(bench: Bench) -> None:
    for number in range(10):
        bench.open(f"can0/rx?{number:03x}:7ff;")
        bench.now += 37 * clock.MILLISECOND
    bench.run(10)
    wakes = bench.run(10)
    assert len(wakes) == 10 * SECOND // IDLE_HEARTBEAT_NS
