"""A recording with a trigger, from events: what its files have whatever happens to the recorder."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec
import pytest

from canbroker.actors.recorder.open_file import OpenFile
from canbroker.actors.recorder.options import RecordOptions
from canbroker.actors.recorder.output import SYNC_NS
from canbroker.actors.recorder.recording import Recording
from canbroker.actors.recorder.side_file import SideFile, read_all
from canbroker.delivery.order import Loss, Place
from canbroker.delivery.tap import Ended, Frames
from canbroker.logs.formats import open_reader
from canbroker.logs.records import Record
from canbroker.model.frame import EchoFrame
from canbroker.system import clock

T: Final = 1_700_000_000 * clock.SECOND
_TRIGGER: Final = 0x100
_EPOCH: Final = 7


class Bench:
    """A channel with numbered frames, one each millisecond, and recordings of it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.frames: list[EchoFrame] = []
        self.step_ns = 0  # of the host's clock
        self._made: list[Recording] = []

    def send(self, count: int, identifier: int = 1) -> None:
        for _ in range(count):
            number = len(self.frames)
            at_ns = T + self.step_ns + number * clock.MILLISECOND
            self.frames.append(EchoFrame(at_ns, identifier, 0, number.to_bytes(4, "big"), None))

    def close(self) -> None:
        """Closes what killed recorders have left open."""
        for made in self._made:
            made.give_up()

    def recording(self, *, loss: Loss | None = None, **options: object) -> Recording:
        """The next recorder's, as far as the one before has come."""
        given: dict[str, object] = {"trigger": "100#*", "before_s": 0.0035, "after_s": 0.005}
        given |= {"channels": ["x"], "directory": str(self.directory), **options}
        self.close()
        made = Recording("r", msgspec.convert(given, RecordOptions), self._before)
        self._made.append(made)
        ends = made.left()
        place = ends["x"].place if ends else Place(_EPOCH, len(self.frames))
        made.begin("x", place, loss, Place(_EPOCH, len(self.frames)))
        made.open(ends.keys())
        return made

    def read(self, made: Recording, count: int | None = None, *, after_ns: int = 0) -> None:
        """The recorder reads the frames that follow, and takes a step."""
        first = made.places["x"].number
        frames = self.frames[first : None if count is None else first + count]
        made.add([Frames("x", frames)] if frames else [])
        made.step(clock.monotonic_ns() + after_ns)

    def sides(self) -> list[SideFile]:
        return sorted(read_all(self.directory, "r"), key=lambda side: side.number)

    def numbers(self) -> list[list[int]]:
        """What is in each complete file that has frames."""
        found = []
        for side in self.sides():
            assert side.state == "complete"
            if side.frames:
                with open_reader(self.directory / side.file) as reader:
                    frames = [record.frame for batch in reader.batches() for record in batch]
                found.append([int.from_bytes(bytes(frame.data), "big") for frame in frames])
        return found

    def _before(self, _: str, place: Place, seconds: float) -> list[EchoFrame]:
        since_ns = clock.wall_ns() - int(seconds * clock.SECOND)
        return [each for each in self.frames[: place.number] if each.timestamp_ns >= since_ns]


