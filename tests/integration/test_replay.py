"""Replays into real channels: each frame of the log once, in its order, on its channel, in time."""

from __future__ import annotations

import signal
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import can
import pytest

import canbroker
from canbroker import Bus, Message, ReplayReport
from canbroker.logs.formats import open_writer
from canbroker.logs.records import Record
from canbroker.model.frame import Frame
from canbroker.playback.source import open_log
from canbroker.system.entry_points import EntryPoint
from canbroker.transport.runtime import Runtime

DEADLINE_S: Final = 30.0

#: The frame that a test sends after a replay.
LAST: Final = 0x7FF


def message(number: int, identifier: int) -> Message:
    return Message(arbitration_id=identifier, data=number.to_bytes(4, "big"), is_extended_id=False)


def line(at: float, interface: str, number: int, identifier: int = 0x123) -> str:
    return f"({at:.6f}) {interface} {identifier:03X}#{number:08X}"


def number_of(received: Message) -> int:
    return int.from_bytes(received.data, "big")


@contextmanager
def listening(*channels: str) -> Iterator[dict[str, Bus]]:
    buses = {channel: Bus(channel, "virtual") for channel in channels}
    try:
        yield buses
    finally:
        for bus in buses.values():
            bus.shutdown()


def received_by(bus: Bus) -> list[Message]:
    """What the bus has received, up to the last frame."""
    messages: list[Message] = []
    while not messages or messages[-1].arbitration_id != LAST:
        batch = bus.recv_batch(1000, DEADLINE_S)
        assert batch, "the last frame never came"
        messages += batch
    return messages[:-1]


def end_traffic(*channels: str) -> None:
    for channel in channels:
        with Bus(channel, "virtual") as bus:
            bus.send(message(0, LAST), DEADLINE_S)


def test_each_frame_arrives_once_in_order_on_the_channel_that_it_is_mapped_to(
    runtime: Runtime, tmp_path: Path
) -> None:
    log = tmp_path / "two.log"
    interfaces = [("1", "other", "2")[number % 3] for number in range(3000)]
    log.write_text(
        "\n".join(
            line(1000 + number / 3000, interface, number)
            for number, interface in enumerate(interfaces)
        )
    )
    with listening("a", "b") as buses:
        report = canbroker.replay(log, {"1": "a", "2": "b"}, "virtual", loop=2)
        end_traffic("a", "b")
        received = {channel: received_by(bus) for channel, bus in buses.items()}
    for channel, interface in (("a", "1"), ("b", "2")):
        logged = [number for number, name in enumerate(interfaces) if name == interface]
        assert [number_of(message) for message in received[channel]] == logged * 2
        stamps = [message.timestamp for message in received[channel]]
        assert stamps == sorted(stamps)
        # A busy machine makes frames late, and the first one no later than the others are early.
        assert stamps[-1] - stamps[0] == pytest.approx(2.0, abs=0.9)
    assert report == ReplayReport(
        sent=4000,
        duration=report.duration,
        late_p50=report.late_p50,
        late_p99=report.late_p99,
        late_max=report.late_max,
    )
    assert report.late_p99 is not None


