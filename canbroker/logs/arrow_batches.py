"""Frames as record batches of Arrow, with the columns that all our tables have; by pyarrow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import pyarrow as pa

from canbroker.logs.arrow_rows import FLAGS
from canbroker.logs.records import Record
from canbroker.model.frame import EchoFrame, Frame

#: Of the columns, in the metadata of each table.
SCHEMA_VERSION: Final = "1"

NAMES: Final = pa.dictionary(pa.int32(), pa.string())

_DIRECTIONS: Final = pa.array(["rx", "tx"])

#: name -> type, and what its numbers mean
COLUMNS: Final[Mapping[str, tuple[pa.DataType, str]]] = {
    "timestamp": (pa.timestamp("ns", tz="UTC"), "on the bus, wall clock"),
    "channel": (NAMES, ""),
    "arbitration_id": (pa.uint32(), "of error frames: the kernel's class"),
    **{name: (pa.bool_(), "") for name in FLAGS},
    "dlc": (pa.uint8(), "bytes; of remote frames, those asked for"),
    "data": (pa.binary(), ""),
    "direction": (NAMES, "rx or tx"),
    "origin": (NAMES, "the broker's client that sent it"),
    "seq": (pa.uint64(), "the number that the channel gave it"),
}


def schema(metadata: Mapping[str, str]) -> pa.Schema:
    """The columns of frames, with what is known about all of them."""
    fields = [
        pa.field(name, kind, metadata={"unit": unit} if unit else None)
        for name, (kind, unit) in COLUMNS.items()
    ]
    return pa.schema(fields, metadata={"canbroker.schema": SCHEMA_VERSION, **metadata})


class Words:
    """A column of a few texts. Its dictionary only grows, so that files need but the new ones."""

    def __init__(self) -> None:
        self._indices: dict[str | None, int | None] = {None: None}
        self._texts: list[str] = []

    def column(self, texts: Sequence[str | None]) -> pa.DictionaryArray:
        indices = self._indices
        for text in set(texts):
            if text is not None and text not in indices:
                indices[text] = len(self._texts)
                self._texts.append(text)
        numbers = pa.array([indices[text] for text in texts], pa.int32())
        return pa.DictionaryArray.from_arrays(numbers, pa.array(self._texts, pa.string()))


class BatchMaker:
    """Makes record batches that follow each other in one table."""

    def __init__(self, metadata: Mapping[str, str]) -> None:
        self.schema = schema(metadata)
        self._channels, self._origins = Words(), Words()

    def batch(self, records: Sequence[Record]) -> pa.RecordBatch:
        """The records as rows."""
        columns = [
            *_of_frames([record.frame for record in records]),
            _directions([record.sent for record in records]),
            self._origins.column([record.origin for record in records]),
            pa.array([record.seq for record in records], pa.uint64()),
        ]
        columns.insert(1, self._channels.column([record.channel for record in records]))
        return pa.RecordBatch.from_arrays(columns, schema=self.schema)

    def frames(
        self, channels: Sequence[str], frames: Sequence[EchoFrame], seqs: Sequence[int]
    ) -> pa.RecordBatch:
        """Frames as rows, with the channel and the number of each."""
        origins = [frame.origin for frame in frames]
        columns = [
            *_of_frames(frames),
            _directions([origin is not None for origin in origins]),
            self._origins.column(origins),
            pa.array(seqs, pa.uint64()),
        ]
        columns.insert(1, self._channels.column(channels))
        return pa.RecordBatch.from_arrays(columns, schema=self.schema)


def _of_frames(frames: Sequence[Frame]) -> list[Any]:
    """The columns that say what a frame is, without its channel."""
    flags = [frame.flags for frame in frames]
    contents = [frame.data for frame in frames]
    times = pa.array([frame.timestamp_ns for frame in frames], pa.int64())
    lengths = pa.array([each if isinstance(each, int) else len(each) for each in contents])
    data = [b"" if isinstance(each, int) else each for each in contents]
    return [
        times.cast(COLUMNS["timestamp"][0]),
        pa.array([frame.arbitration_id for frame in frames], pa.uint32()),
        *(pa.array([bool(each & flag) for each in flags]) for flag in FLAGS.values()),
        lengths.cast(pa.uint8()),
        pa.array(data, pa.binary()),
    ]


def _directions(sent: Sequence[bool]) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(map(int, sent), pa.int32()), _DIRECTIONS)
