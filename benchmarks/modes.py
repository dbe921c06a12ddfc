"""``python -m benchmarks --portable``: canbroker in both modes beside each other.

What Windows and macOS use runs on Linux with ``CANBROKER_PORTABLE=1``. A process has one mode from
its beginning, and all that share a broker have the same one. So a process for each mode measures,
with a runtime directory, a broker and clients of its own. Every load is measured in one mode, then
in the other one, while the processes of the first one wait.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final, TypeAlias

from rich.console import Console

from benchmarks import actors, hardware, paced, standing, streams, targets
from benchmarks.figures import LOST, US, Figures, Found, Verdict
from benchmarks.peers import CLASSIC_BYTES, Peer, ours
from benchmarks.team import PATIENCE_S, Team
from canbroker import Bus
from canbroker.demo.broker import BrokerView
from canbroker.system.portable import PORTABLE_VARIABLE
from canbroker.transport.runtime import Runtime

#: Behind the names of participants in portable mode.
PORTABLE: Final = ", portable"

#: What portable mode shall be of native mode, at least (true) or at most.
_LIMITS: Final = {"rate": (0.7, True), "p50": (2.0, False)}

#: Behind the names of native participants, and the variable for each.
_MODES: Final = {"": "0", PORTABLE: "1"}

_CHANNEL: Final = "bench"
_RATES: Final = (500, 2_000)
_ROUTES: Final = 1_000

#: One measurement after the other, each when the next one is asked for.
Measurements: TypeAlias = "Callable[[float], Iterator[Found]]"

#: The longest measurement takes less than this.
_LONGEST_S: Final = 120.0


def measure(rounds: int, place: Path, scale: float, console: Console) -> Figures:
    """``place``: a directory."""
    figures = Figures()
    for number in range(rounds):
        began = time.monotonic()
        measure_round(figures, measurements, place, scale, backwards=bool(number % 2))
        console.print(f"round {number + 1} of {rounds}: {time.monotonic() - began:.0f} s")
    return figures


def verdicts(figures: Figures) -> list[Verdict]:
    """Rates and p50 against native mode, within each round; and the losses of all rounds."""
    found = []
    for load, who, what, unit in figures:
        if not (who.startswith(US) and who.endswith(PORTABLE)):
            continue
        values = figures.values(load, who, what)
        target = f"{load}: {who}"
        if what == LOST:
            found.append(Verdict(target, what, unit, 0, False, [sum(values)]))
        elif what in _LIMITS and not (what == "rate" and figures.values(load, who, "p50")):
            natively = figures.values(load, who.removesuffix(PORTABLE), what)
            ratios = [above / below for above, below in zip(values, natively, strict=True)]
            found.append(Verdict(target, f"{what} / native", "x", *_LIMITS[what], ratios))
    return found


def measure_round(
    figures: Figures, what: Measurements, place: Path, scale: float, *, backwards: bool
) -> None:
    """Does ``what`` in both modes, in turns; ``backwards`` turns round which is first."""
    with ExitStack() as stack:
        teams: dict[str, Team] = {}
        for mode in sorted(_MODES, reverse=backwards):
            teams[mode] = team = stack.enter_context(Team())
            with _environment(_variables(mode, place)):
                team.start(_measure, what, scale)
        while teams:
            for mode, team in [*teams.items()]:
                team.tell(None)
                (found,) = team.hear(_LONGEST_S)
                if found is None:
                    del teams[mode]
                else:
                    figures.add({key._replace(who=key.who + mode): found[key] for key in found})


def _variables(mode: str, place: Path) -> dict[str, str]:
    """Of the processes of one mode."""
    number = _MODES[mode]
    runtime = place / number
    runtime.mkdir(mode=0o700, exist_ok=True)
    return {PORTABLE_VARIABLE: number, "XDG_RUNTIME_DIR": str(runtime)}


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """For processes that are started within."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


# ------------------------------------------------------------------------------------ processes


def _measure(pipe: Connection[Any, Any], what: Measurements, scale: float) -> None:
    """[a process of each mode] One measurement each time it is told to; ``None`` after the last."""
    remaining = what(scale)
    found: Found | None = {}
    while found is not None:
        pipe.recv()
        found = next(remaining, None)
        pipe.send(found)


def measurements(scale: float) -> Iterator[Found]:
    """[a process of each mode] What both measure, in the same order."""
    yield standing.cold_start()
    yield standing.idle(max(1.0, 5 * scale))
    with BrokerView(Runtime.at()) as broker, Bus(_CHANNEL, "virtual"):
        yield standing.buses(_CHANNEL)
        iterating, singly, batch = ours.peers(_CHANNEL, broker.channel().pid)
        yield standing.warm_start(iterating)
        for load, receivers, size, who, count in _streams(iterating, singly, batch):
            yield streams.stream(load, who, int(count * scale), receivers, size)
        for rate in _RATES:
            schedule = paced.uniform(rate, 2 * scale)
            yield paced.latency(f"{rate:,} frames/s", iterating, schedule)
        yield actors.routes(broker, _ROUTES, int(100_000 * scale))
        yield actors.full_bus(broker, 3 * scale)
        latency = hardware.latency(targets.SERIAL, int(2_000 * scale), 2_000)
        _await_closed(broker)
        yield latency
        costs = hardware.full_bus(broker, 3 * scale)
        _await_closed(broker)
        yield costs


def _await_closed(broker: BrokerView) -> None:
    """Returns when there is one channel only.

    The next adapter, of the other mode, may have the name of the last one, and an actor that has
    lost its adapter would open it.
    """
    deadline = time.monotonic() + PATIENCE_S
    while len(broker.status().channels) > 1:
        if time.monotonic() > deadline:
            raise TimeoutError("channels without clients are not closed")
        time.sleep(0.1)


def _streams(iterating: Peer, singly: Peer, batch: Peer) -> list[tuple[str, int, int, Peer, int]]:
    """Load, receivers, bytes of a frame, who sends and receives, frames."""
    return [
        (targets.ONE, 1, CLASSIC_BYTES, iterating, 60_000),
        (targets.ONE, 1, CLASSIC_BYTES, singly, 30_000),
        (targets.ONE, 1, CLASSIC_BYTES, batch, 60_000),
        (targets.FOUR, 4, CLASSIC_BYTES, iterating, 30_000),
        (targets.SIXTEEN, 16, CLASSIC_BYTES, iterating, 15_000),
        (targets.FD, 1, 64, iterating, 60_000),
    ]
