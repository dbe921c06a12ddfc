"""Tables of batches have the columns of recordings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from canbroker.integrations.nats import Batch, to_arrow
from canbroker.logs.formats import open_reader
from canbroker.logs.records import Record
from canbroker.model.frame import EXTENDED, REMOTE, ReceivedFrame

pa: Any = pytest.importorskip("pyarrow", reason="needs the extra parquet; make ecosystem has it")
pq: Any = pytest.importorskip("pyarrow.parquet")

FRAMES = [
    ReceivedFrame(1_700_000_000_000_000_001, 0x123, 0, bytearray(b"\x01\x02")),
    ReceivedFrame(1_700_000_000_000_000_002, 0x18DAF110, EXTENDED, bytearray(), "client-1"),
    ReceivedFrame(1_700_000_000_000_000_003, 0x7FF, REMOTE, 8),
]


def batch(channel: str, first: int, stream_seq: int) -> Batch:
    return Batch(
        site="lab",
        bench="bench-7",
        channel=channel,
        epoch=1 << 60,
        first_seq=first,
        frames=FRAMES,
        seqs=range(first, first + len(FRAMES)),
        gaps=(),
        stream_seq=stream_seq,
        stored_ns=0,
        pending=0,
    )


def test_a_table_is_read_as_a_recording_is(tmp_path: Path) -> None:
    table = to_arrow([batch("body", 7, 1), batch("drive", 0, 2)])
    path = tmp_path / "frames.parquet"
    pq.write_table(table, path)
    with open_reader(path) as reader:
        records = list(reader)
    expected = [
        Record(frame, channel, frame.origin is not None, frame.origin, first + number)
        for channel, first in (("body", 7), ("drive", 0))
        for number, frame in enumerate(FRAMES)
    ]
    shown = [(each.channel, each.sent, each.origin, each.seq) for each in records]
    assert shown == [(each.channel, each.sent, each.origin, each.seq) for each in expected]
    for read, written in zip(records, expected, strict=True):
        frame, other = read.frame, written.frame
        assert (frame.timestamp_ns, frame.arbitration_id, frame.flags) == (
            other.timestamp_ns,
            other.arbitration_id,
            other.flags,
        )
        assert frame.data == other.data


def test_places_are_further_columns() -> None:
    table = to_arrow(batch("body", 7, 5), places=True)
    assert table.num_rows == 3
    assert table.schema.names[-4:] == ["site", "bench", "epoch", "stream_seq"]
    assert table["bench"].to_pylist() == ["bench-7"] * 3
    assert table["epoch"].to_pylist() == [1 << 60] * 3
    assert table["stream_seq"].to_pylist() == [5] * 3
    assert table["seq"].to_pylist() == [7, 8, 9]


def test_no_frames_are_a_table_without_rows() -> None:
    assert to_arrow([]).num_rows == 0
    assert to_arrow([], places=True).schema.names[-1] == "stream_seq"
    assert to_arrow([]).schema.equals(to_arrow(batch("x", 0, 1)).schema)
