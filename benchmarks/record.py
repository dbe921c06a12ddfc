"""``python -m benchmarks.record``: what recording two full buses costs, beside python-can's logger.

Two programs send as many frames a second as fit on a bus of 1 Mbit/s, each on a virtual channel
with this bit rate, so that the frames of the two alternate as those of real buses do. A recorder
and two of python-can's loggers, which take one channel each, record the same traffic at the same
time. Then their files are read and compared with what the channels have confirmed.
"""

from __future__ import annotations

import argparse
import multiprocessing
import signal
import subprocess
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias

from rich.console import Console

from benchmarks.pace import paced
from benchmarks.periodic import private_broker
from benchmarks.usage import cpu_s, resident_mb
from canbroker import Bus, Message
from canbroker.actors.recorder.side_file import read_all
from canbroker.bus.recording import start_recording, stop_recording
from canbroker.logs.formats import open_reader

_BITRATE: Final = 1_000_000

#: Frames of 8 bytes with an 11-bit identifier: 111 bits and about 9 stuffed ones.
FULL_RATE: Final = _BITRATE // 120

_CHANNELS: Final = ("a", "b")
_AT_ONCE: Final = 20
_LOOK_S: Final = 0.5

Pipe: TypeAlias = "Connection[Any, Any]"


class Row(NamedTuple):
    """``cores``: share of a core while the frames were sent; ``us``: processor time for a frame;
    ``mb``: the most memory, of all."""

    system: str
    frames: int
    lost: int
    cores: float
    us: float
    mb: float


def main() -> int:
    """Prints the table; returns 1 if our recorder has lost frames."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.record", description=__doc__)
    parser.add_argument("--frames", type=int, default=1_000_000, help="on both channels together")
    parser.add_argument("--format", default="blf")
    arguments = parser.parse_args()
    with private_broker(), tempfile.TemporaryDirectory() as directory:
        sent, rows = _measure(Path(directory), arguments.frames, arguments.format)
    console = Console()
    console.print(f"{sent:,} frames, {2 * FULL_RATE:,} a second, to {arguments.format}")
    for row in rows:
        console.print(
            f"{row.system:24} {row.frames:9,} frames in files, {row.lost:6,} lost, "
            f"{row.cores:6.1%} of a core, {row.us:5.1f} µs a frame, {row.mb:6.1f} MB at most",
            highlight=False,
            soft_wrap=True,
        )
    return bool(sent - rows[0].frames)


def _measure(directory: Path, frames: int, kind: str) -> tuple[int, list[Row]]:
    options = {
        "channels": list(_CHANNELS),
        "interface": "virtual",
        "parameters": {"bitrate": _BITRATE},
        "directory": str(directory),
        "format": kind,
    }
    began = start_recording("ours", options, None)
    if began.pid is None:
        raise RuntimeError("the recorder has ended already")
    files = [directory / f"theirs-{channel}.{kind}" for channel in _CHANNELS]
    loggers = [_logger(channel, file) for channel, file in zip(_CHANNELS, files, strict=True)]
    time.sleep(3 * _LOOK_S)  # python-can's loggers do not say when they are ready
    of = {"canbroker": [began.pid], "python-can, 2 loggers": [each.pid for each in loggers]}
    cpu, seconds, memory, sent = _traffic(frames, of)
    ended = stop_recording("ours", None)
    for logger in loggers:
        logger.send_signal(signal.SIGINT)  # it completes its file
        logger.wait()
    ours = sum(side.frames for side in read_all(directory, "ours"))
    theirs = sum(_count(file) for file in files)
    rows = [
        Row(name, count, sent - count, cpu[name] / seconds, cpu[name] / sent * 1e6, memory[name])
        for name, count in zip(of, (ours, theirs), strict=True)
    ]
    if ended.lost != sent - ours:
        raise RuntimeError(f"{sent - ours} frames are missing, and it knows of {ended.lost}")
    return sent, rows


def _traffic(
    frames: int, of: dict[str, list[int]]
) -> tuple[dict[str, float], float, dict[str, float], int]:
    """Sends the frames; returns processor time, the time that took, memory, and their number."""
    context = multiprocessing.get_context("spawn")
    senders, pipes = [], []
    for channel in _CHANNELS:
        ours, theirs = context.Pipe()
        sender = context.Process(target=_send, args=(theirs, channel, frames // len(_CHANNELS)))
        sender.start()
        senders.append(sender)
        pipes.append(ours)
        ours.recv()
    before = {name: sum(map(cpu_s, pids)) for name, pids in of.items()}
    memory = dict.fromkeys(of, 0.0)
    began = time.monotonic()
    for pipe in pipes:
        pipe.send("begin")
    while not all(pipe.poll() for pipe in pipes):
        for name, pids in of.items():
            memory[name] = max(memory[name], sum(map(resident_mb, pids)))
        time.sleep(_LOOK_S)
    seconds = time.monotonic() - began
    cpu = {name: sum(map(cpu_s, pids)) - before[name] for name, pids in of.items()}
    sent = sum(pipe.recv() for pipe in pipes)
    for sender in senders:
        sender.join()
    return cpu, seconds, memory, sent


def _send(pipe: Pipe, channel: str, frames: int) -> None:
    """[another process] Sends at the full rate; tells how many frames were confirmed."""
    with Bus(channel, "virtual", can_filters=[{"can_id": 0x7FF, "can_mask": 0x7FF}]) as bus:
        pipe.send("ready")
        pipe.recv()
        for at in paced(frames // _AT_ONCE, FULL_RATE / _AT_ONCE):
            first = at * _AT_ONCE
            bus.send_batch(
                [
                    Message(
                        arbitration_id=number % 0x700,
                        data=number.to_bytes(8, "big"),
                        is_extended_id=False,
                    )
                    for number in range(first, first + _AT_ONCE)
                ]
            )
        bus.flush(60)
        pipe.send(bus.stats.sent)


def _logger(channel: str, file: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "can.logger", "-i", "canbroker", "-c", f"virtual.{channel}"]
    return subprocess.Popen([*command, "-f", str(file)], stdout=subprocess.DEVNULL)


def _count(file: Path) -> int:
    with open_reader(file) as reader:
        return sum(len(batch) for batch in reader.batches())


if __name__ == "__main__":
    sys.exit(main())
