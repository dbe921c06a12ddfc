"""The files of a recording, from events, with time passed in."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from canbroker.actors.recorder.open_file import OpenFile
from canbroker.actors.recorder.options import RecordOptions
from canbroker.actors.recorder.output import SYNC_NS, Output
from canbroker.actors.recorder.side_file import ChannelEnd, SideFile, read_all
from canbroker.delivery.merging import Disorder
from canbroker.delivery.order import Loss, Place
from canbroker.delivery.tap import Ended, Frames, Missed, Restarted
from canbroker.logs.formats import open_reader
from canbroker.logs.records import Record
from canbroker.model.frame import EchoFrame
from canbroker.system import clock
from canbroker.wire.stream import AdapterClock

T = 1_700_000_000 * clock.SECOND


def frames(first: int, end: int) -> Frames:
    return Frames("x", [EchoFrame(T + n, n, 0, b"\1", None) for n in range(first, end)])


def output(directory: Path, name: str = "r", **options: object) -> Output:
    """An output that has begun on channel x."""
    given = {"channels": ["x"], "directory": str(directory), **options}
    made = Output(name, "", msgspec.convert(given, RecordOptions), ".log")
    before = made.left()
    made.complete_left(before)
    made.begin("x", before["x"].place if before else Place(1, 0), None)
    made.open()
    return made


def sides(directory: Path, name: str = "r") -> list[SideFile]:
    return sorted(read_all(directory, name), key=lambda side: side.number)


def numbers(directory: Path, name: str = "r") -> list[int]:
    """The identifiers in all complete files, in their order."""
    found: list[int] = []
    for side in sides(directory, name):
        if side.frames:
            with open_reader(directory / side.file) as reader:
                batches = list(reader.batches())
            here = [record.frame.arbitration_id for batch in batches for record in batch]
            assert len(here) == side.frames
            found += here
    return found


def test_a_file_is_a_part_until_it_is_complete(tmp_path: Path) -> None:
    made = output(tmp_path)
    made.add(frames(0, 3))
    (part,) = tmp_path.glob("*.part")
    assert made.path == part
    made.close("done", stopped=True)
    (side,) = sides(tmp_path)
    assert made.path == tmp_path / side.file == part.with_suffix("")
    assert (side.state, side.why, side.frames) == ("complete", "done", 3)
    assert side.bytes == made.path.stat().st_size
    assert side.channels == {"x": ChannelEnd(1, 3)}
    assert numbers(tmp_path) == [0, 1, 2]


def test_frames_of_channels_that_alternate_are_written_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []
    write = OpenFile.write

    def counted(file: OpenFile, records: Sequence[Record]) -> None:
        written.append(len(records))
        write(file, records)

    monkeypatch.setattr(OpenFile, "write", counted)
    made = output(tmp_path, channels=["x", "y"])
    made.begin("y", Place(1, 0), None)
    for number in range(10):
        made.add(frames(number, number + 1))
        made.add(frames(number, number + 1)._replace(channel="y"))
    made.step(clock.monotonic_ns())
    made.add(frames(10, 11))
    made.add(Missed("y", Loss(1, 10, 5, "gone")))  # is noted behind what came before it
    made.close("done", stopped=True)
    assert written == [20, 1]
    (side,) = sides(tmp_path)
    assert [(note.what, note.after) for note in side.notes] == [("lost", 21)]


def test_what_was_synced_and_no_more_is_kept_of_a_recorder_that_was_killed(tmp_path: Path) -> None:
    killed = output(tmp_path)
    killed.add(frames(0, 3))
    killed.step(clock.monotonic_ns() + SYNC_NS)
    killed.add(frames(3, 5))
    killed.step(clock.monotonic_ns())  # writes, but it is not certain yet
    killed.give_up()
    made = output(tmp_path)
    assert made.places == {"x": Place(1, 3)}
    made.add(frames(3, 6))
    made.close("done", stopped=True)
    assert numbers(tmp_path) == [0, 1, 2, 3, 4, 5]
    assert (made.complete.files, made.complete.frames) == (2, 6)


def test_a_recording_that_was_stopped_begins_anew(tmp_path: Path) -> None:
    output(tmp_path).close("done", stopped=True)
    made = output(tmp_path)
    assert made.places == {"x": Place(1, 0)}
    made.close("done", stopped=True)
    assert [side.number for side in sides(tmp_path)] == [1, 2]


def test_a_side_file_says_how_good_the_times_are(tmp_path: Path) -> None:
    made = output(tmp_path)
    made.know_clock("x", AdapterClock(drift_ppb=20_000, error_ns=90_000))
    made.know_clock("x", AdapterClock(drift_ppb=21_000, error_ns=80_000))
    made.add_disorder(Disorder(2, 5_000_000))
    made.add_disorder(Disorder())
    made.add_disorder(Disorder(1, 3_000_000))
    made.close("done", stopped=True)
    (side,) = sides(tmp_path)
    assert side.clocks == {"x": AdapterClock(drift_ppb=21_000, error_ns=80_000)}
    assert (side.out_of_order, side.out_of_order_ns) == (3, 5_000_000)


def test_losses_and_restarts_are_noted_where_they_were(tmp_path: Path) -> None:
    made = output(tmp_path)
    made.add(frames(0, 2))
    made.add(Missed("x", Loss(1, 2, 5, "slow")))
    made.add(frames(7, 8))
    made.add(Missed("x", Loss(1, 8, None, "replaced")))
    made.add(Restarted("x", Place(2, 0)))
    made.add(frames(0, 1))
    made.add(Ended("x", "closed"))
    made.close("done", stopped=False)
    (side,) = sides(tmp_path)
    told = [(note.what, note.after, note.frames) for note in side.notes]
    assert told == [
        ("lost", 2, 5),
        ("lost", 3, None),
        ("restarted", 3, None),
        ("ended", 4, None),
    ]
    assert (side.lost, side.channels) == (5, {"x": ChannelEnd(2, 1, over=True)})
    assert made.complete.lost == 5


def test_files_follow_each_other_by_size_and_by_time(tmp_path: Path) -> None:
    made = output(tmp_path, rotate_s=10, rotate_mb=0.001)
    now = clock.monotonic_ns()
    made.add(frames(0, 2))
    made.step(now + 9 * clock.SECOND)
    made.add(frames(2, 4))
    made.step(now + 11 * clock.SECOND)
    made.add(frames(4, 104))
    made.step(now + 12 * clock.SECOND)
    made.close("done", stopped=True)
    assert [side.frames for side in sides(tmp_path)] == [4, 100, 0]
    assert numbers(tmp_path) == list(range(104))


def test_only_the_oldest_files_of_the_recording_are_removed(tmp_path: Path) -> None:
    other = output(tmp_path, name="r-2")
    other.add(frames(0, 1000))
    other.close("done", stopped=True)
    (tmp_path / "r-20200101T000000Z-1.log").write_text("somebody else's")
    made = output(tmp_path, rotate_mb=0.02, keep_mb=0.1)
    for begin in range(0, 10_000, 100):
        made.add(frames(begin, begin + 100))
        made.step(clock.monotonic_ns())
    made.close("done", stopped=True)
    left = numbers(tmp_path)
    assert left == list(range(10_000 - len(left), 10_000))
    assert 0 < len(left) < 5000
    assert numbers(tmp_path, "r-2") == list(range(1000))
    assert (tmp_path / "r-20200101T000000Z-1.log").exists()
    assert sum(path.stat().st_size for path in tmp_path.glob("r-2*T*-*.*")) < 2 * 0.1 * (1 << 20)


def test_a_directory_that_is_removed_is_made_again_and_the_frames_in_it_are_counted(
    tmp_path: Path,
) -> None:
    directory = tmp_path / "d"
    made = output(directory)
    made.add(frames(0, 3))
    made.step(clock.monotonic_ns() + SYNC_NS)
    made.add(frames(3, 4))
    shutil.rmtree(directory)
    with pytest.raises(OSError, match="No such file"):
        made.step(clock.monotonic_ns() + 2 * SYNC_NS)
    made.give_up()
    made.go_on("it was removed", is_writing=True)
    assert made.places == {"x": Place(1, 3)}
    made.add(frames(3, 6))
    made.step(clock.monotonic_ns())
    made.close("done", stopped=True)
    assert numbers(directory) == [3, 4, 5]
    assert made.complete.lost == 3
    assert made.complete.frames == 3


@pytest.mark.parametrize("name", ["a/b", "../up", "x\n", "ä", "con.log"])
def test_whatever_a_recording_is_called_its_files_are_in_its_directory(
    tmp_path: Path, name: str
) -> None:
    directory = tmp_path / "d"
    made = output(directory, name=name)
    made.add(frames(0, 1))
    made.close("done", stopped=True)
    assert numbers(directory, name) == [0]
    assert [path.name for path in tmp_path.iterdir()] == ["d"]


def test_a_channel_that_begins_later_is_not_forgotten_by_a_failure(tmp_path: Path) -> None:
    made = output(tmp_path, channels=["x", "y"])
    made.begin("y", Place(7, 5), None)
    made.add(Frames("y", frames(0, 2).frames))
    made.give_up()
    made.go_on("the disk was full", is_writing=True)
    assert made.places == {"x": Place(1, 0), "y": Place(7, 5)}
    made.close("done", stopped=True)