@pytest.fixture
def host_clock(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that is set when the bench's is."""
    wall_ns = clock.wall_ns
    monkeypatch.setattr(clock, "wall_ns", lambda: wall_ns() + bench.step_ns)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.close()


def test_a_trigger_that_comes_while_no_recorder_is_there_is_found(bench: Bench) -> None:
    killed = bench.recording()
    bench.send(10)
    bench.read(killed, after_ns=SYNC_NS)
    bench.send(5)
    bench.send(1, _TRIGGER)
    bench.send(20)
    made = bench.recording()
    assert made.places == {"x": Place(_EPOCH, 10)}
    bench.read(made)
    assert bench.numbers() == [[12, 13, 14, 15, 16, 17, 18, 19, 20]]


def test_what_was_written_for_a_trigger_is_not_looked_at_again(bench: Bench) -> None:
    killed = bench.recording()
    bench.send(1, _TRIGGER)
    bench.send(10)
    bench.read(killed)  # it is killed before it notes how far it has looked
    made = bench.recording()
    bench.read(made)
    made.close("done", stopped=True)
    assert bench.numbers() == [[0, 1, 2, 3, 4, 5]]


def test_a_recording_that_is_stopped_does_not_look_at_what_comes_then(bench: Bench) -> None:
    stopped = bench.recording()
    assert list(bench.directory.glob("*.waiting"))
    stopped.close("done", stopped=True)
    assert list(bench.directory.iterdir()) == []
    bench.send(1, _TRIGGER)
    bench.read(bench.recording())
    assert bench.sides() == []


def test_a_recording_of_another_name_is_not_continued(bench: Bench) -> None:
    bench.recording()
    (path,) = bench.directory.glob("*.waiting")
    path.write_bytes(path.read_bytes().replace(b'"recording":"r"', b'"recording":"."'))
    bench.send(3)
    assert bench.recording().places == {"x": Place(_EPOCH, 3)}


def test_a_directory_that_cannot_be_written_is_noticed_before_the_trigger(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        Bench(tmp_path / "file").recording()


def test_what_nobody_has_kept_is_said(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    made = bench.recording(loss=Loss(1, 5, None, "nothing has kept them"))
    assert "a trigger in what is lost of x is not seen" in caplog.text
    bench.send(1, _TRIGGER)
    bench.read(made)
    made.close("done", stopped=True)
    assert [note.what for note in bench.sides()[0].notes] == ["trigger"]


def test_a_recorder_that_was_late_reads_all_before_the_time_after_the_trigger_is_over(
    bench: Bench,
) -> None:
    killed = bench.recording()
    bench.send(1, _TRIGGER)
    bench.read(killed, after_ns=SYNC_NS)
    bench.send(4)  # long ago, by the clock
    made = bench.recording()
    bench.read(made, 0)
    bench.read(made, 2)
    bench.read(made, 0)
    bench.read(made)
    assert [side.state for side in bench.sides()] == ["complete", "open"]
    bench.read(made)  # nothing has come
    assert bench.numbers() == [[0], [1, 2, 3, 4]]


def test_a_channel_that_ends_is_not_waited_for(bench: Bench) -> None:
    killed = bench.recording()
    bench.send(1, _TRIGGER)
    bench.read(killed, after_ns=SYNC_NS)
    bench.send(4)
    made = bench.recording()
    made.add([Ended("x", "gone")])
    bench.read(made, 0)
    assert [side.state for side in bench.sides()] == ["complete", "complete"]


def test_a_file_that_was_begun_just_before_a_kill_continues_the_capture(bench: Bench) -> None:
    killed = bench.recording(rotate_mb=0.0001)
    bench.send(1, _TRIGGER)
    bench.send(2)
    bench.read(killed)
    assert [side.state for side in bench.sides()] == ["complete", "open"]
    bench.send(10)
    made = bench.recording()
    bench.read(made)
    assert bench.numbers() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.usefixtures("host_clock")
@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (3600, "the clock of this host was set forward by 3600.0"),
        (-5, "the clock of this host was set back by "),
    ],
)
def test_a_step_of_the_clock_is_noted(bench: Bench, seconds: int, said: str) -> None:
    made = bench.recording(trigger="")
    bench.send(3)
    bench.read(made)
    bench.step_ns = 50 * clock.MILLISECOND  # less than a step: the clock is adjusted
    bench.read(made)
    bench.step_ns += seconds * clock.SECOND
    bench.send(2)
    bench.read(made)
    made.close("done", stopped=True)
    (side,) = bench.sides()
    assert [(note.what, note.after) for note in side.notes] == [("clock", 3)]
    assert side.notes[0].text.startswith(said)
    assert bench.numbers() == [[0, 1, 2, 3, 4]]


@pytest.mark.usefixtures("host_clock")
@pytest.mark.parametrize("seconds", [3600, -3600])
def test_the_time_after_a_trigger_moves_with_the_clock(bench: Bench, seconds: int) -> None:
    made = bench.recording(after_s=0.0055)
    bench.send(1, _TRIGGER)
    bench.send(2)
    bench.read(made)
    bench.step_ns = seconds * clock.SECOND
    bench.send(10)
    bench.read(made)
    assert bench.numbers() == [[0, 1, 2, 3, 4, 5]]


def test_what_was_before_a_trigger_is_written_after_a_failure_to_write(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = bench.recording()
    bench.send(5)
    bench.read(made)
    bench.send(1, _TRIGGER)
    bench.send(1)
    write, is_full = OpenFile.write, [True]

    def failing(file: OpenFile, records: Sequence[Record]) -> None:
        if is_full[0]:
            raise OSError(errno.ENOSPC, "full")
        write(file, records)

    monkeypatch.setattr(OpenFile, "write", failing)
    with pytest.raises(OSError, match="full"):
        bench.read(made)
    made.give_up()
    is_full[0] = False
    made.go_on("full")
    bench.send(5)
    bench.read(made)
    assert bench.numbers() == [[2, 3, 4, 5, 6, 7, 8, 9, 10]]
