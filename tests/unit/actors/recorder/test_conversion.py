"""Files that are converted when they are complete: all of them, by few processes."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from canbroker.actors.recorder.conversion import Conversions, convert_file
from canbroker.actors.recorder.options import RecordOptions
from canbroker.actors.recorder.output import Output
from canbroker.actors.recorder.side_file import (
    COMPLETE,
    CONVERTING,
    SideFile,
    part_of,
    read_all,
    utc,
    write,
)
from canbroker.delivery.order import Place
from canbroker.delivery.tap import Frames
from canbroker.logs.formats import open_reader
from canbroker.model.frame import EchoFrame
from canbroker.system import clock
from tests.support.brokers import wait_until
from tests.support.recordings import installed

FILES = 4


def frame(number: int) -> EchoFrame:
    return EchoFrame(1_700_000_000 * clock.SECOND, number, 0, b"", None)


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> list[subprocess.Popen[bytes]]:
    """Those that convert, in the order in which they begin; with the last one, two at a time."""
    begun: list[subprocess.Popen[bytes]] = []
    real = subprocess.Popen

    def begin(command: list[str], **options: Any) -> subprocess.Popen[bytes]:
        assert sum(process.poll() is None for process in begun) <= 1
        begun.append(real(command, **options))
        return begun[-1]

    monkeypatch.setattr(subprocess, "Popen", begin)
    return begun


def test_all_files_by_few_processes(
    tmp_path: Path, processes: list[subprocess.Popen[bytes]]
) -> None:
    installed("arrow")
    options = RecordOptions(
        channels=["x"], directory=str(tmp_path), format="arrow", rotate_mb=1 / (1 << 20)
    )
    output = Output("r", "", options, ".arrow")
    output.complete_left(output.left())
    output.begin("x", Place(1, 0), None)
    output.open()
    for number in range(FILES):
        output.add(Frames("x", [frame(number)]))
        output.step(clock.monotonic_ns())
    output.close("it was told to stop", stopped=True)
    wait_until(lambda: processes[-1].poll() == 0, "the last ones are converted", timeout=30)
    sides = sorted(read_all(tmp_path, "r"), key=lambda side: side.number)
    assert [side.state for side in sides] == [COMPLETE] * len(sides)
    found = []
    for side in sides:
        with open_reader(tmp_path / side.file) as reader:
            found += [record.frame.arbitration_id for record in reader]
        assert not part_of(tmp_path / side.file).exists()
    assert found == list(range(FILES))
    assert len(processes) < FILES


@pytest.mark.parametrize("kind", ["arrow", "parquet", "mf4"])
def test_a_stream_of_which_nothing_was_certain(tmp_path: Path, kind: str) -> None:
    installed(kind)
    side = SideFile(recording="r", file=f"r-1.{kind}", format=kind, number=1, began=utc(1))
    side.state = CONVERTING
    write(side, tmp_path)
    path = tmp_path / side.file
    part_of(path).touch()
    assert convert_file(tmp_path, side.file) == 0
    with open_reader(path) as reader:
        assert list(reader) == []
    assert [each.state for each in read_all(tmp_path, "r")] == [COMPLETE]


def test_files_that_are_gone_and_those_that_cannot_be_converted(
    tmp_path: Path, processes: list[subprocess.Popen[bytes]], caplog: pytest.LogCaptureFixture
) -> None:
    assert convert_file(tmp_path, "gone.arrow") == 0
    tmp_path.joinpath("bad.arrow.part").mkdir()
    assert convert_file(tmp_path, "bad.arrow") == 1
    assert "bad.arrow.part cannot be converted" in caplog.text
    conversions = Conversions(tmp_path)
    conversions.begin("bad.arrow")
    assert processes[0].wait(30) == 1
    conversions.step(clock.monotonic_ns())
    assert len(processes) == 1, "it waits a while"
    conversions.step(clock.monotonic_ns() + 31 * clock.SECOND)
    assert len(processes) == 2
    assert processes[1].wait(30) == 1
