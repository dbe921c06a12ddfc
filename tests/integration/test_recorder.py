"""Recordings as processes: nothing is lost by whoever is killed."""

from __future__ import annotations

import os
import resource
import shutil
import signal
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

from canbroker import Bus, CanInitializationError, Message, recording
from canbroker.transport.runtime import Runtime
from canbroker.wire.recordings import RecordingStatus
from tests.support.brokers import status_of, wait_until
from tests.support.commands import run
from tests.support.ledger import Sender, serving
from tests.support.recorded import recorded
from tests.support.systems import is_root

CONFIG = """
[channels.x]
interface = "virtual"
[record.r]
channels = ["x"]
directory = "out"
"""

#: Begins a command that is subject to the modes of files, also if root runs it.
WITHOUT_OVERRIDE: Final = (
    ("setpriv", "--bounding-set=-dac_override,-dac_read_search") if is_root() else ()
)

record = partial(run, "record")


def status(runtime: Runtime) -> RecordingStatus:
    (found,) = status_of(runtime).recordings
    return found


def is_recording(runtime: Runtime) -> bool:
    return [each.phase for each in status_of(runtime).recordings] == ["running"]


def message(number: int) -> Message:
    return Message(arbitration_id=1, data=number.to_bytes(4, "big"), is_extended_id=False)


def test_what_is_sent_while_a_program_records_is_in_its_files(
    runtime: Runtime, tmp_path: Path
) -> None:
    with Bus("x", "virtual") as bus:
        bus.send(message(999), timeout=10)
        with recording("virtual.x", tmp_path, name="a/b") as began:
            assert began.channels == ["virtual.x"]
            bus.send_batch([message(number) for number in range(1000)], timeout=20)
        bus.send(message(999), timeout=10)
        found = recorded(tmp_path, "a/b")
        assert (found.numbers, found.lost) == (list(range(1000)), 0)
        assert status_of(runtime).recordings == []


def test_a_recording_goes_on_when_the_program_that_started_it_has_ended(
    runtime: Runtime, tmp_path: Path
) -> None:
    done = record("start", "r", "-i", "virtual", "-c", "x", "-o", str(tmp_path), "--rotate-mb", "1")
    assert (done.returncode, done.stderr) == (0, "")
    with Bus("x", "virtual") as bus:
        bus.send_batch([message(number) for number in range(100)], timeout=20)
    assert "r  " in record("list").stdout
    assert "runs already" in record("start", "r", "-i", "virtual", "-c", "x").stderr
    done = record("stop", "r")
    assert f"100 frames in 1 files, 0 lost; the last file is {tmp_path}" in done.stdout
    assert recorded(tmp_path, "r").numbers == list(range(100))
    with Bus("x", "virtual"):
        assert record("list").stdout == "no recordings\n"
        assert "no recording 'r'" in record("stop", "r").stderr


def test_what_cannot_be_recorded_is_said_at_once(runtime: Runtime, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with Bus("x", "virtual"):
        for channel, directory, options, words in (
            ("nowhere", tmp_path, {}, "no channel 'nowhere'"),
            ("virtual.x", tmp_path / "file", {}, "file"),
            ("virtual.x", tmp_path, {"format": "mp3"}, "format 'mp3' is not one of"),
            ("virtual.x", tmp_path, {"rotate": 1}, "rotate"),
            ("virtual.x", tmp_path, {"keep_mb": 0}, "keep_mb must be above 0"),
        ):
            with (
                pytest.raises(CanInitializationError, match=words),
                recording(channel, directory, **options),
            ):
                raise AssertionError("it must not begin")
        assert status_of(runtime).recordings == []


def test_a_killed_recorder_loses_nothing(runtime: Runtime, tmp_path: Path) -> None:
    with (
        serving(runtime, tmp_path, CONFIG),
        Sender(("x", "virtual"), 0x100, 1000, each=10) as sender,
    ):
        wait_until(lambda: is_recording(runtime), "it records", timeout=30)
        sender.start()
        for kills in range(1, 4):
            wait_until(lambda: is_recording(runtime), "it records", timeout=30)
            frames = status(runtime).frames
            wait_until(lambda: status(runtime).frames > frames, "it has written", timeout=30)  # noqa: B023
            pid = status(runtime).pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda: status(runtime).restarts == kills, "it is replaced")  # noqa: B023
        wait_until(lambda: is_recording(runtime), "it records", timeout=30)
        sent = sender.stop()
        done = record("stop", "r")
        assert f"{sent.confirmed:,} frames" in done.stdout
    found = recorded(tmp_path / "out", "r")
    assert (len(found.numbers), found.lost) == (sent.confirmed, 0)
    assert found.numbers == sorted(set(found.numbers))


def test_a_killed_broker_loses_nothing_that_was_confirmed(runtime: Runtime, tmp_path: Path) -> None:
    sender = None
    try:
        for last in (False, True):
            with serving(runtime, tmp_path, CONFIG) as broker:
                wait_until(lambda: is_recording(runtime), "it records", timeout=30)
                if sender is None:
                    sender = Sender(("x", "virtual"), 0x100, 1000, timeout=10)
                    sender.start()
                frames = status(runtime).frames
                wait_until(lambda: status(runtime).frames > frames, "it has written", timeout=30)  # noqa: B023
                if last:
                    sent = sender.stop()
                else:
                    broker.kill()
    finally:
        if sender is not None:
            sender.kill()
    found = recorded(tmp_path / "out", "r")
    assert found.numbers == sorted(set(found.numbers))
    assert sent.sent <= set(found.numbers) <= sent.sent | sent.unknown
    assert found.lost == 0


