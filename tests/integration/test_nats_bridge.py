"""The bridge to a real NATS server: each frame is in the stream once, whoever is killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from canbroker.transport.runtime import Runtime
from tests.support.bridges import (
    CHANNEL,
    PATIENCE_S,
    SUBJECT,
    bridge,
    bridged,
    is_sound,
    kill_bridge,
    kill_channel,
    read_all,
    send,
    wait_connected,
    wait_for,
)
from tests.support.brokers import wait_until
from tests.support.ledger import Sender, Sent
from tests.support.nats_servers import NatsServer, needs_server
from tests.support.nats_stream import Found, read

pytestmark = needs_server


@pytest.fixture
def nats(tmp_path: Path) -> Iterator[NatsServer]:
    with NatsServer(tmp_path / "nats") as server:
        yield server


def pause(seconds: float) -> None:
    """Traffic goes on meanwhile."""
    signal.sigtimedwait([], seconds)


def test_each_frame_is_in_the_stream_once(
    runtime: Runtime, tmp_path: Path, nats: NatsServer
) -> None:
    with bridged(runtime, tmp_path, nats.url):
        send(range(10_000))
        wait_for(runtime, 10_000)
        found = bridge(runtime)
        assert (found.lost, found.gaps, found.duplicates, found.trouble) == (0, 0, 0, "")
        assert (found.phase, found.connections) == ("running", 1)
    stored = read(nats.url, SUBJECT)
    assert stored.numbers == list(range(10_000))
    assert (stored.again, stored.missing, stored.lost, stored.gaps) == (0, 0, 0, 0)


@pytest.mark.parametrize("who", ["server", "bridge", "both"])
def test_nothing_is_lost_or_there_twice_by_a_kill(
    runtime: Runtime, tmp_path: Path, nats: NatsServer, who: str
) -> None:
    with bridged(runtime, tmp_path, nats.url):
        with Sender(("x", "virtual"), 0x100, 4000, each=20) as sender:
            sender.start()
            wait_until(lambda: bridge(runtime).frames, "it publishes", PATIENCE_S)
            for _ in range(3):
                if who in {"server", "both"}:
                    nats.kill()
                if who in {"bridge", "both"}:
                    kill_bridge(runtime)
                pause(0.5)
                if who in {"server", "both"}:
                    nats.start()
                wait_connected(runtime)
            sent = sender.stop()
        stored = read_all(nats.url, sent.confirmed)
    assert sent.failed == 0
    assert (len(stored.numbers), stored.lost, stored.gaps) == (sent.confirmed, 0, 0)
    assert is_sound(stored)


def test_a_killed_channel_loses_nothing_that_it_had_taken(
    runtime: Runtime, tmp_path: Path, nats: NatsServer
) -> None:
    with bridged(runtime, tmp_path, nats.url):
        send(range(1000))
        wait_for(runtime, 1000)
        kill_channel(runtime)
        nats.kill()
        send(range(1000, 2000))
        kill_channel(runtime)
        kill_bridge(runtime)
        send(range(2000, 3000))
        nats.start()
        stored = read_all(nats.url, 3000)
    assert stored.numbers == list(range(3000))
    assert (stored.lost, stored.gaps, stored.again, stored.missing) == (0, 0, 0, 0)
    assert stored.epochs == 3


def test_frames_from_before_the_first_answer_outlive_bridge_and_channel(
    runtime: Runtime, tmp_path: Path
) -> None:
    """The server comes after both were killed: the stream knows nothing of their first lives."""
    nats = NatsServer(tmp_path / "nats")
    with bridged(runtime, tmp_path, nats.url):
        for first in (0, 1000):
            send(range(first, first + 1000))
            kill_channel(runtime)
            kill_bridge(runtime)
        send(range(2000, 3000))
        with nats:
            stored = read_when_connected(runtime, nats, 3000)
    assert stored.numbers == list(range(3000))
    assert (stored.lost, stored.gaps, stored.again, stored.missing) == (0, 0, 0, 0)
    assert stored.epochs == 3


def read_when_connected(runtime: Runtime, nats: NatsServer, frames: int) -> Found:
    wait_connected(runtime)
    return read_all(nats.url, frames)


def test_a_server_that_is_stopped_without_a_word_is_left(
    runtime: Runtime, tmp_path: Path, nats: NatsServer
) -> None:
    """It does not close the connection: nobody answers, as after a network has gone."""
    with bridged(runtime, tmp_path, nats.url):
        wait_connected(runtime)
        send(range(1000))
        nats.pause()
        try:
            send(range(1000, 2000))
            wait_until(lambda: bridge(runtime).trouble, "it notices", PATIENCE_S)
        finally:
            nats.resume()
        stored = read_all(nats.url, 2000)
    assert stored.numbers == list(range(2000))
    assert is_sound(stored)


def test_what_the_ring_has_not_is_counted_to_the_frame(
    runtime: Runtime, tmp_path: Path, nats: NatsServer
) -> None:
    """The server is away for longer than the ring has room."""
    top = f"[broker]\nring_mb = 1\n{CHANNEL}"
    with bridged(runtime, tmp_path, nats.url, top=top):
        send(range(1000))
        wait_for(runtime, 1000)
        nats.kill()
        wait_until(lambda: not bridge(runtime).server, "it notices", PATIENCE_S)
        send(range(1000, 150_000))
        kill_bridge(runtime)  # its successor does not have what has arrived before
        nats.start()
        wait_connected(runtime)
        send(range(150_000, 151_000))
        stored = read_all(nats.url, 151_000)
    assert stored.lost > 0
    assert len(stored.numbers) + stored.lost == 151_000
    assert stored.gaps == 0
    assert stored.numbers[-1] == 150_999
    assert is_sound(stored)


def test_a_broker_that_stops_has_published_all(
    runtime: Runtime, tmp_path: Path, nats: NatsServer
) -> None:
    with bridged(runtime, tmp_path, nats.url):
        wait_connected(runtime)
        send(range(5000))
    assert read(nats.url, SUBJECT).numbers == list(range(5000))
    with bridged(runtime, tmp_path, nats.url):
        wait_connected(runtime)
        send(range(5000, 6000))
    stored = read(nats.url, SUBJECT)
    assert stored.numbers == list(range(6000))
    assert stored.epochs == 2


def through_an_outage(
    runtime: Runtime, tmp_path: Path, nats: NatsServer, seconds: float
) -> tuple[Sent, Found]:
    """The server is away, at the rate of a full bus of 1 Mbit/s, with the ring that a broker has
    unless told."""
    with bridged(runtime, tmp_path, nats.url):
        with Sender(("x", "virtual"), 0x100, 8000, each=40) as sender:
            sender.start()
            wait_until(lambda: bridge(runtime).frames, "it publishes", PATIENCE_S)
            nats.kill()
            pause(seconds)
            nats.start()
            wait_connected(runtime)
            sent = sender.stop()
        return sent, read_all(nats.url, sent.confirmed)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_longer_without_a_server_than_the_ring_reaches_is_counted_to_the_frame(
    runtime: Runtime, tmp_path: Path, nats: NatsServer
) -> None:
    """For ``CANBROKER_OUTAGE_S`` seconds at the rate of a full bus; the ring reaches 60 s back."""
    outage = float(os.environ.get("CANBROKER_OUTAGE_S", "90"))
    sent, stored = through_an_outage(runtime, tmp_path, nats, outage)
    assert stored.lost > 0
    assert (len(stored.numbers) + stored.lost, stored.gaps) == (sent.confirmed, 0)
    assert is_sound(stored)


@pytest.mark.long
@pytest.mark.timeout(240)
def test_a_minute_without_a_server_loses_nothing(
    runtime: Runtime, tmp_path: Path, nats: NatsServer
) -> None:
    sent, stored = through_an_outage(runtime, tmp_path, nats, 58)
    assert (len(stored.numbers), stored.lost, stored.gaps) == (sent.confirmed, 0, 0)
    assert is_sound(stored)
