"""Every format: what is written is read again, but for what its row says that it cannot hold."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

import pytest
from hypothesis import HealthCheck, given, settings

from canbroker.errors import CanInitializationError
from canbroker.logs.converting import recover
from canbroker.logs.formats import FORMATS, Format, format_of, open_reader, open_writer
from canbroker.logs.records import Record
from canbroker.logs.streams import Writer
from canbroker.model.frame import ERROR, REMOTE, Frame
from tests.support.full_disk import full_disk
from tests.support.recordings import BASE_NS, contents, examples, installed, left, recordings

COMPRESSED: Final = [name for name in FORMATS if FORMATS[name].gzip]
SURVIVING: Final = [
    *(name for name in FORMATS if FORMATS[name].survives),
    *(f"{name}.gz" for name in COMPRESSED),
]


JOURNAL: Final = "drive.part-journal"


@pytest.fixture(params=FORMATS)
def form(request: pytest.FixtureRequest) -> Format:
    return installed(request.param)


@pytest.fixture(params=SURVIVING)
def kind(request: pytest.FixtureRequest) -> str:
    """The formats that a killed process leaves readable, compressed and not."""
    installed(request.param)
    return str(request.param)


def written(path: Path, records: list[Record], kind: str | None = None) -> str:
    """Writes a file; returns what was lost."""
    with open_writer(path, kind) as writer:
        writer.write(records[:3])
        writer.write(records[3:])
    return str(writer.losses)


def read(path: Path, kind: str | None = None) -> list[Record]:
    with open_reader(path, kind) as reader:
        records = list(reader)
        assert not reader.skipped
        assert reader.end is None
    return records


def read_damaged(path: Path, kind: str | None = None) -> list[Record]:
    """The records of a file that may be refused; then the error names it."""
    found: list[Record] = []
    fault = str(path)
    try:
        with open_reader(path, kind) as reader:
            found += reader
    except CanInitializationError as error:
        fault = str(error)
    assert str(path) in fault
    return found


@pytest.fixture
def folder() -> Iterator[Path]:
    """Hypothesis runs a test many times with one ``tmp_path``; this is as good."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@pytest.mark.parametrize("kind", [name for name in FORMATS if name != "mf4"])
@given(records=recordings())
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=30
)
def test_what_a_format_holds_survives_it(kind: str, folder: Path, records: list[Record]) -> None:
    _check_that_it_survives(installed(kind), folder, records)


@given(records=recordings(30, 100))
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=5
)
def test_what_mf4_holds_survives_it(folder: Path, records: list[Record]) -> None:
    """Fewer examples, and larger ones: each starts a process that imports asammdf."""
    _check_that_it_survives(installed("mf4"), folder, records)


def _check_that_it_survives(form: Format, folder: Path, records: list[Record]) -> None:
    path = folder / f"drive{form.suffixes[0]}"
    if form.name == "mf4":  # three tables: of one moment, data frames come first, remote ones last
        records.sort(key=lambda record: (record.frame.timestamp_ns, _table(record.frame.flags)))
    written(path, records)
    if not records and form.name == "log":
        return  # a log without a frame may be anything
    again = read(path)
    assert contents(again) == left(records, form.holds)
    kept = [record for record in records if not record.frame.flags & sum(form.holds.excluded)]
    resolution_ns = form.holds.resolution_ns
    for before, after in zip(kept, again, strict=True):
        assert abs(after.frame.timestamp_ns - before.frame.timestamp_ns) < max(resolution_ns, 1)


def _table(flags: int) -> int:
    return 2 if flags & REMOTE else 1 if flags & ERROR else 0


def test_times_at_the_resolution_of_a_format_are_kept(form: Format, tmp_path: Path) -> None:
    path = tmp_path / f"drive{form.suffixes[0]}"
    records = examples()
    written(path, records)
    mask = sum(form.holds.excluded)
    times = [r.frame.timestamp_ns for r in records if not r.frame.flags & mask]
    assert [record.frame.timestamp_ns for record in read(path)] == times


def test_what_a_format_cannot_hold_is_counted(form: Format, tmp_path: Path) -> None:
    path = tmp_path / f"drive{form.suffixes[0]}"
    frame = Frame(BASE_NS, 0x123, 0, b"\x01")
    records = [*examples(), Record(frame, "can0", True, "c1", 99)]
    with open_writer(path) as writer:
        writer.write(records)
    assert set(writer.losses.counts) == set(form.holds.lacking)
    assert bool(writer.losses) == bool(form.holds.lacking)


def test_a_frame_before_the_first_one_never_gets_a_negative_time(
    form: Format, tmp_path: Path
) -> None:
    path = tmp_path / f"drive{form.suffixes[0]}"
    frames = [Frame(BASE_NS + offset, 0x123, 0, b"") for offset in (0, -2_000_000_000, 5_000_000)]
    losses = written(path, [Record(frame, "can0") for frame in frames])
    times = [record.frame.timestamp_ns - BASE_NS for record in read(path)]
    is_moved = "times before" in losses
    assert times[1] == pytest.approx(0 if is_moved else -2_000_000_000, abs=1_000_000)
    assert times[2] == pytest.approx(5_000_000, abs=1_000)


@pytest.mark.parametrize("seconds", [0, 100, 600_000_000])
def test_times_of_a_clock_that_was_never_set_are_kept(
    form: Format, tmp_path: Path, seconds: int
) -> None:
    path = tmp_path / f"drive{form.suffixes[0]}"
    times = [seconds * 10**9 + offset for offset in (1_000_000, 2_500_000, 3_000_000)]
    written(path, [Record(Frame(each, 0x123, 0, b""), "can0") for each in times])
    found = [record.frame.timestamp_ns for record in read(path)]
    assert found == pytest.approx(times, abs=1000)


