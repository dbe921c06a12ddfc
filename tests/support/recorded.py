"""What is in the files of a recording."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from canbroker.actors.recorder.side_file import SideFile, read_all
from canbroker.logs.formats import open_reader


@dataclass(frozen=True)
class Recorded:
    """``numbers``: those that the frames carry as data, in the order of files and frames; ``lost``:
    frames that are in no file, as the side files say."""

    sides: list[SideFile]
    numbers: list[int]
    lost: int


def recorded(directory: Path, recording: str) -> Recorded:
    """Reads all files of a recording that has ended, and compares them with their side files."""
    sides = sorted(read_all(directory, recording), key=lambda side: side.number)
    numbers: list[int] = []
    for side in sides:
        here = _numbers(directory / side.file) if side.frames else []
        assert len(here) == side.frames, side.file
        assert side.state == "complete"
        numbers += here
    assert not list(directory.glob("*.part"))
    return Recorded(sides, numbers, sum(side.lost for side in sides))


def _numbers(path: Path) -> list[int]:
    with open_reader(path) as reader:
        frames = [record.frame for batch in reader.batches() for record in batch]
    return [int.from_bytes(bytes(frame.data), "big") for frame in frames]
