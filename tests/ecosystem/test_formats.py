"""Foreign judges of our files: python-can, asammdf, pyarrow, pandas, polars, duckdb, Wireshark."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

import asammdf
import can
import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from canbroker.logs.formats import FORMATS, open_reader, open_writer
from canbroker.logs.records import Record
from canbroker.model.frame import (
    BITRATE_SWITCH,
    ERROR,
    ERROR_STATE_INDICATOR,
    EXTENDED,
    FD,
    REMOTE,
    Frame,
)
from tests.support.recordings import contents, examples, left

#: Those of python-can, by the suffixes that it knows.
_PYTHON_CAN: Final = ("log", "blf", "asc", "trc", "mf4", "csv", "sqlite")
_US: Final = 1000


def written(path: Path, records: list[Record]) -> None:
    with open_writer(path) as writer:
        writer.write(records)


def read(path: Path) -> list[Record]:
    with open_reader(path) as reader:
        records = list(reader)
        assert not reader.skipped, str(reader.skipped)
        assert reader.end is None
    return records


def known() -> list[Record]:
    """Records but for what python-can has no attribute for, or gets wrong.

    Its reader of candump's logs knows one class of error, that of ASC takes an FD frame without
    data for a remote one.
    """
    return [
        record._replace(origin=None, seq=None)
        for record in examples()
        if not record.frame.flags & ERROR
        and not (record.frame.flags & FD and record.frame.data == b"")
    ]


# -------------------------------------------------------------------------------------- python-can


@pytest.mark.parametrize("name", _PYTHON_CAN)
def test_python_can_reads_what_we_write(tmp_path: Path, name: str) -> None:
    form = FORMATS[name]
    path = tmp_path / f"drive{form.suffixes[0]}"
    written(path, known())
    # Its reader of ASC leaves out the date unless asked.
    options = {"relative_timestamp": False} if name == "asc" else {}
    with can.LogReader(str(path), **options) as reader:
        messages = list(reader)
    expected = left(known(), form.holds)
    first = {"blf": 1, "asc": 1}.get(name, 0)  # it calls the first channel 0, but not everywhere
    assert [of_python_can(message, first) for message in messages] == [
        row[:5] if form.holds.channels != "none" else (*row[:3], "", row[4]) for row in expected
    ]
    mask = sum(form.holds.excluded)
    times = [r.frame.timestamp_ns for r in known() if not r.frame.flags & mask]
    assert [message.timestamp * 1e9 for message in messages] == pytest.approx(times, abs=2 * _US)


@pytest.mark.parametrize("name", [f"{name}.gz" for name in _PYTHON_CAN if FORMATS[name].gzip])
def test_python_can_and_we_read_what_the_other_has_compressed(tmp_path: Path, name: str) -> None:
    ours, theirs = tmp_path / f"ours.{name}", tmp_path / f"theirs.{name}"
    plain = [record for record in known() if not record.frame.flags & (FD | REMOTE)]
    written(ours, plain)
    with can.Logger(str(theirs)) as logger:
        for record in plain:
            logger(to_python_can(record))
    expected = [record.frame.arbitration_id for record in plain]
    with can.LogReader(str(ours)) as reader:
        assert [message.arbitration_id for message in reader] == expected
    assert [record.frame.arbitration_id for record in read(theirs)] == expected


#: Those that python-can has error frames in, with their data or without.
_WITH_ERRORS: Final = ("blf", "asc", "mf4", "csv", "sqlite")


@pytest.mark.parametrize("name", _WITH_ERRORS)
def test_python_can_and_we_read_the_others_error_frames(tmp_path: Path, name: str) -> None:
    suffix = FORMATS[name].suffixes[0]
    ours, theirs = tmp_path / f"ours{suffix}", tmp_path / f"theirs{suffix}"
    sent = [record for record in examples() if record.frame.flags & ERROR] * 2
    written(ours, sent)
    with can.Logger(str(theirs)) as logger:
        for record in sent:
            logger(to_python_can(record))
    with can.LogReader(str(ours)) as reader:
        messages = list(reader)
    assert [message.is_error_frame for message in messages] == [True, True]
    expected = [row[:3] for row in left(sent, FORMATS[name].holds)]
    if FORMATS[name].holds.errors == "all":
        assert [(m.arbitration_id, ERROR, bytes(m.data)) for m in messages] == expected
    assert [row[:3] for row in contents(read(theirs))] == expected


def of_python_can(message: can.Message, first: int) -> tuple[object, ...]:
    flags = (
        (EXTENDED if message.is_extended_id else 0)
        | (REMOTE if message.is_remote_frame else 0)
        | (FD if message.is_fd else 0)
        | (FD if message.dlc > 8 else 0)  # CSV and SQLite do not say it otherwise
        | (BITRATE_SWITCH if message.bitrate_switch else 0)
        | (ERROR_STATE_INDICATOR if message.error_state_indicator else 0)
    )
    data = message.dlc if message.is_remote_frame else bytes(message.data)
    channel = message.channel
    if isinstance(channel, int):
        channel = str(channel + first)
    return message.arbitration_id, flags, data, channel or "", not message.is_rx


@pytest.mark.parametrize("name", _PYTHON_CAN)
def test_we_read_what_python_can_writes(tmp_path: Path, name: str) -> None:
    form = FORMATS[name]
    path = tmp_path / f"drive{form.suffixes[0]}"
    sent = [record for record in known() if not record.frame.flags & sum(form.holds.excluded)]
    with can.Logger(str(path)) as logger:
        for record in sent:
            logger(to_python_can(record))
    found = read(path)
    if name == "log":  # it drops the length of remote frames
        found = [
            record._replace(frame=frame_with(record.frame, 4)) if record.frame.data == 0 else record
            for record in found
        ]
        sent = [
            record._replace(frame=frame_with(record.frame, 4))
            if isinstance(record.frame.data, int)
            else record
            for record in sent
        ]
    assert [row[:3] for row in contents(found)] == [row[:3] for row in left(sent, form.holds)]
    if form.holds.direction:
        assert [record.sent for record in found] == [record.sent for record in sent]
    times = [record.frame.timestamp_ns for record in found]
    assert times == pytest.approx([r.frame.timestamp_ns for r in sent], abs=_tolerance_ns(name))


def _tolerance_ns(name: str) -> int:
    """python-can's ASC header has milliseconds without leading zeros, and no microseconds."""
    return 1_000_000_000 if name == "asc" else 2 * _US


