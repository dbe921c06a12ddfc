"""Batches as a table of Arrow, with the columns of our recordings; by pyarrow."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from canbroker.integrations.nats.batch import Batch
from canbroker.system.extras import Needs


def to_arrow(batches: Batch | Iterable[Batch], *, places: bool = False) -> Any:
    """A ``pyarrow.Table`` with a row for each frame, and the columns of our Parquet files.

    :param batches: one or several.
    :param places: adds the columns ``site``, ``bench``, ``epoch`` and ``stream_seq``.
    :raises CanInitializationError: pyarrow is not installed.
    """
    Needs("pyarrow", "parquet").check("to_arrow()")
    import pyarrow as pa  # noqa: PLC0415 - of an extra

    from canbroker.logs.arrow_batches import BatchMaker, Words  # noqa: PLC0415 - likewise

    together = [batches] if isinstance(batches, Batch) else list(batches)
    frames = [frame for each in together for frame in each.frames]
    seqs = [seq for each in together for seq in each.seqs]
    maker = BatchMaker({})
    made = maker.frames(_repeated(together, "channel"), frames, seqs)
    table = pa.Table.from_batches([made], maker.schema)
    if not places:
        return table
    for name in ("site", "bench"):
        table = table.append_column(name, Words().column(_repeated(together, name)))
    for name in ("epoch", "stream_seq"):
        table = table.append_column(name, pa.array(_repeated(together, name), pa.uint64()))
    return table


def _repeated(batches: Sequence[Batch], name: str) -> list[Any]:
    """An attribute of batches, once for each frame."""
    return [value for each in batches for value in [getattr(each, name)] * len(each.frames)]
