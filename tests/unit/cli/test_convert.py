"""``canbroker convert``, without a process of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from canbroker.cli import cli
from canbroker.logs.formats import FORMATS, open_reader, open_writer
from canbroker.logs.records import Record
from tests.support.recordings import contents, examples, installed, left


def convert(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["convert", *map(str, arguments)])


def read(path: Path) -> list[Record]:
    with open_reader(path) as reader:
        return list(reader)


@pytest.fixture
def drive(tmp_path: Path) -> Path:
    """A candump log of every kind of frame."""
    path = tmp_path / "drive.log"
    with open_writer(path) as writer:
        writer.write(examples())
    return path


@pytest.mark.parametrize("name", FORMATS)
def test_there_and_back(drive: Path, tmp_path: Path, name: str) -> None:
    form = installed(name)
    there, back = tmp_path / f"there{form.suffixes[0]}", tmp_path / "back.pcapng"
    result = convert(drive, there)
    assert result.exit_code == 0, result.output
    said = {loss for loss in form.holds.lacking if loss in result.output}
    # A candump log has neither origins nor numbers, and only whole microseconds.
    never = {"origins of frames", "sequence numbers", "times finer than 1 µs"}
    assert said == set(form.holds.lacking) - never
    assert convert(there, back).exit_code == 0
    records = [record._replace(origin=None, seq=None) for record in examples()]
    assert contents(read(back)) == [
        (*rest, channel or "can", *more)
        for *rest, channel, sent, origin, seq in left(records, form.holds)
        for more in [(sent, origin, seq)]
    ]
    assert {path.name for path in tmp_path.iterdir()} == {drive.name, there.name, back.name}


def test_what_was_cut_off_and_what_was_damaged_is_said(drive: Path, tmp_path: Path) -> None:
    text = drive.read_text()
    drive.write_text(f"nonsense\n{text[:-10]}")
    result = convert(drive, tmp_path / "out.pcapng")
    assert result.exit_code == 0
    assert "8 frames in" in result.output
    assert "skipped 2 lines" in result.output
    assert "cut off in line 10" in result.output


def test_a_file_is_not_converted_into_itself(drive: Path) -> None:
    before = drive.read_bytes()
    result = convert(drive, drive)
    assert result.exit_code == 2
    assert "is the file to read" in result.output
    assert drive.read_bytes() == before


@pytest.mark.parametrize(
    ("source", "target", "said"),
    [
        ("none.log", "out.pcapng", "No such file"),
        ("drive.log", "out.txt", "the suffix is not one of .log,"),
        ("drive.log", "nowhere/out.pcapng", "cannot write"),
        ("empty.pcapng", "out.log", "is empty"),
    ],
)
def test_what_cannot_be_done_is_said_and_leaves_nothing(
    drive: Path, tmp_path: Path, source: str, target: str, said: str
) -> None:
    (tmp_path / "empty.pcapng").touch()
    result = convert(tmp_path / source, tmp_path / target)
    assert result.exit_code == 1
    assert said in result.output
    assert {path.name for path in tmp_path.iterdir()} == {drive.name, "empty.pcapng"}