def frame_with(frame: Frame, data: bytes | int) -> Frame:
    return Frame(frame.timestamp_ns, frame.arbitration_id, frame.flags, data)


def to_python_can(record: Record) -> can.Message:
    frame = record.frame
    is_remote = isinstance(frame.data, int)
    return can.Message(
        timestamp=frame.timestamp_ns / 1e9,
        arbitration_id=frame.arbitration_id,
        is_extended_id=bool(frame.flags & EXTENDED),
        is_remote_frame=is_remote,
        is_error_frame=bool(frame.flags & ERROR),
        is_fd=bool(frame.flags & FD),
        bitrate_switch=bool(frame.flags & BITRATE_SWITCH),
        error_state_indicator=bool(frame.flags & ERROR_STATE_INDICATOR),
        is_rx=not record.sent,
        channel=record.channel,
        dlc=frame.data if isinstance(frame.data, int) else len(frame.data),
        data=None if isinstance(frame.data, int) else frame.data,
    )


# ----------------------------------------------------------------------------------------- asammdf

_DBC: Final = """VERSION ""
NS_ :
BS_:
BU_: Engine

BO_ 291 Motion: 8 Engine
 SG_ Speed : 0|16@1+ (0.1,0) [0|6553.5] "km/h" Engine
"""


def test_asammdf_finds_the_signals_of_our_bus_logging(tmp_path: Path) -> None:
    path, database = tmp_path / "drive.mf4", tmp_path / "car.dbc"
    database.write_text(_DBC)
    base_ns = examples()[0].frame.timestamp_ns
    speeds = range(0, 6000, 7)
    written(
        path,
        [
            Record(
                Frame(base_ns + n * 1_000_000, 291, 0, speed.to_bytes(2, "little") + bytes(6)),
                "can0",
            )
            for n, speed in enumerate(speeds)
        ],
    )
    with asammdf.MDF(path) as file:
        assert file.header.start_time.timestamp() == pytest.approx(base_ns / 1e9, abs=1e-3)
        with file.extract_bus_logging({"CAN": [(str(database), 1)]}) as found:
            signal = found.get("Speed")
    assert list(signal.samples) == pytest.approx([speed / 10 for speed in speeds])
    assert signal.unit == "km/h"