@pytest.mark.parametrize("suffix", [".log", ".log.gz", ".asc", ".blf", ".trc", ".csv"])
def test_what_python_can_has_written_is_played(
    runtime: Runtime, tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"drive{suffix}"
    with can.Logger(path) as logger:
        for number in range(700):
            logger(
                can.Message(
                    timestamp=1_700_000_000 + number / 100,
                    arbitration_id=0x123,
                    is_extended_id=False,
                    channel=0,
                    data=number.to_bytes(4, "big"),
                )
            )
    with can.LogReader(path) as theirs:
        numbers = [int.from_bytes(read.data, "big") for read in theirs]
    with open_log(path) as log:
        [interface] = log.missing({"?"})[1]
    target = {interface: "x"} if interface else "x"
    with listening("x") as buses:
        report = canbroker.replay(path, target, "virtual", speed=20, start=1, end=5.995)
        end_traffic("x")
        received = received_by(buses["x"])
    assert [number_of(message) for message in received] == numbers[100:600]
    assert report.sent == 500
    assert report.lines() == []


def test_a_parquet_file_is_played(runtime: Runtime, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    path = tmp_path / "drive.parquet"
    with open_writer(path) as writer:
        writer.write(
            [
                Record(Frame(number * 1_000_000, 0x123, 0, number.to_bytes(4, "big")), "body")
                for number in range(100)
            ]
        )
    with listening("x") as buses:
        report = canbroker.replay(path, {"body": "virtual.x"})
        end_traffic("x")
        received = received_by(buses["x"])
    assert [number_of(message) for message in received] == list(range(100))
    assert report.sent == 100


def test_a_file_that_does_not_tell_channels_wants_one(runtime: Runtime, tmp_path: Path) -> None:
    path = tmp_path / "drive.csv"
    with can.Logger(path) as logger:
        logger(can.Message(timestamp=1, arbitration_id=0x123))
    with pytest.raises(canbroker.CanInitializationError, match="does not tell the channels"):
        canbroker.replay(path, interface="virtual")


def test_a_damaged_file_is_played_and_told_of(runtime: Runtime, tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole.csv", tmp_path / "cut.csv"
    with can.Logger(whole) as logger:
        for number in range(2000):
            logger(can.Message(timestamp=number, arbitration_id=number))
    cut.write_bytes(whole.read_bytes()[:-5] + b"\n")
    report = canbroker.replay(cut, "x", "virtual", speed=0)
    assert report.sent == 1999
    [line] = report.lines()
    assert line.startswith(f"{cut}: skipped 1 damaged lines (line 2001: ")
    with pytest.raises(canbroker.CanInitializationError):
        canbroker.replay(cut, "x", "virtual", speed=0, strict=True)


def test_frames_are_never_sent_before_they_are_due(runtime: Runtime, tmp_path: Path) -> None:
    log = tmp_path / "even.log"
    log.write_text("\n".join(line(5 + number / 500, "x", number) for number in range(500)))
    with listening("x") as buses:
        canbroker.replay(log, "x", "virtual")
        end_traffic("x")
        received = received_by(buses["x"])
    offsets = [at.timestamp - number / 500 for number, at in enumerate(received)]
    assert len(offsets) == 500
    # The one that was least late tells when the replay began.
    first = min(offsets)
    assert sum(offset - first for offset in offsets) / len(offsets) < 0.02


def test_a_replay_that_another_thread_stops_leaves_nothing_behind(
    runtime: Runtime, tmp_path: Path
) -> None:
    log = tmp_path / "long.log"
    log.write_text("\n".join(line(number / 1000, "x", number) for number in range(100_000)))
    stop = threading.Event()
    with listening("x") as buses, ThreadPoolExecutor(1) as pool:
        bus = buses["x"]
        running = pool.submit(canbroker.replay, log, "x", "virtual", stop=stop)
        try:
            first = [bus.recv(DEADLINE_S) for _ in range(100)]
        finally:
            stop.set()
        report = running.result(DEADLINE_S)
        end_traffic("x")
        received = [*first, *received_by(bus)]
    assert report.stopped
    assert [number_of(got) for got in received if got is not None] == list(range(report.sent))


def test_ctrl_c_ends_a_replay_at_once_with_an_account(runtime: Runtime, tmp_path: Path) -> None:
    log = tmp_path / "long.log"
    log.write_text("\n".join(line(number / 1000, "x", number) for number in range(100_000)))
    command = EntryPoint.COMMAND.command("replay", str(log), "x", "-i", "virtual")
    with listening("x") as buses:
        bus = buses["x"]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            assert bus.recv(DEADLINE_S) is not None
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=DEADLINE_S)
        assert process.returncode == 130
        end_traffic("x")
        count = 1 + len(received_by(bus))
    assert f": {count:,} frames were sent" in said
    assert "that were waiting were taken back" in said


def test_a_killed_replay_leaves_nothing_behind(runtime: Runtime, tmp_path: Path) -> None:
    log = tmp_path / "rare.log"
    log.write_text("\n".join(line(number / 50, "x", number) for number in range(100)))
    command = EntryPoint.COMMAND.command("replay", str(log), "x", "-i", "virtual")
    with listening("x") as buses, Bus("x", "virtual") as other:
        bus = buses["x"]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
            assert bus.recv(DEADLINE_S) is not None
            process.kill()
        left = [bus.recv(0.5) for _ in range(10)]
        assert left[-1] is None, "it goes on without its sender"
        other.send(message(0, LAST), DEADLINE_S)
        assert len(received_by(bus)) == 0


def test_frames_that_a_channel_cannot_carry_are_counted(runtime: Runtime, tmp_path: Path) -> None:
    log = tmp_path / "mixed.log"
    log.write_text(
        "(1.0) x 001#\n(1.0) x 002##111\n(1.0) x 20000004#0004000000000000\n(1.0) x 003#R2\n"
    )
    with (
        Bus("classic", "virtual", fd=False) as bus,
        Bus("able", "virtual") as able,
    ):
        report = canbroker.replay(log, "virtual.classic", speed=0)
        fully = canbroker.replay(log, "virtual.able", speed=0)
        end_traffic("classic", "able")
        assert [at.arbitration_id for at in received_by(bus)] == [1, 3]
        assert [at.arbitration_id for at in received_by(able)] == [1, 2, 3]
    assert report.sent == 2
    assert report.lines() == [
        "1 CAN FD frames to channel 'virtual.classic', which is open without CAN FD, are not sent",
        "1 error frames are not sent",
    ]
    assert fully.lines() == ["1 error frames are not sent"]
    assert fully.sent == 3
