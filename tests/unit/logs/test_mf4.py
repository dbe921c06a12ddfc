"""MF4 files that are damaged: asammdf, which reads them in another process, may crash or hang."""

from __future__ import annotations

import os
import random
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from canbroker.errors import CanInitializationError
from canbroker.logs import mf4
from canbroker.logs.formats import open_reader, open_writer
from canbroker.logs.records import AT_ONCE, Record
from canbroker.model.frame import Frame, frame_fault
from canbroker.system.entry_points import EntryPoint
from tests.support.recordings import BASE_NS, examples, installed
from tests.support.systems import signals

_COUNT = 40 * AT_ONCE  # more than a pipe holds


@pytest.fixture
def path(tmp_path: Path) -> Path:
    installed("mf4")
    return tmp_path / "drive.mf4"


def write_many(path: Path) -> None:
    with open_writer(path) as writer:
        writer.write(
            [Record(Frame(BASE_NS + n, n % 0x700, 0, bytes(8)), "1") for n in range(_COUNT)]
        )


def opened(path: Path) -> mf4.Mf4Reader:
    reader = open_reader(path)
    assert isinstance(reader, mf4.Mf4Reader)
    return reader


@signals
@pytest.mark.parametrize("name", ["SIGKILL", "SIGSTOP"])
def test_a_crash_or_a_hang_ends_the_file_and_is_said(
    path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_many(path)
    with opened(path) as reader:
        batches = reader.batches()
        count = len(next(batches))
        if name == "SIGSTOP":
            monkeypatch.setattr(mf4, "_SILENT_S", 0.5)
        os.kill(reader._child._process.pid, signal.Signals[name])
        count += sum(map(len, batches))
        assert reader.progress == (count, _COUNT)
        how = {
            "SIGKILL": "asammdf has crashed (SIGKILL)",
            "SIGSTOP": "asammdf has made no progress for 0.5 s",
        }
        assert reader.end == f"damaged after row {count}: {how[name]}"
        monkeypatch.undo()
        assert len(list(reader)) == _COUNT, "it can be read again"


def test_a_reading_that_was_left_begins_again(path: Path) -> None:
    write_many(path)
    with opened(path) as reader:
        first = next(reader.batches())
        assert next(reader.batches()) == first
        assert [len(list(reader)) for _ in range(2)] == [_COUNT, _COUNT]


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        pytest.param(
            "import os; os.abort()",
            "is damaged: asammdf has crashed (SIGABRT)",
            marks=signals,
        ),
        ("raise SystemExit(3)", "is damaged: asammdf has crashed (exit code 3)"),
        ("print('\\1\\0\\0\\0x')", "is damaged: asammdf gives rows that are none"),
    ],
)
def test_a_crash_while_a_file_is_opened_names_the_file(
    path: Path, monkeypatch: pytest.MonkeyPatch, program: str, expected: str
) -> None:
    path.touch()

    def crashing(_: EntryPoint, *arguments: str) -> Sequence[str]:
        return [sys.executable, "-c", program]

    monkeypatch.setattr(EntryPoint, "command", crashing)
    with pytest.raises(CanInitializationError) as caught:
        open_reader(path)
    assert str(path) in str(caught.value)
    assert expected in str(caught.value)


@pytest.mark.parametrize("seed", range(6))
def test_damage_anywhere_gives_valid_frames_or_an_error_that_names_the_file(
    path: Path, seed: int
) -> None:
    with open_writer(path) as writer:
        writer.write(examples())
    content = bytearray(path.read_bytes())
    chance = random.Random(seed)
    for _ in range(4):
        at = chance.randrange(len(content) - 8)
        content[at : at + 8] = chance.choice([bytes(8), b"\xff" * 8, chance.randbytes(8)])
    path.write_bytes(content)
    fault = str(path)
    try:
        with open_reader(path) as reader:
            for record in reader:
                frame = record.frame
                assert frame_fault(frame.arbitration_id, frame.flags, frame.data) is None
    except CanInitializationError as error:
        fault = str(error)
    assert str(path) in fault