# ------------------------------------------------------------------------------------ data frames


@pytest.fixture(scope="module", autouse=True)
def polars_runs(tmp_path_factory: pytest.TempPathFactory) -> None:
    """It keeps what its threads wait with until the process ends."""
    path = tmp_path_factory.mktemp("polars") / "drive.parquet"
    written(path, examples())
    assert len(pl.read_parquet(path)) == len(examples())


def test_data_frames_have_our_columns(tmp_path: Path) -> None:
    parquet, arrow, stream = (tmp_path / f"drive.{end}" for end in ("parquet", "arrow", "arrows"))
    for path in (parquet, arrow, stream):
        written(path, examples())
    expected = [record.frame.timestamp_ns for record in examples()]
    ids = [record.frame.arbitration_id for record in examples()]
    tables: list[Any] = [
        pq.read_table(parquet),
        pa.ipc.open_file(arrow.read_bytes()).read_all(),
        pa.ipc.open_stream(stream.read_bytes()).read_all(),
        pa.Table.from_pandas(pd.read_parquet(parquet)),
        pa.Table.from_pandas(pd.read_feather(arrow)),
        pl.read_parquet(parquet).to_arrow(),
        pl.read_ipc(arrow).to_arrow(),
        pl.read_ipc_stream(stream).to_arrow(),
    ]
    for table in tables:
        assert table["timestamp"].cast("int64").to_pylist() == expected
        assert table["arbitration_id"].to_pylist() == ids
        assert [str(each) for each in table["channel"].to_pylist()] == ["can0", "body"] * 4 + [
            "can0"
        ]
    relation = duckdb.read_parquet(str(parquet)).filter("direction = 'tx'").order("seq")
    rows = relation.project("arbitration_id, data").fetchall()
    assert rows == [
        (each.frame.arbitration_id, b"" if isinstance(each.frame.data, int) else each.frame.data)
        for each in examples()
        if each.sent
    ]


def test_we_read_the_tables_of_polars(tmp_path: Path) -> None:
    ours = tmp_path / "ours.parquet"
    written(ours, examples())
    frame = pl.read_parquet(ours)
    frame.write_parquet(tmp_path / "theirs.parquet")
    frame.write_ipc(tmp_path / "theirs.arrow")
    frame.write_ipc_stream(tmp_path / "theirs.arrows")
    for suffix in ("parquet", "arrow", "arrows"):
        assert read(tmp_path / f"theirs.{suffix}") == read(ours), suffix


def test_we_read_the_tables_of_others(tmp_path: Path) -> None:
    ours = tmp_path / "ours.parquet"
    written(ours, examples())
    table, frame = pq.read_table(ours), pd.read_parquet(ours)
    pq.write_table(table, tmp_path / "pyarrow.parquet", compression="snappy", version="2.6")
    with (
        pa.OSFile(str(tmp_path / "pyarrow.arrow"), "wb") as file,
        pa.ipc.new_file(file, table.schema) as writer,
    ):
        writer.write_table(table, max_chunksize=4)
    frame.to_parquet(tmp_path / "pandas.parquet")
    frame.to_feather(tmp_path / "pandas.feather")
    relation = duckdb.read_parquet(str(ours))
    relation.write_parquet(str(tmp_path / "duckdb.parquet"))
    for path in tmp_path.iterdir():
        assert read(path) == read(ours), path.name


