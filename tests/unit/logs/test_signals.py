"""Decoded signals: which message a frame carries, and the tables that come of it."""

from __future__ import annotations

import csv
import json
import random
import struct
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Final

import pytest
from click.testing import CliRunner, Result

from canbroker.cli import cli
from canbroker.logs.formats import open_writer
from canbroker.logs.records import Record
from canbroker.model.frame import ERROR, EXTENDED, FD, REMOTE, Frame
from tests.support.databases import CAR_DBC
from tests.support.full_disk import full_disk
from tests.support.recordings import BASE_NS

reason = "needs the extra signals or parquet; make ecosystem has them"
pytest.importorskip("cantools", reason=reason)
pq: Any = pytest.importorskip("pyarrow.parquet", reason=reason)

_DAY: Final = "2026/11/30"


class Bench:
    """A directory with a database and a recording."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        (directory / "car.dbc").write_text(CAR_DBC)
        self._records: list[Record] = []

    def add(self, number: int, flags: int, data: bytes | int, channel: str = "can0") -> None:
        frame = Frame(BASE_NS + len(self._records) * 1_000_000, number, flags, data)
        self._records.append(Record(frame, channel))

    def convert(self, target: str = "lake", disk: int | None = None, *more: str) -> Result:
        """``more``: further databases."""
        with open_writer(self.directory / "drive.pcapng") as writer:
            writer.write(self._records)
        names = ["drive.pcapng", target]
        for database in ("car.dbc", *more):
            names += ["--dbc", database]
        paths = [name if name.startswith("-") else str(self.directory / name) for name in names]
        with nullcontext() if disk is None else full_disk(disk):
            return CliRunner().invoke(cli, ["convert", *paths])

    def table(self, name: str) -> Any:
        return pq.ParquetFile(self.directory / "lake" / name / _DAY / "drive.parquet").read()


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_a_file_for_each_message_with_a_column_for_each_signal(bench: Bench) -> None:
    for speed, gear in ((0, 0), (875, 4), (1000, 2)):
        bench.add(291, 0, struct.pack("<HB5x", speed, gear))
    bench.add(0x18FEF1FF, EXTENDED, b"\0\0\0")
    result = bench.convert()
    assert result.exit_code == 0, result.output
    assert "3 rows in 1 files" in result.output
    assert "frames that the database does not have (1)" in result.output
    table = bench.table("can0_Motion")
    assert table.column_names == ["t", "Speed", "Gear", "Slope"]
    assert table["Speed"].to_pylist() == pytest.approx([0, 87.5, 100])
    assert table["Gear"].to_pylist() == [0, 4, 2]
    assert [str(field.type) for field in table.schema][1:] == ["double", "int64", "double"]
    assert table["t"].cast("int64").to_pylist() == [BASE_NS + n * 1_000_000 for n in range(3)]
    assert table.schema.field("Speed").metadata == {b"unit": b"km/h"}
    names = json.loads(table.schema.field("Gear").metadata[b"values"])
    assert names == {"0": "Park", "4": "Drive"}
    assert table.schema.metadata[b"database"] == b"car.dbc"


def test_messages_of_several_databases(bench: Bench) -> None:
    (bench.directory / "doors.dbc").write_text(
        'VERSION ""\nBU_: Door\nBO_ 292 Doors: 1 Door\n SG_ Open : 0|4@1+ (1,0) [0|15] "" Door\n'
    )
    bench.add(291, 0, bytes(8))
    bench.add(292, 0, b"\x03")
    assert "2 rows in 2 files" in bench.convert("lake", None, "doors.dbc").output
    assert bench.table("can0_Doors")["Open"].to_pylist() == [3]
    assert bench.table("can0_Motion").schema.metadata[b"database"] == b"car.dbc, doors.dbc"


def test_channels_have_files_of_their_own(bench: Bench) -> None:
    for channel in ("can0", "a/b"):
        bench.add(291, 0, bytes(8), channel)
    assert "2 rows in 2 files" in bench.convert().output
    assert bench.table("can0_Motion").num_rows == bench.table("a_b_Motion").num_rows == 1


def test_an_11_bit_identifier_is_not_a_29_bit_one(bench: Bench) -> None:
    bench.add(291, EXTENDED, bytes(8))
    assert "0 rows in 0 files" in bench.convert().output


def test_multiplexed_signals_have_values_where_they_were_sent(bench: Bench) -> None:
    bench.add(500, 0, b"\x00\x0c\x00")
    bench.add(500, 0, b"\x01\x0a\x00")
    bench.add(500, 0, b"\x07\x00\x00")  # which the database does not have
    assert "did not decode by car.dbc: Probe (1)" in bench.convert().output
    table = bench.table("can0_Probe")
    assert table["Which"].to_pylist() == [0, 1]
    assert table["Voltage"].to_pylist() == [12, None]
    assert table["Current"].to_pylist() == [None, 5.0]


def test_fd_frames_and_numbers_of_64_bits(bench: Bench) -> None:
    bench.add(600, FD, bytes([255] * 20))
    bench.convert()
    table = bench.table("can0_Wide")
    assert table["Counter"].to_pylist() == [2**64 - 1]
    assert table["Last"].to_pylist() == [-1]


def test_j1939_messages_are_found_by_their_pgn(bench: Bench) -> None:
    data = struct.pack("<3xH3x", 8000)
    bench.add(0x0CF00427, EXTENDED, data)  # another sender, another priority than the database's
    bench.add(0x18F00403, EXTENDED, data)
    bench.add(0x18EA21F9, EXTENDED, b"\x01\x00\x00")  # to one destination; the PGN is EA00
    assert "3 rows in 2 files" in bench.convert().output
    table = bench.table("can0_EEC1")
    assert table["EngineSpeed"].to_pylist() == [1000.0, 1000.0]
    assert table["source_address"].to_pylist() == [0x27, 0x03]
    assert bench.table("can0_Request")["Number"].to_pylist() == [1]


def test_what_does_not_decode_is_counted(bench: Bench) -> None:
    bench.add(291, 0, bytes(8))
    bench.add(291, 0, b"\x01")
    bench.add(291, REMOTE, 8)
    bench.add(0x88, ERROR, bytes(8))
    bench.add(0x700, 0, b"")
    output = bench.convert().output
    assert "1 rows in 1 files" in output
    assert "frames whose data is not that of their message (1)" in output
    assert "error and remote frames (2)" in output
    assert "frames that the database does not have (1)" in output
    assert "did not decode by car.dbc: Motion (1)" in output


def test_csv_has_units_in_headers_and_names_of_values(bench: Bench) -> None:
    for gear in (0, 4, 2):
        bench.add(291, 0, struct.pack("<HB5x", 875, gear))
    assert bench.convert("lake.csv").exit_code == 0
    path = bench.directory / "lake.csv" / "can0_Motion" / _DAY / "drive.csv"
    with path.open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["t", "Speed [km/h]", "Gear", "Slope [%]"]
    assert [row[2] for row in rows] == ["Park", "Drive", "2"]
    assert rows[1][0] == "2026-11-30T00:53:20.124456789Z"


def test_a_day_has_a_file_of_its_own(bench: Bench) -> None:
    bench.add(291, 0, bytes(8))
    record = bench._records[0]
    later = Frame(BASE_NS + 86_400 * 10**9, 291, 0, bytes(8))
    bench._records.append(record._replace(frame=later))
    bench.convert()
    found = bench.directory.glob("lake/can0_Motion/2026/*/*/drive.parquet")
    assert sorted(path.parent.name for path in found) == ["01", "30"]


def test_more_tables_than_files_may_be_open(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("canbroker.logs.signals._OPEN_TABLES", 2)
    for _ in range(3):
        for channel in ("can0", "can1", "can2"):
            bench.add(291, 0, bytes(8), channel)
    assert "9 rows in 9 files" in bench.convert().output
    parts = (bench.directory / "lake" / "can0_Motion" / _DAY).iterdir()
    names = {path.name for path in parts}
    assert names == {"drive.parquet", "drive_1.parquet", "drive_2.parquet"}


def test_a_full_disk_leaves_whole_files_only(bench: Bench) -> None:
    chance = random.Random(1)
    for _ in range(20_000):
        bench.add(291, 0, struct.pack("<HB5x", chance.randrange(65536), chance.randrange(5)))
    bench.add(0x18FEF1FE, EXTENDED, b"\0\0\0")
    result = bench.convert(disk=30_000)
    assert result.exit_code == 1
    assert "cannot write" in result.output
    left = [path.name for path in bench.directory.glob("lake/**/*") if path.is_file()]
    assert all(name == "drive.parquet" for name in left)


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [(None, 2, "does not exist"), ("nonsense", 1, "is not a database")],
)
def test_a_database_that_is_none_is_refused(
    bench: Bench, text: str | None, code: int, said: str
) -> None:
    path = bench.directory / "car.dbc"
    path.unlink() if text is None else path.write_text(text)
    result = bench.convert()
    assert result.exit_code == code
    assert said in result.output
    assert "car.dbc" in result.output
    assert not (bench.directory / "lake").exists()
