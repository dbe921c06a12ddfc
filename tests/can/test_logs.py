"""can-utils as the peer of our logs: what candump writes we read, what we write canplayer plays."""

from __future__ import annotations

import random
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from canbroker.logs.candump import format_log_line
from canbroker.logs.reader import LogReader
from canbroker.model.frame import (
    BITRATE_SWITCH,
    ERROR_STATE_INDICATOR,
    EXTENDED,
    FD,
    FD_LENGTHS,
    MAX_EXTENDED_ID,
    MAX_STANDARD_ID,
    REMOTE,
    Frame,
)
from tests.support.brokers import wait_until
from tests.support.vcan import Node, ip, listeners, needs_admin, needs_can, wait_for_listener

pytestmark = [needs_can, needs_admin]

#: The last one of a recording.
END = Frame(0, MAX_STANDARD_ID, 0, b"\xff")


@pytest.fixture
def wire(own_interface: str) -> str:
    """An interface of the test's own that carries CAN FD."""
    ip("set", own_interface, "mtu", "72")
    return own_interface


@contextmanager
def candump(wire: str, log: Path, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """``candump -L`` listens; ``log`` is what it prints, as a shell redirects it."""
    before = listeners(wire)
    command = ["candump", "-L", *options, wire]
    with (
        log.open("wb") as output,
        subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT) as process,
    ):
        try:
            wait_for_listener(before, wire)
            yield process
        finally:
            process.kill()


def frames_of_all_kinds(count: int) -> list[Frame]:
    chance = random.Random(15)
    frames = []
    for _ in range(count):
        extended = chance.choice([0, EXTENDED])
        kind = chance.choice([0, REMOTE, FD])
        if kind == FD:
            kind |= chance.choice([0, BITRATE_SWITCH]) | chance.choice([0, ERROR_STATE_INDICATOR])
        length = chance.choice(FD_LENGTHS if kind & FD else range(9))
        identifier = chance.randint(0, MAX_EXTENDED_ID if extended else MAX_STANDARD_ID - 1)
        data = length if kind == REMOTE else chance.randbytes(length)
        frames.append(Frame(0, identifier, extended | kind, data))
    return [*frames, END]


def read(log: Path) -> tuple[list[Frame], LogReader]:
    """The frames of a log, without their times."""
    with LogReader.open(log) as reader:
        frames = [entry.frame for entry in reader]
    for frame in frames:
        assert frame.timestamp_ns
        frame.timestamp_ns = 0
    return frames, reader


@pytest.mark.parametrize("options", [(), ("-x",), ("-ta",)])
def test_canplayer_plays_what_we_write_and_we_read_what_candump_writes(
    wire: str, tmp_path: Path, options: tuple[str, ...]
) -> None:
    frames = frames_of_all_kinds(300)
    ours, theirs = tmp_path / "ours.log", tmp_path / "theirs.log"
    ours.write_text("".join(f"{format_log_line(frame, wire)}\n" for frame in frames))
    with candump(wire, theirs, "-r", "4000000", *options, "-n", str(len(frames))) as dump:
        player = ["canplayer", "-t", "-I", str(ours)]
        subprocess.run(player, check=True, timeout=30)
        assert dump.wait(30) == 0
    got, reader = read(theirs)
    assert got == frames
    assert not reader.skipped


def test_what_candump_says_of_losses_and_of_its_end_is_no_frame(wire: str, tmp_path: Path) -> None:
    log = tmp_path / "overrun.log"
    count = 20_000
    with candump(wire, log, "-d", "-r", "2048") as dump, Node(wire) as node:
        dump.send_signal(signal.SIGSTOP)
        stopped = psutil.Process(dump.pid)
        wait_until(lambda: stopped.status() == psutil.STATUS_STOPPED, "candump stands still")
        node.send([Frame(0, number % 0x700, 0, b"") for number in range(count)])
        dump.send_signal(signal.SIGCONT)
        wait_until(lambda: log.stat().st_size > 0, "candump goes on")
        node.send([END])
        wait_until(lambda: b"7FF#FF" in log.read_bytes(), "the last frame is recorded", timeout=20)
        ip("set", wire, "down")
        assert dump.wait(30) != 0
    got, reader = read(log)
    assert got[-1] == END
    assert reader.skipped.lost > 0
    assert len(got) + reader.skipped.lost == count + 1
    assert set(reader.skipped.counts) == {"of DROPCOUNT", "of other text"}, reader.skipped
