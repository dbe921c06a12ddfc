"""The simulated adapter without its process: device, replay, faults and ledger."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from canbroker.errors import CanInitializationError
from canbroker.model.bus_time import bus_time_ns
from canbroker.model.frame import ERROR, FD, Frame
from canbroker.simulator.firmware import Firmware, create
from canbroker.simulator.options import SimulatorOptions
from canbroker.simulator.replay import Recording, Replay
from canbroker.simulator.simulation import OUTPUT_LIMIT, Simulation
from canbroker.system.clock import MILLISECOND, SECOND


def say(device: Firmware, *commands: bytes, now_ns: int = 0) -> bytes:
    return b"".join(device.receive(command + b"\r", now_ns) for command in commands)


def log(*offsets_ms: int) -> list[Frame]:
    return [
        Frame((1_000 + offset) * MILLISECOND, number, 0, b"")
        for number, offset in enumerate(offsets_ms)
    ]


# ------------------------------------------------------------------------------------------ device


@pytest.mark.parametrize(
    ("commands", "answers"),
    [
        ([b"S6", b"O", b"C"], b"\r\r\r"),
        ([b"O", b"O"], b"\r\a"),
        ([b"L", b"L"], b"\r\a"),
        ([b"O", b"S6"], b"\r\a"),
        ([b"O", b"s001C"], b"\r\a"),
        ([b"O", b"Z1"], b"\r\a"),
        ([b"C"], b"\a"),
        ([b"S9"], b"\a"),
        ([b"s001C"], b"\r"),
        ([b"s00_1"], b"\a"),
        ([b"V", b"N"], b"V1013\rNA123\r"),
        ([b"F", b"O", b"F"], b"\a\rF00\r"),
        ([b"t1230"], b"\a"),
        ([b"L", b"t1230"], b"\r\a"),
        ([b"O", b"t1230", b"r1230", b"T000001230", b"R000001230"], b"\rz\rz\rZ\rZ\r"),
        ([b"O", b"t12", b"t1230EA5F", b"t123x"], b"\r\a\a\a"),
        ([b"", b"?", b"\xff"], b"\r\a\a"),
    ],
)
def test_device_answers(commands: list[bytes], answers: bytes) -> None:
    assert say(create(SimulatorOptions()), *commands) == answers


@pytest.mark.parametrize(
    ("commands", "answers"),
    [
        ([b"Y2", b"Y5", b"Y3"], b"\r\r\a"),
        ([b"O", b"d1239" + b"00" * 12, b"B000001230"], b"\rz\rZ\r"),
    ],
)
def test_device_answers_with_fd(commands: list[bytes], answers: bytes) -> None:
    assert say(create(SimulatorOptions(firmware="canable2-lawicel")), *commands) == answers


def test_device_with_less() -> None:
    classic = create(SimulatorOptions(timestamps=False))
    assert say(classic, b"Y2", b"Z1", b"O", b"d1230", b"b1230") == b"\a\a\r\a\a"
    assert not classic.carries(Frame(0, 1, FD, b""))
    silent = create(SimulatorOptions(silent=True))
    assert say(silent, b"", b"C", b"V", b"S6", b"O", b"t1230") == b"V1013\r"
    assert list(silent.ledger.accepted) == ["123#"]


def test_device_queue_fills_and_drains_with_the_bus() -> None:
    device = create(SimulatorOptions(queue=2))
    say(device, b"S3", b"O")
    frame_ns = bus_time_ns(Frame(0, 0x123, 0, b""), 100_000)
    assert say(device, b"t1230", b"t1230", b"t1230") == b"z\rz\r\a"
    assert say(device, b"t1230", now_ns=frame_ns - 1) == b"\a"
    assert say(device, b"t1230", b"t1230", now_ns=frame_ns) == b"z\r\a"
    assert (device.ledger.accepted_count, device.ledger.refused_count) == (3, 3)


def test_device_stamps_frames_only_after_z1() -> None:
    device = create(SimulatorOptions())
    frame = Frame(0, 0x123, 0, b"")
    assert device.line(frame, 61 * SECOND) == b"t1230\r"
    say(device, b"Z1")
    assert device.line(frame, 61 * SECOND) == b"t123003E8\r"


# ------------------------------------------------------------------------------------------ replay


def taken(replay: Replay, now_ns: int) -> list[int]:
    frames = []
    while frame := replay.take(now_ns):
        frames.append(frame.arbitration_id)
    return frames


def test_replay_keeps_the_time_of_the_log_and_stands_still_when_told() -> None:
    replay = Replay(log(0, 10, 10, 30), rate=2.0, loop=False)
    assert replay.due_ns() is None
    start = 500 * SECOND
    replay.resume(start)
    assert taken(replay, start) == [0]
    assert replay.due_ns() == start + 5 * MILLISECOND
    replay.pause(start)
    assert taken(replay, start + 60 * SECOND) == []
    replay.resume(start + 60 * SECOND)
    assert taken(replay, start + 60 * SECOND + 5 * MILLISECOND) == [1, 2]
    assert taken(replay, start + 61 * SECOND) == [3]
    assert replay.finished
    assert replay.due_ns() is None


def test_replay_loops() -> None:
    replay = Replay(log(0, 10), rate=1.0, loop=True)
    replay.resume(0)
    assert taken(replay, 21 * MILLISECOND) == [0, 1, 0, 1]
    assert replay.due_ns() == 22 * MILLISECOND
    assert not replay.finished


def test_replay_keeps_what_is_a_bit_out_of_order() -> None:
    replay = Replay(log(10, 0, 20), rate=1.0, loop=False)
    replay.resume(0)
    assert taken(replay, 0) == [0, 1]


def test_replay_of_a_clock_that_steps_back_starts_timing_anew() -> None:
    replay = Replay(log(5000, 5010, 1000, 1020), rate=1.0, loop=True)
    replay.resume(0)
    assert taken(replay, 10 * MILLISECOND) == [0, 1, 2]
    assert replay.due_ns() == 30 * MILLISECOND
    assert taken(replay, 41 * MILLISECOND) == [3, 0, 1, 2]


def test_a_recording_is_read_anew_each_time_and_its_odd_lines_counted_once(tmp_path: Path) -> None:
    path = tmp_path / "trace.log"
    path.write_text("DROPCOUNT: dropped 2 CAN frames on 'can0' socket\r\n(1.0) can0 123#\r\n(1.")
    recording = Recording(str(path))
    replay = Replay(recording, rate=1.0, loop=True)
    replay.resume(0)
    assert taken(replay, 5 * MILLISECOND) == [0x123] * 6, "a millisecond from one to the next"
    assert recording.skipped.counts.total() == 2
    assert recording.skipped.lost == 2


def test_an_unreadable_log_is_named(tmp_path: Path) -> None:
    path = tmp_path / "trace.log"
    with pytest.raises(CanInitializationError, match=r"trace\.log"):
        Recording(str(path))
    path.write_text("(1.1) can0 nonsense\n")
    with pytest.raises(CanInitializationError, match=r"trace\.log contains no frames.*line 1"):
        Recording(str(path))


# -------------------------------------------------------------------------------------- simulation


def simulation(frames: list[Frame], *commands: str, **options: Any) -> Simulation:
    simulated = Simulation(SimulatorOptions(**options), frames)
    for command in commands:
        simulated.command(command, 0)
    return simulated


def opened(frames: list[Frame], *commands: str, **options: Any) -> Simulation:
    simulated = simulation(frames, *commands, **options)
    simulated.receive(b"O\r", 0)
    simulated.output.clear()
    return simulated


def ledger(simulated: Simulation) -> dict[str, Any]:
    simulated.report("stats")
    report: dict[str, Any] = json.loads(simulated.reports[-1])
    return report


def test_traffic_waits_for_the_channel_and_for_start() -> None:
    simulated = simulation(log(0), paused=True)
    simulated.step(0)
    simulated.receive(b"O\r", 0)
    simulated.step(0)
    assert simulated.output == b"\r"
    simulated.command("start", 0)
    simulated.step(0)
    assert simulated.output == b"\rt0000\r"
    assert json.loads(simulated.reports[0])["event"] == "replay_done"


def test_every_frame_of_the_log_is_in_the_ledger() -> None:
    frames = [*log(*range(200)), Frame(0, 4, ERROR, bytes(8)), Frame(0, 5, FD, b"")]
    simulated = opened(frames, "drop 0.3", "garble 0.3", rate=0)
    while not simulated.reports:
        simulated.step(0)
        simulated.output.clear()
    result = ledger(simulated)
    outcomes = {name: result[name] for name in ("replayed", "dropped", "garbled", "skipped")}
    assert sum(outcomes.values()) == len(frames)
    assert all(outcomes.values())
    assert result["skipped"] == 2
    assert sum(result["frames"].values()) == result["replayed"]


def test_a_host_that_does_not_read_costs_frames_only_in_real_time() -> None:
    frames = log(*[0] * 2_000)
    timed = opened(frames)
    timed.step(0)
    timed.step(0)
    result = ledger(timed)
    assert result["overruns"] > 0
    assert result["replayed"] == timed.output.count(b"\r")
    assert result["replayed"] + result["overruns"] == len(frames)

    patient = opened(frames, rate=0)
    patient.step(0)
    patient.step(0)
    assert len(patient.output) < OUTPUT_LIMIT + 200
    assert patient.due_ns(0) is None
    assert ledger(patient)["overruns"] == 0


def test_faults_of_the_device() -> None:
    simulated = opened([], "bel 1", "noack 1")
    simulated.receive(b"t1230\rt1240\rt1250\r", 0)
    assert simulated.output == b"\az\r"
    simulated.command("accepted", 0)
    assert json.loads(simulated.reports[-1])["frames"] == ["124#", "125#"]
    simulated.output.clear()
    simulated.command("hang 2", 0)
    simulated.receive(b"t1230\r", SECOND)
    assert simulated.output == b""
    assert simulated.due_ns(SECOND) == 2 * SECOND
    simulated.receive(b"t1230\r", 2 * SECOND)
    assert simulated.output == b"z\r"


def test_an_adapter_that_is_polled_says_nothing_by_itself() -> None:
    simulated = simulation(log(0, 0), "garble 0.5", rate=0)
    simulated.receive(b"X0\rO\r", 0)
    simulated.output.clear()
    simulated.step(0)
    assert simulated.output == b""
    simulated.receive(b"A\r", 0)
    assert simulated.output == b"t0000\rt0010\rA\r"


def test_losing_power_closes_the_channel() -> None:
    simulated = opened(log(0), "inject t1230")
    assert simulated.output == b""  # opened() cleared it
    simulated.command("unplug", 0)
    assert not simulated.plugged
    simulated.command("replug", 0)
    simulated.receive(b"t1230\r", 0)
    assert simulated.output == b"\a"


@pytest.mark.parametrize(
    ("command", "argument"),
    [
        ("explode", "explode"),
        ("drop", "''"),
        ("drop 2", "'2'"),
        ("drop x", "'x'"),
        ("bel -1", "'-1'"),
        ("split", "''"),
        ("hang -1", "'-1'"),
        ("garble nan", "'nan'"),
    ],
)
def test_a_wrong_command_says_so(command: str, argument: str) -> None:
    with pytest.raises(ValueError, match=argument):
        simulation([], command)


@pytest.mark.parametrize("options", [{"rate": -1.0}, {"rate": float("nan")}, {"queue": 0}])
def test_wrong_options_are_named(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        SimulatorOptions(**options)


def test_variants_of_one_firmware_are_not_variants_of_another() -> None:
    with pytest.raises(ValueError, match=r"variants of lawicel and canable2-lawicel, not of esp32"):
        SimulatorOptions(firmware="esp32", silent=True)
