"""The bridge to a real NATS server: each frame is in the stream once, whoever is killed."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from canbroker import Bus, Message
from canbroker.jetstream import subjects
from canbroker.transport.runtime import Runtime
from canbroker.wire.status import NatsStatus
from tests.support.brokers import status_of, wait_until
from tests.support.ledger import Sender, serving
from tests.support.nats import NatsServer, needs_server
from tests.support.nats_stream import Found, read

pytestmark = needs_server

#: With a dot, a blank and a wildcard, all of which NATS does not allow in names.
BENCH = "bench.7 >"
SUBJECT = subjects.frames("lab", BENCH, "x")

PATIENCE_S = 30.0


CHANNEL = '[channels.x]\ninterface = "virtual"\n'


@contextmanager
def bridged(runtime: Runtime, tmp_path: Path, url: str, more: str = "") -> Iterator[None]:
    """A broker whose channel ``x`` is published. ``more``: further lines of ``[nats]``."""
    table = f'[nats]\nurl = "{url}"\nsite = "lab"\nbench = "{BENCH}"\n{more}\n'
    with serving(runtime, tmp_path, CHANNEL + table):
        yield


@pytest.fixture
def nats(tmp_path: Path) -> Iterator[NatsServer]:
    with NatsServer(tmp_path / "nats") as server:
        yield server


def status(runtime: Runtime) -> NatsStatus:
    found = status_of(runtime).nats
    assert found is not None
    return found


def message(number: int) -> Message:
    return Message(arbitration_id=1, data=number.to_bytes(4, "big"), is_extended_id=False)


def wait_for(runtime: Runtime, frames: int) -> None:
    """Waits until all frames are acknowledged or counted."""

    def is_done() -> bool:
        found = status(runtime)
        return found.frames + found.lost >= frames and not found.unacknowledged

    wait_until(is_done, f"{frames} frames are in the stream", PATIENCE_S)


def send(numbers: range) -> None:
    with Bus("x") as bus:
        for begin in range(numbers.start, numbers.stop, 1000):
            part = range(begin, min(begin + 1000, numbers.stop))
            bus.send_batch([message(number) for number in part], timeout=20)


def test_each_frame_is_in_the_stream_once(
    runtime: Runtime, tmp_path: Path, nats: NatsServer
) -> None:
    with bridged(runtime, tmp_path, nats.url):
        send(range(10_000))
        wait_for(runtime, 10_000)
        found = status(runtime)
        assert (found.lost, found.gaps, found.duplicates, found.trouble) == (0, 0, 0, "")
        assert (found.phase, found.connections) == ("running", 1)
    stored = read(nats.url, SUBJECT)
    assert stored.numbers == list(range(10_000))
    assert (stored.again, stored.missing, stored.lost, stored.gaps) == (0, 0, 0, 0)


def kill_bridge(runtime: Runtime) -> None:
    pid = status(runtime).pid
    if pid is not None:
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: status(runtime).pid not in {pid, None}, "another bridge", PATIENCE_S)


def kill_channel(runtime: Runtime) -> None:
    (channel,) = status_of(runtime).channels
    if channel.pid is not None:
        os.kill(channel.pid, signal.SIGKILL)
        pid = channel.pid
        wait_until(
            lambda: status_of(runtime).channels[0].pid not in {pid, None}, "it is back", PATIENCE_S
        )


def kill_server(nats: NatsServer) -> None:
    nats.kill()
    signal.sigtimedwait([], 0.7)
    nats.start()


def read_all(url: str, frames: int) -> Found:
    """The stream, once all frames are in it or counted; or what there is in the end."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        stored = read(url, SUBJECT)
        if len(stored.numbers) + stored.lost >= frames or time.monotonic() > deadline:
            return stored
        signal.sigtimedwait([], 0.2)


def is_sound(stored: Found) -> bool:
    ordered = stored.numbers == sorted(set(stored.numbers))
    return ordered and not stored.again and not stored.missing


@pytest.mark.parametrize("who", ["server", "bridge", "both"])
def test_nothing_is_lost_or_there_twice_by_a_kill(
    runtime: Runtime, tmp_path: Path, nats: NatsServer, who: str
) -> None:
    with bridged(runtime, tmp_path, nats.url):
        with Sender(("x", "virtual"), 0x100, 4000, each=20) as sender:
            sender.start()
            wait_until(lambda: status(runtime).frames, "it publishes", PATIENCE_S)
            for _ in range(3):
                if who in {"server", "both"}:
                    nats.kill()
                if who in {"bridge", "both"}:
                    kill_bridge(runtime)
                signal.sigtimedwait([], 0.5)
                if who in {"server", "both"}:
                    nats.start()
                wait_until(lambda: status(runtime).server, "it is connected", PATIENCE_S)
            sent = sender.stop()
        stored = read_all(nats.url, sent.confirmed)
    assert sent.failed == 0
    assert (len(stored.numbers), stored.lost, stored.gaps) == (sent.confirmed, 0, 0)
    assert is_sound(stored)