def test_a_file_can_be_read_again_and_says_how_far(form: Format, tmp_path: Path) -> None:
    path = tmp_path / f"drive{form.suffixes[0]}"
    written(path, examples())
    with open_reader(path) as reader:
        assert list(reader) == list(reader)
        done, total = reader.progress
        assert done == total


@pytest.mark.parametrize("name", COMPRESSED)
def test_a_second_suffix_compresses(name: str, tmp_path: Path) -> None:
    form = installed(name)
    plain, compressed = (tmp_path / f"drive{form.suffixes[0]}{end}" for end in ("", ".gz"))
    records = examples() * 50
    records.sort(key=lambda record: record.frame.timestamp_ns)
    for path in (plain, compressed):
        written(path, records)
    assert read(compressed) == read(plain)
    assert compressed.stat().st_size < plain.stat().st_size / 2


def test_what_was_synced_can_be_read_although_nobody_closes_the_file(
    kind: str, tmp_path: Path
) -> None:
    path, copy = tmp_path / "drive.part", tmp_path / "copy.part"
    records = examples()
    writer = open_writer(path, kind)
    try:
        writer.write(records)
        writer.sync()
        writer.write(records[:2])
        copy.write_bytes(path.read_bytes())  # as a kill would leave it
        if (tmp_path / JOURNAL).exists():  # SQLite's
            (tmp_path / f"{copy.name}-journal").write_bytes((tmp_path / JOURNAL).read_bytes())
        if kind == "blf":  # and ASC, for example, cannot know
            with open_reader(copy, kind) as reader:
                assert len(list(reader)) == len(records)
                assert reader.end == "not closed by its writer"
        recovered = recover(copy, kind)
        holds = FORMATS[kind.partition(".")[0]].holds
        found = read(copy, kind)
        assert recovered.frames == len(found)
        assert contents(found)[: len(records)] == left(records, holds)
        assert found[0].frame.timestamp_ns == records[0].frame.timestamp_ns
        assert {each.name for each in tmp_path.iterdir()} <= {path.name, copy.name, JOURNAL}
    finally:
        writer.close()


def test_a_file_that_was_cut_anywhere_is_read_up_to_there(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "drive.part"
    written(path, examples(), kind)
    whole = path.read_bytes()
    expected = contents(read(path, kind))
    step = max(1, len(whole) // 97)
    for size in range(0, len(whole), step):
        path.write_bytes(whole[:size])
        found = contents(read_damaged(path, kind))
        assert found == expected[: len(found)]


def test_a_blf_file_that_was_cut_off_is_said_to_be(tmp_path: Path) -> None:
    path = tmp_path / "drive.blf"
    written(path, examples() * 10)
    whole = path.read_bytes()
    path.write_bytes(whole[:-40])
    with open_reader(path) as reader:
        assert 0 < len(list(reader)) < 90
        assert reader.end == f"cut off: {len(whole) - 40} bytes of {len(whole)}"


def test_a_file_of_another_kind_is_refused_by_name(form: Format, tmp_path: Path) -> None:
    path = tmp_path / f"drive{form.suffixes[0]}"
    path.write_bytes(bytes(range(256)) * 8)
    assert read_damaged(path) == []


def test_a_file_that_is_missing_is_named(form: Format, tmp_path: Path) -> None:
    path = tmp_path / f"none{form.suffixes[0]}"
    with pytest.raises(CanInitializationError, match="none"):
        open_reader(path)
    with pytest.raises(OSError, match="nowhere"):
        open_writer(tmp_path / "nowhere" / path.name)


@pytest.mark.parametrize("name", ["drive", "drive.txt", "drive.blf.gz", "drive.log.part"])
def test_a_suffix_that_is_not_known_is_refused(name: str) -> None:
    with pytest.raises(CanInitializationError, match="drive"):
        format_of(Path(name))


def test_the_last_suffix_counts() -> None:
    """python-can looks at the second part of a name, and refuses ``drive_3.6L.log``."""
    assert format_of(Path("drive_3.6L.log"))[0].name == "log"
    assert format_of(Path("2026.11.30.BLF"))[0].name == "blf"
    assert format_of(Path("drive_3.6L.asc.gz")) == (FORMATS["asc"], True)


def test_a_full_disk_is_an_error_and_the_file_is_closed(form: Format, tmp_path: Path) -> None:
    path = tmp_path / f"drive{form.suffixes[0]}"
    chance = random.Random(1)
    records = [
        Record(Frame(BASE_NS + n * 1000, 0x123, 0, chance.randbytes(8)), "can0")
        for n in range(5000)
    ]
    with full_disk(20_000):
        writer = open_writer(path)
        with pytest.raises(OSError, match=r"File too large|disk"):
            write_and_close(writer, records)
        with suppress(OSError):
            writer.close()
    writer.close()


def write_and_close(writer: Writer, records: list[Record]) -> None:
    writer.write(records)
    writer.sync()
    writer.close()


def test_closing_twice_does_nothing(form: Format, tmp_path: Path) -> None:
    path = tmp_path / f"drive{form.suffixes[0]}"
    writer = open_writer(path)
    writer.write(examples())
    writer.close()
    size = path.stat().st_size
    writer.close()
    assert path.stat().st_size == size
