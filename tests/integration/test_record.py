"""``canbroker record``: the recent frames of a channel."""

from __future__ import annotations

import os
import signal
from functools import partial
from pathlib import Path

import pytest

from canbroker import Bus, Message
from canbroker.bus.history import recent_frames
from canbroker.cli import Failure
from canbroker.cli.record_last import save_recent
from canbroker.logs.candump import parse_log_line
from canbroker.logs.formats import open_reader
from canbroker.transport.runtime import Runtime
from tests.support.brokers import status_of, wait_until
from tests.support.commands import run
from tests.support.full_disk import full_disk

record = partial(run, "record")


def identifiers(text: str) -> list[int]:
    return [parse_log_line(line).frame.arbitration_id for line in text.splitlines()]


def test_what_was_on_a_channel_as_candump_writes_it(runtime: Runtime, tmp_path: Path) -> None:
    with Bus("x", "virtual") as bus, Bus("x", "virtual") as other:
        bus.send_batch([Message(arbitration_id=n, data=b"\1\2") for n in range(5000)], timeout=20)
        done = record("virtual.x")
        assert (done.returncode, done.stderr) == (0, "")
        assert identifiers(done.stdout) == list(range(5000))
        assert done.stdout.splitlines()[7].endswith(" virtual.x 00000007#0102")
        file = tmp_path / "fault.log"
        assert "5000 frames in" in record("virtual.x", "--last", "60", "-o", str(file)).stderr
        assert file.read_text() == done.stdout
        assert record("virtual.x", "--last", "0").stdout == ""
        assert other.recv(10) is not None  # recording takes nothing from anybody


@pytest.mark.parametrize("suffix", [".blf", ".asc", ".parquet", ".pcapng", ".csv", ".log.gz"])
def test_a_files_suffix_says_its_format(runtime: Runtime, tmp_path: Path, suffix: str) -> None:
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    file = tmp_path / f"fault{suffix}"
    with Bus("x", "virtual") as bus:
        bus.send_batch([Message(arbitration_id=n, data=b"\1\2") for n in range(3000)], timeout=20)
        done = record("virtual.x", "-o", str(file))
    assert done.returncode == 0
    assert f"3000 frames in {file}" in done.stderr
    with open_reader(file) as reader:
        assert [record.frame.arbitration_id for record in reader] == list(range(3000))


@pytest.mark.parametrize("name", ["fault.log", "fault.blf"])
def test_a_full_disk_leaves_the_older_file(runtime: Runtime, tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    file.write_text("older")
    with Bus("x", "virtual") as bus:
        bus.send_batch([Message(arbitration_id=n, data=b"\1\2") for n in range(3000)], timeout=20)
        recent = recent_frames(None, "virtual.x", 60)
    assert len(recent.frames) == 3000
    with full_disk(1000), pytest.raises(Failure, match=f"cannot write {file}: File too large"):
        save_recent(recent, file)
    assert file.read_text() == "older"
    assert list(tmp_path.iterdir()) == [file]


def test_what_a_format_cannot_hold_is_said(runtime: Runtime, tmp_path: Path) -> None:
    file = tmp_path / "fault.trc"
    with Bus("x", "virtual") as bus:
        bus.send(Message(arbitration_id=1, is_fd=True, data=bytes(12)), 10)
        bus.send(Message(arbitration_id=2), 10)
        done = record("virtual.x", "-o", str(file))
    assert done.returncode == 0
    assert f"not in {file}, as its format cannot: FD frames (1)" in done.stderr
    with open_reader(file) as reader:
        assert [record.frame.arbitration_id for record in reader] == [2]


def test_a_killed_actor_leaves_its_frames_to_its_successor(runtime: Runtime) -> None:
    with Bus("x", "virtual") as bus:
        bus.send_batch([Message(arbitration_id=n) for n in range(100)], timeout=20)
        (channel,) = status_of(runtime).channels
        assert channel.pid is not None
        os.kill(channel.pid, signal.SIGKILL)
        wait_until(lambda: status_of(runtime).channels[0].restarts == 1, "it is replaced")
        wait_until(lambda: status_of(runtime).channels[0].phase == "running", "it runs")
        assert identifiers(record("virtual.x").stdout) == list(range(100))


def test_what_cannot_be_recorded_is_said(runtime: Runtime, tmp_path: Path) -> None:
    with Bus("x", "virtual"):
        done = record("nowhere")
        assert (done.returncode, done.stdout) == (1, "")
        assert "channel 'nowhere' does not answer" in done.stderr
        done = record("virtual.x", "-o", str(tmp_path))
        assert done.returncode == 2
        done = record("virtual.x", "-o", str(tmp_path / "no" / "such.log"))
        assert done.returncode == 1
        assert "cannot write" in done.stderr
        assert record("virtual.x", "--last", "-1").returncode == 2