# --------------------------------------------------------------------------------------- Wireshark


@pytest.fixture
def tshark() -> str:
    program = shutil.which("tshark")
    if program is None:
        pytest.skip("needs tshark: apt-get install tshark")
    return program


_COLUMNS: Final = (
    *("frame.time_epoch", "frame.interface_name", "frame.packet_flags_direction"),
    *("can.id", "can.flags.xtd", "can.flags.rtr", "can.flags.err", "can.len"),
    *("canfd.flags.brs", "canfd.flags.esi", "data"),
)


@pytest.mark.parametrize("suffix", [".pcapng", ".pcapng.gz"])
def test_wireshark_reads_our_frames(tmp_path: Path, tshark: str, suffix: str) -> None:
    path = tmp_path / f"drive{suffix}"
    records = [record for record in examples() if not record.frame.flags & ERROR]
    written(path, records)
    assert [row(line) for line in lines(tshark, path)] == [
        (
            *(record.frame.timestamp_ns, record.channel, 2 if record.sent else 1),
            *(record.frame.arbitration_id, record.frame.flags, record.frame.data),
        )
        for record in records
    ]


def lines(tshark: str, path: Path) -> list[str]:
    fields = [argument for column in _COLUMNS for argument in ("-e", column)]
    return run(tshark, "-r", str(path), "-T", "fields", *fields).splitlines()


def run(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=50).stdout


def row(line: str) -> tuple[object, ...]:
    stamp, interface, direction, number, xtd, rtr, err, length, brs, esi, data = line.split("\t")
    seconds, fraction = stamp.split(".")
    is_fd = not err  # which FD frames do not have, for Wireshark
    flags = (EXTENDED if xtd == "1" else 0) | (FD if is_fd else 0)
    flags |= (BITRATE_SWITCH if brs == "1" else 0) | (ERROR_STATE_INDICATOR if esi == "1" else 0)
    content: bytes | int = bytes.fromhex(data)
    if rtr == "1":
        flags, content = flags | REMOTE, int(length)
    else:
        assert len(bytes.fromhex(data)) == int(length)
    return (
        int(seconds) * 10**9 + int(fraction),
        *(interface, int(direction, 16), int(number), flags, content),
    )


def test_wireshark_knows_our_error_frames(tmp_path: Path, tshark: str) -> None:
    path = tmp_path / "drive.pcapng"
    written(path, [record for record in examples() if record.frame.flags & ERROR])
    columns = ("-e", "can.err.buserror", "-e", "can.err.prot", "-e", "can.flags.err")
    assert run(tshark, "-r", str(path), "-T", "fields", *columns) == "1\t1\t1\n"


def test_we_read_what_wireshark_writes(tmp_path: Path, tshark: str) -> None:
    one, other, merged = (tmp_path / f"{name}.pcapng" for name in ("one", "other", "merged"))
    records = [record._replace(origin=None, seq=None) for record in examples()]
    written(one, [record for record in records if record.channel == "can0"])
    written(other, [record for record in records if record.channel == "body"])
    run(str(Path(tshark).with_name("mergecap")), "-w", str(merged), str(one), str(other))
    assert read(merged) == records


def test_capinfos_sees_an_interface_for_each_channel(tmp_path: Path, tshark: str) -> None:
    path = tmp_path / "drive.pcapng"
    written(path, examples())
    said = run(str(Path(tshark).with_name("capinfos")), str(path))
    assert "Number of interfaces in file: 2" in said
    assert "Name = body" in said
    assert "File timestamp precision:  nanoseconds (9)" in said
    assert "Number of packets = 5" in said
