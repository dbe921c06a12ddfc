"""``python -m benchmarks``: canbroker beside what a user could pick instead, in turns.

Every round measures everything once, and those that are compared one after the other, so that
what else the machine does meanwhile falls on all of them. Writes tables, all figures and pictures
to ``benchmarks/results``.
"""

from __future__ import annotations

import argparse
import compileall
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, TypeVar

import psutil
import zmq
from rich.console import Console

import canbroker
from benchmarks import (
    actors,
    decoding,
    floor,
    hardware,
    modes,
    paced,
    receiving,
    standing,
    stopped,
    streams,
    targets,
)
from benchmarks.figures import RESULTS, Figures, Found, target_table
from benchmarks.peers import CLASSIC_BYTES, Peer
from benchmarks.peers.rivals import SOCKCAN, has_sockcan
from benchmarks.peers.running import Peers, has_remote, running

T = TypeVar("T")

#: Streams: name, receivers, bytes a frame, and the share of frames that take half a second or so.
STREAMS: Final = [
    (targets.ONE, 1, CLASSIC_BYTES, 1.0),
    (targets.FOUR, 4, CLASSIC_BYTES, 0.5),
    (targets.SIXTEEN, 16, CLASSIC_BYTES, 0.25),
    (targets.FD, 1, 64, 1.0),
]
RATES: Final = (500, 2_000, 8_000)
ROUTES: Final = (1, 10, 100, 1_000)
SPEEDS: Final = (1, 10, 100)

#: Frames of a stream to one receiver.
_OURS: Final = 60_000
_SINGLY: Final = 15_000
_BARE: Final = 256_000
_ROUTED: Final = 100_000

#: A client is stopped for this time.
_STOPPED_S: Final = 10.0


class Bench:
    """What one round does. ``scale`` makes every measurement shorter or longer."""

    def __init__(self, peers: Peers, place: Path, scale: float, trace: Path | None) -> None:
        self._peers = peers
        self._place = place
        self._scale = scale
        self._trace = trace

    def round(self, *, backwards: bool) -> Iterable[Found]:
        """Measures one thing after the other; ``backwards`` turns round who is first."""
        yield standing.imports()
        yield standing.buses(self._peers.ours.address)
        yield decoding.decoding(self._count(200_000))
        for way in _turned(receiving.WAYS, backwards):
            yield receiving.costs(way, self._count(30_000))
        for load, receivers, size, share in STREAMS:
            for peer, count in _turned(self._streaming(receivers, size), backwards):
                # What we cost is compared with fewer receivers, so of as many frames.
                frames = self._count(count if peer is self._peers.ours else share * count)
                yield streams.stream(load, peer, frames, receivers, size)
        for rate in RATES:
            yield from self._paced(rate, backwards)
        if self._trace is not None:
            for speed in SPEEDS:
                schedule = paced.recorded(self._trace, speed)
                for peer in _turned([self._peers.ours, *self._peers.theirs], backwards):
                    yield paced.latency(f"car trace, {speed}x", peer, schedule)
        yield hardware.latency(targets.SERIAL, self._count(2_000), 2_000)
        broker = self._peers.broker
        for number in _turned(ROUTES, backwards):
            yield actors.routes(broker, number, self._count(_ROUTED))
        yield actors.full_bus(broker, 3 * self._scale)
        yield hardware.full_bus(broker, 3 * self._scale)

    def _streaming(self, receivers: int, size: int) -> list[tuple[Peer, int]]:
        peers = self._peers
        ours = [(peers.ours, _OURS), (peers.remote, _OURS), (peers.batch, _OURS)]
        singly = [(peer, _SINGLY) for peer in (peers.single, *peers.theirs)]
        bare = [(peers.bare, _BARE), (peers.bare_single, _SINGLY)]
        if receivers > 1:
            ours, singly, bare = ours[:2], singly[1:], bare[:1]
        all_ = [*ours, *singly, *bare]
        return [
            (peer, count) for peer, count in all_ if size <= CLASSIC_BYTES or not peer.classic_only
        ]

    def _paced(self, rate: int, backwards: bool) -> Iterable[Found]:
        load, schedule = f"{rate:,} frames/s", paced.steady(rate, self._scale)
        peers = [self._peers.ours, self._peers.remote, *self._peers.theirs]
        for peer in _turned([*peers, self._peers.bare_single], backwards):
            yield paced.latency(load, peer, schedule)
            if peer is self._peers.ours:
                yield floor.ping_pong(self._place, load, len(schedule), rate)

    def _count(self, count: float) -> int:
        return int(count * self._scale)