def test_a_trigger_records_what_was_before_it_and_after_it(
    runtime: Runtime, tmp_path: Path
) -> None:
    with Bus("x", "virtual") as bus:
        options: dict[str, Any] = {"before_s": 60, "after_s": 0.3, "trigger": "002#*"}
        with recording("virtual.x", tmp_path, name="fault", **options):
            bus.send_batch([message(number) for number in range(700)], timeout=20)
            trigger = Message(arbitration_id=2, data=(700).to_bytes(4, "big"), is_extended_id=False)
            bus.send(trigger, timeout=10)
            bus.send_batch([message(number) for number in range(701, 710)], timeout=20)
            complete = "the time after the trigger is over"
            wait_until(lambda: list(tmp_path.glob("*.log")), complete, timeout=30)
            bus.send(message(999), timeout=10)
        found = recorded(tmp_path, "fault")
    assert (found.numbers, found.lost) == (list(range(710)), 0)
    assert [side.why for side in found.sides] == [complete]
    assert [note.what for note in found.sides[0].notes] == ["trigger"]


def test_a_trigger_that_comes_while_the_recorder_is_killed_is_found(
    runtime: Runtime, tmp_path: Path
) -> None:
    with Bus("x", "virtual") as bus:
        options: dict[str, Any] = {"before_s": 60, "after_s": 60, "trigger": "002#*"}
        with recording("virtual.x", tmp_path, name="fault", **options):
            bus.send_batch([message(number) for number in range(100)], timeout=20)
            killed = status(runtime).pid
            assert killed is not None
            os.kill(killed, signal.SIGSTOP)
            trigger = Message(arbitration_id=2, data=(100).to_bytes(4, "big"), is_extended_id=False)
            bus.send(trigger, timeout=10)
            bus.send_batch([message(number) for number in range(101, 200)], timeout=20)
            os.kill(killed, signal.SIGKILL)
            wait_until(lambda: list(tmp_path.glob("*.part")), "the trigger is found", timeout=30)
        found = recorded(tmp_path, "fault")
    assert (found.numbers, found.lost) == (list(range(200)), 0)
    assert [note.what for side in found.sides for note in side.notes] == ["trigger"]


def test_a_full_disk_stops_the_recording_and_not_the_channel(
    runtime: Runtime, tmp_path: Path
) -> None:
    """The limit of a file's size stands for the disk's: the system refuses to write as well."""
    with Bus("x", "virtual") as bus, recording("virtual.x", tmp_path, name="r") as began:
        assert began.pid is not None
        _, most = resource.prlimit(began.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(began.pid, resource.RLIMIT_FSIZE, (20_000, most))
        bus.send_batch([message(number) for number in range(2000)], timeout=20)
        wait_until(lambda: "too large" in status(runtime).trouble, "it is said", timeout=30)
        assert "too large" in record("list").stdout
        bus.send_batch([message(number) for number in range(2000, 3000)], timeout=20)
        resource.prlimit(began.pid, resource.RLIMIT_FSIZE, (most, most))
        wait_until(lambda: not status(runtime).trouble, "it goes on", timeout=30)
        bus.send_batch([message(number) for number in range(3000, 3100)], timeout=20)
    found = recorded(tmp_path, "r")
    assert (found.numbers, found.lost) == (list(range(3100)), 0)


def test_a_directory_that_may_not_be_written_and_one_that_is_removed(
    runtime: Runtime, tmp_path: Path
) -> None:
    """The file that is open can still be written; that of its state, beside it, cannot."""
    out = tmp_path / "out"
    with (
        serving(runtime, tmp_path, CONFIG, within=WITHOUT_OVERRIDE),
        Bus("x", "virtual") as bus,
    ):
        wait_until(lambda: is_recording(runtime), "it records", timeout=30)
        bus.send_batch([message(number) for number in range(100)], timeout=20)
        out.chmod(0o500)
        bus.send_batch([message(number) for number in range(100, 200)], timeout=20)
        wait_until(lambda: "Permission denied" in status(runtime).trouble, "it is said", timeout=30)
        bus.send_batch([message(number) for number in range(200, 300)], timeout=20)
        out.chmod(0o700)
        wait_until(lambda: not status(runtime).trouble, "it goes on", timeout=30)
        bus.send_batch([message(number) for number in range(300, 400)], timeout=20)
        assert "400 frames" in record("stop", "r").stdout
        found = recorded(out, "r")
        assert (found.numbers, found.lost) == (list(range(400)), 0)
        began = record("start", "s", "-c", "x", "-o", str(out))
        assert (began.returncode, began.stderr) == (0, "")
        shutil.rmtree(out)
        bus.send_batch([message(number) for number in range(100)], timeout=20)
        assert "100 frames" in record("stop", "s").stdout
    found = recorded(out, "s")
    assert (found.numbers, found.lost) == (list(range(100)), 0)


def test_what_a_format_cannot_hold_is_said(runtime: Runtime, tmp_path: Path) -> None:
    pytest.importorskip("can", reason="needs the extra python-can")
    with Bus("x", "virtual", fd=True) as bus:
        with recording("virtual.x", tmp_path, name="r", format="trc"):
            bus.send_batch([message(number) for number in range(3)], timeout=20)
            bus.send(Message(arbitration_id=2, is_fd=True, data=bytes(12)), timeout=10)
            wait_until(lambda: status(runtime).unfit, "it has arrived", timeout=30)
            assert "r: 1 frames are in no file, as trc cannot hold them" in record("list").stdout
        found = recorded(tmp_path, "r")
    assert (found.numbers, found.lost) == ([0, 1, 2], 0)
    assert (found.sides[0].unfit, "FD frames (1)" in found.sides[0].left_out) == (1, True)
