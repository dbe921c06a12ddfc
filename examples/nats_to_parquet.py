"""Lands frames from NATS JetStream in Parquet files of a directory, each frame exactly once.

Usage: nats_to_parquet.py URL DIRECTORY [--site SITE] [--bench BENCH] [--once]

    nats_to_parquet.py nats://nats.lab:4222 frames --site lab

A file has its name when it is complete and on the disk, and its metadata has the position in the
stream. So whenever this program is killed, the next one goes on behind the newest file: no frame is
missing, none is in two files. With --once it ends behind what the stream has now.
"""
# ruff: noqa: T201 - this program prints

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import pyarrow.parquet as pq

from canbroker.integrations.nats import Batch, batches, to_arrow

POSITION, GAPS = b"canbroker.position", b"canbroker.gaps"


def newest(directory: Path) -> Path | None:
    """The file that was completed last; removes what a killed program has left."""
    for part in directory.glob("*.part"):
        part.unlink()
    return max(directory.glob("frames-*.parquet"), default=None)


def land(path: Path, together: list[Batch], position: str) -> None:
    """Writes a file with frames, gaps and position. It is there wholly, or not at all."""
    gaps = [
        (each.site, each.bench, each.channel, each.epoch, each.first_seq, *gap)
        for each in together
        for gap in each.gaps
    ]
    table = to_arrow(together, places=True)
    known = table.schema.metadata | {POSITION: position.encode(), GAPS: json.dumps(gaps).encode()}
    part = path.with_name(f"{path.name}.part")
    with part.open("wb") as file:
        pq.write_table(table.replace_schema_metadata(known), file, compression="zstd")
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    if os.name == "posix":  # the name, too, survives a loss of power
        directory = os.open(path.parent, os.O_RDONLY)
        os.fsync(directory)
        os.close(directory)


def main() -> None:
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("url")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--site")
    parser.add_argument("--bench")
    parser.add_argument("--once", action="store_true")
    given = parser.parse_args()
    given.directory.mkdir(parents=True, exist_ok=True)
    after: str | int = 0
    number = 0
    if (last := newest(given.directory)) is not None:
        after = pq.read_schema(last).metadata[POSITION].decode()
        number = int(last.stem.rpartition("-")[2])
    wish = {"site": given.site, "bench": given.bench, "after": after}
    with batches(given.url, follow=not given.once, **wish) as stream:
        while not stream.is_over:
            if together := stream.take_many(frames=1_000_000, seconds=2.0):
                number += 1
                path = given.directory / f"frames-{number:09}.parquet"
                land(path, together, str(stream.position))
                print(path, sum(map(len, together)), "frames", flush=True)


if __name__ == "__main__":
    main()
