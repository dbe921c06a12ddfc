"""Arrow and Parquet: what they have beyond frames, and tables that others have made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from canbroker.errors import CanInitializationError
from canbroker.logs.formats import open_reader, open_writer
from canbroker.logs.records import Record
from tests.support.recordings import BASE_NS, examples

pa: Any = pytest.importorskip("pyarrow", reason="needs the extra parquet; make ecosystem has it")
pq: Any = pytest.importorskip("pyarrow.parquet")


@pytest.mark.parametrize("suffix", [".arrow", ".arrows", ".parquet"])
def test_metadata_may_come_until_the_file_is_closed(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"drive{suffix}"
    with open_writer(path, metadata={"epoch": "7", "lost": "0"}) as writer:
        writer.write(examples())
        writer.metadata["lost"] = "12"
    with open_reader(path) as reader:
        assert len(list(reader)) == len(examples())
        assert reader.metadata == {"epoch": "7", "lost": "12"}


@pytest.mark.parametrize("suffix", [".arrow", ".arrows"])
def test_an_arrow_file_whose_writer_was_killed_has_all_that_was_synced(
    tmp_path: Path, suffix: str
) -> None:
    path, copy = tmp_path / f"drive{suffix}", tmp_path / f"copy{suffix}"
    writer = open_writer(path)
    with writer:
        for channel in ("can0", "can1", "can2"):  # the dictionary of names grows
            writer.write([record._replace(channel=channel) for record in examples()])
            writer.sync()
        copy.write_bytes(path.read_bytes())
    with open_reader(copy) as reader:
        channels = [record.channel for record in reader]
    count = len(examples())
    assert channels == ["can0"] * count + ["can1"] * count + ["can2"] * count


def test_many_records_are_written_in_groups_and_read_in_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("canbroker.logs.arrow.ParquetWriter.together", 4000)
    path = tmp_path / "drive.parquet"
    record = examples()[0]
    with open_writer(path) as writer:
        for _ in range(5):
            writer.write([record] * 2000)
    assert pq.read_metadata(path).num_row_groups == 3
    with open_reader(path) as reader:
        sizes = [len(batch) for batch in reader.batches()]
        assert sum(sizes) == 10_000
        assert max(sizes) <= 1024


def write_table(path: Path, **columns: Any) -> None:
    pq.write_table(pa.table(columns), path)


def read(path: Path) -> list[Record]:
    with open_reader(path) as reader:
        return list(reader)


def test_a_table_of_another_program_needs_three_columns(tmp_path: Path) -> None:
    path = tmp_path / "other.parquet"
    micros = pa.array([BASE_NS // 1000], pa.timestamp("us"))
    write_table(path, timestamp=micros, arbitration_id=[0x123], data=[b"\x01"], more=["x"])
    (record,) = read(path)
    assert record.frame.timestamp_ns == BASE_NS // 1000 * 1000
    assert (record.frame.arbitration_id, record.frame.data) == (0x123, b"\x01")
    write_table(path, timestamp=micros, arbitration_id=[0x123])
    with pytest.raises(CanInitializationError, match="has no column 'data'"):
        read(path)


def test_a_column_of_another_type_is_named(tmp_path: Path) -> None:
    path = tmp_path / "other.parquet"
    write_table(path, timestamp=[1.5], arbitration_id=[1], data=[b""])
    with pytest.raises(CanInitializationError, match="column 'timestamp'"):
        read(path)


def test_rows_that_no_frame_can_be_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "other.parquet"
    stamps = pa.array([1, 2, None, -4], pa.timestamp("ns"))
    write_table(path, timestamp=stamps, arbitration_id=[1, 0x800, 1, 1], data=[b""] * 4)
    with open_reader(path) as reader:
        assert len(list(reader)) == 1
        assert "impossible rows" in str(reader.skipped)
        assert reader.skipped.counts.total() == 3
