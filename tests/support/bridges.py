"""Brokers with a bridge to a real NATS server, for tests."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from canbroker import Bus, Message
from canbroker.jetstream import subjects
from canbroker.transport.runtime import Runtime
from canbroker.wire.status import NatsStatus
from tests.support.brokers import status_of, wait_until
from tests.support.ledger import serving
from tests.support.nats_stream import Found, read

SITE = "lab"
#: With a dot, a blank and a wildcard, all of which NATS does not allow in names.
BENCH = "bench.7 >"
SUBJECT = subjects.frames(SITE, BENCH, "x")

PATIENCE_S = 30.0

CHANNEL = '[channels.x]\ninterface = "virtual"\n'


@contextmanager
def bridged(
    runtime: Runtime,
    directory: Path,
    url: str | list[str],
    more: str = "",
    *,
    top: str = CHANNEL,
    log: IO[bytes] | None = None,
) -> Iterator[None]:
    """A broker whose channel ``x`` is published.

    :param more: further lines of ``[nats]``.
    :param top: what is above it in the configuration.
    :param log: where the broker writes its log.
    """
    table = f'[nats]\nurl = {json.dumps(url)}\nsite = "{SITE}"\nbench = "{BENCH}"\n{more}\n'
    with serving(runtime, directory, top + table, log):
        yield


def bridge(runtime: Runtime) -> NatsStatus:
    """What the broker says of its bridge."""
    found = status_of(runtime).nats
    assert found is not None
    return found


def message(number: int) -> Message:
    return Message(arbitration_id=1, data=number.to_bytes(4, "big"), is_extended_id=False)


def send(numbers: range, channel: str = "x") -> None:
    """Sends numbered frames; returns when the channel has taken them."""
    with Bus(channel, "virtual") as bus:
        for begin in range(numbers.start, numbers.stop, 1000):
            part = range(begin, min(begin + 1000, numbers.stop))
            bus.send_batch([message(number) for number in part], timeout=20)


def wait_connected(runtime: Runtime) -> None:
    wait_until(lambda: bridge(runtime).server, "the bridge is connected", PATIENCE_S)


def wait_for(runtime: Runtime, frames: int) -> None:
    """Waits until so many frames are acknowledged or counted by this bridge."""

    def is_done() -> bool:
        found = bridge(runtime)
        return found.frames + found.lost >= frames and not found.unacknowledged

    wait_until(is_done, f"{frames} frames are in the stream", PATIENCE_S)


def wait_for_trouble(runtime: Runtime, text: str, seconds: float = PATIENCE_S) -> str:
    """Waits until the bridge says this; returns all that it says."""

    def is_told() -> bool:
        return text in bridge(runtime).trouble

    try:
        wait_until(is_told, f"the bridge says {text!r}", seconds)
    except AssertionError as error:
        raise AssertionError(f"{error}; it says {bridge(runtime).trouble!r}") from error
    return bridge(runtime).trouble


def read_all(url: str | list[str], frames: int, subject: str = SUBJECT) -> Found:
    """The stream, once all frames are in it or counted; or what there is in the end."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        stored = read(url, subject)
        if len(stored.numbers) + stored.lost >= frames or time.monotonic() > deadline:
            return stored
        signal.sigtimedwait([], 0.2)


def is_sound(stored: Found) -> bool:
    """Whether frames are in order, and none is there twice."""
    ordered = stored.numbers == sorted(set(stored.numbers))
    return ordered and not stored.again and not stored.missing


def kill_bridge(runtime: Runtime) -> None:
    """Kills it, and waits for its successor."""
    pid = bridge(runtime).pid
    if pid is not None:
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: bridge(runtime).pid not in {pid, None}, "another bridge", PATIENCE_S)


def kill_channel(runtime: Runtime) -> None:
    """Kills the channel's actor, and waits for its successor."""

    def pid() -> int | None:
        return status_of(runtime).channels[0].pid

    killed = pid()
    if killed is not None:
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda: pid() not in {killed, None}, "the channel is back", PATIENCE_S)
