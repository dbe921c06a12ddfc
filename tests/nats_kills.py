"""Kills NATS servers, bridges and channels at random moments, and compares the accounts.

Run it with ``make kills-nats``. What the channel has taken must be in the stream once and in order,
or be counted there; only what a killed channel had not published yet may be missing, where its
successor begins.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple

from canbroker.transport.runtime import Runtime
from tests.support.bridges import (
    SUBJECT,
    bridge,
    bridged,
    kill_bridge,
    kill_channel,
    read_all,
    wait_connected,
)
from tests.support.brokers import private_runtime
from tests.support.ledger import Sender, Sent
from tests.support.nats_servers import NatsServer
from tests.support.nats_stream import Found

_EACH: Final = 40  # frames of a request, which waits until they are taken

#: Who is killed; one of these each time.
_WHO: Final = [*["server"] * 4, *["bridge"] * 4, *["both"] * 2, "channel"]


class Verdict(NamedTuple):
    """``foreign``: numbers that nobody has sent. ``cut``: taken by a channel that was killed before
    it had published them. ``missing``: neither there nor counted."""

    foreign: int
    cut: int
    missing: int
    is_ordered: bool

    @property
    def is_exact(self) -> bool:
        return not self.foreign and not self.missing and self.is_ordered


def main() -> int:
    """Returns the exit code: 1 if an account is not exact."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--duration", type=float, default=600, help="seconds")
    parser.add_argument("--rate", type=int, default=8000, help="frames a second")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--who", nargs="*", default=_WHO, choices=sorted({*_WHO}))
    arguments = parser.parse_args()
    seed = random.randrange(1 << 32) if arguments.seed is None else arguments.seed
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as directory, private_runtime() as runtime:
        path = Path(directory)
        with (
            (path / "log").open("wb") as log_file,
            NatsServer(path / "nats") as nats,
            bridged(runtime, path, nats.url, log=log_file),
            Sender(("x", "virtual"), 0x100, arguments.rate, each=_EACH, timeout=5.0) as sender,
        ):
            wait_connected(runtime)
            sender.start()
            log = _kill(runtime, nats, chance, arguments.duration, arguments.who)
            sent = sender.stop()
            wait_connected(runtime)
            stored = read_all(nats.url, len(sent.sent), SUBJECT)
            last = bridge(runtime)
        written = (path / "log").read_text()
    verdict = judge(sent, stored)
    _tell(
        f"seed {seed}  kills {dict(Counter(who for _, who in log))}",
        f"sent {len(sent.sent):,}  unknown {len(sent.unknown):,}  refused {len(sent.refused):,}"
        f"  {sent.rate:,.0f} requests/s",
        f"in the stream {len(stored.numbers):,}  lost {stored.lost:,}  gaps {stored.gaps}"
        f"  epochs {stored.epochs}  again {stored.again}  missing numbers {stored.missing}",
        f"last bridge: {last}",
        f"{verdict}  {'EXACT' if verdict.is_exact else 'WRONG'}",
    )
    if not verdict.is_exact:
        _explain(sent, stored, log, arguments.rate)
        _tell(*written.splitlines())
    return not verdict.is_exact


def _explain(sent: Sent, stored: Found, log: list[tuple[float, str]], rate: int) -> None:
    """What is missing, in which epochs, and who was killed at about that number."""
    for first, last in _runs(sorted(sent.sent - {*stored.numbers})):
        _tell(f"missing {first:,} to {last:,} ({last - first + 1:,})")
    begins = [(stored.numbers[at - 1], "epoch ends") for at in stored.begins if at]
    begins += [(stored.numbers[0], "epoch begins")]
    kills = [(int(seconds * rate), who) for seconds, who in log]
    for number, what in sorted([*begins, *kills]):
        _tell(f"  {number:12,}  {what}")


def _tell(*lines: str) -> None:
    for line in lines:
        print(line, flush=True)  # noqa: T201


def _kill(
    runtime: Runtime, nats: NatsServer, chance: random.Random, duration: float, whom: list[str]
) -> list[tuple[float, str]]:
    """Kills until the time is over; returns after how many seconds whom."""
    kills: list[tuple[float, str]] = []
    began = time.monotonic()
    end = time.monotonic() + duration
    while time.monotonic() < end:
        signal.sigtimedwait([], chance.uniform(0.2, 3))
        who = chance.choice(whom)
        kills.append((time.monotonic() - began, who))
        if who in {"server", "both"}:
            nats.kill()
        if who in {"bridge", "both"}:
            kill_bridge(runtime)
        if who == "channel":
            kill_channel(runtime)
        if who in {"server", "both"}:
            signal.sigtimedwait([], chance.uniform(0, 3))
            nats.start()
            kills.append((time.monotonic() - began, "server is back"))
    return kills


def judge(sent: Sent, stored: Found) -> Verdict:
    """Compares what was sent with what is in the stream."""
    there = set(stored.numbers)
    ends = {stored.numbers[at - 1] for at in stored.begins if at}
    ends |= {stored.numbers[at] - 1 for at in stored.begins if at < len(stored.numbers)}
    cut = absent = 0
    for first, last in _runs(sorted(sent.sent - there)):
        is_cut = bool({first - 1, last} & ends)
        cut += (last - first + 1) * is_cut
        absent += (last - first + 1) * (not is_cut)
    return Verdict(
        foreign=len(there - sent.sent - sent.unknown),
        cut=cut,
        missing=max(0, absent - stored.lost),
        is_ordered=all(one < other for one, other in pairwise(stored.numbers)),
    )


def _runs(numbers: list[int]) -> Iterator[tuple[int, int]]:
    """The first and the last number of each unbroken run."""
    first = last = None
    for number in numbers:
        if first is None or last is None or number != last + 1:
            if first is not None and last is not None:
                yield first, last
            first = number
        last = number
    if first is not None and last is not None:
        yield first, last


if __name__ == "__main__":
    sys.exit(main())
