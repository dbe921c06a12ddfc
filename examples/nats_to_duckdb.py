"""Lands frames from NATS JetStream in a file of DuckDB, each exactly once.

Usage: nats_to_duckdb.py URL FILE [--site SITE] [--bench BENCH] [--once]

    nats_to_duckdb.py nats://nats.lab:4222 lab.duckdb --site lab

Frames and the position in the stream are one transaction. So whenever this program is killed, the
next one goes on behind the last frame that the file has: none is missing, none is there twice.
With --once it ends behind what the stream has now.
"""
# ruff: noqa: T201 - this program prints

from __future__ import annotations

import argparse

import duckdb

from canbroker.integrations.nats import Batch, batches, to_arrow

TABLES = """
CREATE TABLE IF NOT EXISTS frames (
    timestamp TIMESTAMPTZ, channel VARCHAR, arbitration_id UINTEGER, extended BOOLEAN,
    remote BOOLEAN, error BOOLEAN, fd BOOLEAN, bitrate_switch BOOLEAN,
    error_state_indicator BOOLEAN, dlc UTINYINT, data BLOB, direction VARCHAR, origin VARCHAR,
    seq UBIGINT, site VARCHAR, bench VARCHAR, epoch UBIGINT, stream_seq UBIGINT
);
CREATE TABLE IF NOT EXISTS gaps (
    site VARCHAR, bench VARCHAR, channel VARCHAR, epoch UBIGINT, before_seq UBIGINT,
    kind VARCHAR, lost UBIGINT, reason VARCHAR
);
CREATE TABLE IF NOT EXISTS position (position VARCHAR);
"""


def land(database: duckdb.DuckDBPyConnection, together: list[Batch], position: str) -> None:
    """Frames, gaps and the position, or nothing of it."""
    table = to_arrow(together, places=True)
    gaps = [
        (each.site, each.bench, each.channel, each.epoch, each.first_seq, *gap)
        for each in together
        for gap in each.gaps
    ]
    database.begin()
    database.register("arrived", table)
    database.execute("INSERT INTO frames SELECT * FROM arrived")
    if gaps:
        database.executemany("INSERT INTO gaps VALUES (?, ?, ?, ?, ?, ?, ?, ?)", gaps)
    database.execute("DELETE FROM position")
    database.execute("INSERT INTO position VALUES (?)", [position])
    database.commit()
    database.unregister("arrived")


def main() -> None:
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("url")
    parser.add_argument("file")
    parser.add_argument("--site")
    parser.add_argument("--bench")
    parser.add_argument("--once", action="store_true")
    given = parser.parse_args()
    with duckdb.connect(given.file) as database:
        database.execute(TABLES)
        stored = database.execute("SELECT position FROM position").fetchall()
        wish = {"site": given.site, "bench": given.bench, "after": stored[0][0] if stored else 0}
        with batches(given.url, follow=not given.once, **wish) as stream:
            while not stream.is_over:
                if together := stream.take_many(frames=200_000, seconds=1.0):
                    land(database, together, str(stream.position))
                    print(sum(map(len, together)), "frames", flush=True)


if __name__ == "__main__":
    main()