def measure(
    rounds: int, place: Path, scale: float, trace: Path | None, console: Console
) -> Figures:
    figures = Figures()
    for number in range(rounds):
        began = time.monotonic()
        figures.add(standing.cold_start())
        figures.add(stopped.figures(stopped.measure(_STOPPED_S * scale)))
        with running(place) as peers:
            for peer in (peers.ours, peers.remote, *peers.theirs):
                figures.add(standing.warm_start(peer))
            for found in Bench(peers, place, scale, trace).round(backwards=bool(number % 2)):
                figures.add(found)
        console.print(f"round {number + 1} of {rounds}: {time.monotonic() - began:.0f} s")
    seconds = max(1.0, 10 * scale)
    console.print(f"idle for {seconds:g} s")
    figures.add(standing.idle(seconds))
    return figures


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    console = Console(width=160)
    began = time.monotonic()
    if not options.portable:
        _print_what_is_missing(options.trace, console)
    # As installing does. Without it, each process may compile what has changed.
    compileall.compile_dir(Path(canbroker.__file__).parent, quiet=1)
    busy = psutil.cpu_percent(1.0)
    place = Path(tempfile.mkdtemp(prefix="cb-bench-"))
    os.environ["XDG_RUNTIME_DIR"] = str(place)
    try:
        if options.portable:
            figures = modes.measure(options.rounds, place, options.scale, console)
            verdicts = modes.verdicts(figures)
        else:
            figures = measure(options.rounds, place, options.scale, options.trace, console)
            verdicts = targets.verdicts(figures)
    finally:
        shutil.rmtree(place)
    console.print(figures.table())
    console.print(target_table(verdicts))
    about = _about() | {
        "rounds": options.rounds,
        "scale": options.scale,
        "busy before": f"{busy:.0f} %",
    }
    directory = options.results / "portable" if options.portable else options.results
    figures.write(directory, about, verdicts)
    if not options.portable:
        _draw(figures, directory, console)
    console.print(f"{time.monotonic() - began:.0f} s; written to {directory}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="(default: 3)")
    parser.add_argument("--scale", type=float, default=1.0, help="of the length of a round")
    parser.add_argument("--trace", type=Path, help="a log of candump -L to replay, too")
    parser.add_argument(
        "--portable", action="store_true", help="canbroker alone, natively and in portable mode"
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="directory to write to")
    return parser


def _print_what_is_missing(trace: Path | None, console: Console) -> None:
    if not has_remote():
        console.print("without python-can-remote: pip install 'canbroker[bench]'")
    if not has_sockcan():
        console.print("without sockcan, which needs Python 3.12: make bench-rivals")
    if trace is None:
        console.print("without a recorded trace: --trace FILE names a log of candump -L")


def _about() -> dict[str, Any]:
    """The machine, and what runs on it."""
    names = ["pyzmq", "msgspec", "python-can"]
    names += ["python-can-remote"] * has_remote() + [SOCKCAN] * has_sockcan()
    return {
        "python": platform.python_version(),
        **{name: version(name) for name in names},
        "libzmq": zmq.zmq_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cores": os.cpu_count(),
        "date": time.strftime("%Y-%m-%d"),
    }


def _draw(figures: Figures, directory: Path, console: Console) -> None:
    try:
        from benchmarks import picture  # noqa: PLC0415 - needs the bench extra
    except ImportError:
        console.print("no pictures: pip install 'canbroker[bench]'")
        return
    picture.draw_rates(figures, [load for load, *_ in STREAMS], directory / "rates.png")
    picture.draw_latencies(
        figures, [f"{rate:,} frames/s" for rate in RATES], directory / "latencies.png"
    )
    loads = [f"{number:,} routes, none matching" for number in ROUTES]
    picture.draw_routes(figures, loads, ROUTES, directory / "routes.png")


def _turned(items: Sequence[T], backwards: bool) -> Sequence[T]:
    return items[::-1] if backwards else items
