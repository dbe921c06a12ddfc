"""Logs to replay: formats, what is damaged, and which channels they have."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import can
import pytest

from canbroker.errors import CanInitializationError
from canbroker.playback.source import CandumpLog, RecordLog, open_log

LINES = ["(1.0) can0 001#", "(2.0) can1 002#", "(3.0) can0 003#"]


def identifiers(path: Path) -> list[int]:
    with open_log(path) as log:
        return [record.frame.arbitration_id for batch in log.batches() for record in batch]


def blf(path: Path, count: int = 3) -> Path:
    with can.Logger(path) as logger:
        for number in range(count):
            logger(can.Message(timestamp=number, arbitration_id=number, channel=number % 2))
    return path


@pytest.mark.parametrize("name", ["drive.log", "drive.LOG", "drive", "drive.txt", "2026.11.30"])
def test_a_file_without_a_known_suffix_is_candumps(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("\n".join(LINES))
    assert identifiers(path) == [1, 2, 3]


def test_a_log_is_read_as_often_as_it_is_played(tmp_path: Path) -> None:
    for path in (blf(tmp_path / "drive.blf"), tmp_path / "drive.log"):
        if path.suffix == ".log":
            path.write_text("\n".join(LINES))
        with open_log(path) as log:
            assert log.seekable
            assert [sum(map(len, log.batches())) for _ in range(3)] == [3, 3, 3]
            assert log.position == 1.0
            assert log.faults() == []
            log.check()


def test_channels_that_a_log_does_not_have(tmp_path: Path) -> None:
    with open_log(blf(tmp_path / "drive.blf")) as log:
        assert isinstance(log, RecordLog)
        assert log.missing({"1", "2"}) == (set(), ["1", "2"])
        assert log.missing({"1", "7"}) == ({"7"}, ["1", "2"])
    log = CandumpLog(BytesIO("\n".join(LINES).encode()), "a log")
    assert log.missing({"can1", "can7"}) == ({"can7"}, ["can0", "can1"])


def test_what_is_no_frame_is_told_once_and_refused_if_wanted(tmp_path: Path) -> None:
    path = tmp_path / "drive.csv"
    with can.Logger(path) as logger:
        logger(can.Message(timestamp=1, arbitration_id=0x123))
    with path.open("a") as file:
        file.write("rubbish\n")
    with open_log(path) as log:
        for _ in range(2):
            assert sum(map(len, log.batches())) == 1
        [fault] = log.faults()
        assert fault.startswith("skipped 1 damaged lines (line 3: 'rubbish'")
        with pytest.raises(CanInitializationError, match=r"drive\.csv: skipped 1 damaged lines"):
            log.check()


def test_a_log_without_frames(tmp_path: Path) -> None:
    path = tmp_path / "empty.csv"
    can.Logger(path).stop()
    with open_log(path) as log, pytest.raises(CanInitializationError, match="contains no frames"):
        list(log.batches())


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    for name in ("none.log", "none.blf", "none.csv"):
        with pytest.raises(CanInitializationError, match=rf"cannot read .*{name}"):
            open_log(tmp_path / name).check()
