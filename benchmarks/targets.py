"""What the figures shall be, and what they are. Judged by the median of the rounds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from benchmarks import decoding, floor, hardware, receiving, standing, stopped
from benchmarks.figures import LOST, US, Figures, Verdict
from benchmarks.peers.rivals import SOCKCAN

#: Names of the loads that targets are about.
ONE: Final = "1 receiver, 8 bytes"
FOUR: Final = "4 receivers, 8 bytes"
SIXTEEN: Final = "16 receivers, 8 bytes"
FD: Final = "1 receiver, 64 bytes"
PACED: Final = "2,000 frames/s"
SERIAL: Final = "slcan adapter, 2,000 frames/s"
FULL: Final = "full bus of 1 Mbit/s"
FULL_SERIAL: Final = "full bus of 1 Mbit/s, slcan"

#: The participant that sends frame by frame.
SINGLY: Final = f"{US}, send"

#: Whose figures are of clients behind the gateway.
REMOTE: Final = f"{US}, remote"

_UDP: Final = "udp_multicast"
_MIDDLE: Final = "CPU in the middle"
_OVER_THEIRS: Final = "receiver's CPU a frame / python-can's own"

Take = Callable[[Figures], list[float]]


def verdicts(figures: Figures) -> list[Verdict]:
    """One for each target, in the order of the table that they come from."""
    return [
        Verdict(target, what, unit, limit, at_least, take(figures))
        for target, what, unit, limit, at_least, take in _TARGETS
    ]


def _figure(load: str, what: str, who: str = US) -> Take:
    return lambda figures: figures.values(load, who, what)


def _lost(load: str, who: str = US) -> Take:
    """All rounds' sum: the median would hide one."""

    def take(figures: Figures) -> list[float]:
        lost = figures.values(load, who, LOST)
        return [sum(lost)] if lost else []

    return take


def _ratio(above: Take, *below: Take) -> Take:
    """Within each round, over the sum of what is ``below``."""

    def take(figures: Figures) -> list[float]:
        rounds = zip(*(part(figures) for part in below), strict=False)
        sums = [sum(values) for values in rounds]
        return [value / total for value, total in zip(above(figures), sums, strict=False) if total]

    return take


def _routes(number: int) -> Take:
    return _figure(f"{number:,} routes, none matching", _MIDDLE)


def _receiving(way: str) -> Take:
    ours, theirs = (_figure(way, receiving.WHAT, who) for who in (US, receiving.THEIRS))
    return _ratio(ours, theirs)


def _round_trip(percentile: str) -> Take:
    return _figure(PACED, percentile, floor.ROUND_TRIP)


_TARGETS: Final[list[tuple[str, str, str, float, bool, Take]]] = [
    (
        "one client to one, send_batch → iterate",
        "rate",
        "frames/s",
        150e3,
        True,
        _figure(ONE, "rate"),
    ),
    ("", "lost", "%", 0, False, _lost(ONE)),
    ("", f"rate / {_UDP}", "x", 8, True, _ratio(_figure(ONE, "rate"), _figure(ONE, "rate", _UDP))),
    ("one client to four", "rate of each", "frames/s", 60e3, True, _figure(FOUR, "rate")),
    ("", "lost", "%", 0, False, _lost(FOUR)),
    (
        "",
        f"rate / {_UDP}",
        "x",
        5,
        True,
        _ratio(_figure(FOUR, "rate"), _figure(FOUR, "rate", _UDP)),
    ),
    (
        "for m in msgs: bus.send(m)",
        "rate",
        "frames/s",
        100e3,
        True,
        _figure(ONE, "rate", SINGLY),
    ),
    (
        "",
        f"rate / {SOCKCAN}",
        "x",
        1,
        True,
        _ratio(_figure(ONE, "rate", SINGLY), _figure(ONE, "rate", SOCKCAN)),
    ),
    (
        "decode and construct on the client",
        "CPU",
        "µs/frame",
        0.6,
        False,
        _figure(decoding.LOAD, "both"),
    ),
    ("receiving: for m in bus", _OVER_THEIRS, "x", 1, False, _receiving(receiving.ITERATING)),
    ("Notifier, 10 listeners", _OVER_THEIRS, "x", 1, False, _receiving(receiving.NOTIFYING)),
    ("async for", _OVER_THEIRS, "x", 1, False, _receiving(receiving.AWAITING)),
    (
        "latency client → client at 2,000 frames/s",
        "p50 / round trip of bare pyzmq",
        "x",
        2,
        False,
        _ratio(_figure(PACED, "p50"), _round_trip("p50")),
    ),
    (
        "",
        "p99 / round trip's p50",
        "x",
        4,
        False,
        _ratio(_figure(PACED, "p99"), _round_trip("p50")),
    ),
    (
        "",
        f"p50 / {SOCKCAN}",
        "x",
        2.5,
        False,
        _ratio(_figure(PACED, "p50"), _figure(PACED, "p50", SOCKCAN)),
    ),
    ("", "actor's CPU", "µs/frame", 110, False, _figure(PACED, _MIDDLE)),
    (
        "both clients remote, encrypted",
        "p50 / local",
        "x",
        2.2,
        False,
        _ratio(_figure(PACED, "p50", REMOTE), _figure(PACED, "p50")),
    ),
    (
        "",
        "rate, send_batch → iterate / local",
        "x",
        0.8,
        True,
        _ratio(_figure(ONE, "rate", REMOTE), _figure(ONE, "rate")),
    ),
    ("", "lost", "%", 0, False, _lost(ONE, REMOTE)),
    (
        "hardware (pty) → client",
        "p50 / (bare pyzmq's hop + driver alone)",
        "x",
        1.24,
        False,
        _ratio(
            _figure(SERIAL, "p50"),
            _figure(PACED, "p50", "bare pyzmq, singly"),
            _figure(SERIAL, "p50", hardware.READ),
        ),
    ),
    (
        "1,000 routes, none matching",
        "actor's CPU a frame / with 1",
        "x",
        1.2,
        False,
        _ratio(_routes(1000), _routes(1)),
    ),
    (
        "16 clients with one filter set",
        "actor's CPU a frame / with 1",
        "x",
        1.4,
        False,
        _ratio(_figure(SIXTEEN, _MIDDLE), _figure(ONE, _MIDDLE)),
    ),
    (
        "others while a stopped client catches up",
        "p99 / before",
        "x",
        2,
        False,
        _figure(stopped.LOAD, "p99 of others / before"),
    ),
    ("", "not accounted for", "frames", 0, False, _figure(stopped.LOAD, "not accounted for")),
    (
        "idle channel actor",
        "resident",
        "MB",
        35,
        False,
        _figure(standing.IDLE, "memory", "channel actor"),
    ),
    ("", "CPU", "% core", 0.2, False, _figure(standing.IDLE, "CPU", "channel actor")),
    ("Bus(), cold", "time", "ms", 1000, False, _figure(standing.STARTING, "Bus(), cold")),
    ("Bus(), warm", "time", "ms", 50, False, _figure(standing.STARTING, "Bus(), warm")),
    (
        "import canbroker, Bus(), warm",
        "time",
        "ms",
        60,
        False,
        _figure(standing.STARTING, standing.BOTH),
    ),
    ("each further Bus", "descriptors", "", 8, False, _figure(standing.FURTHER, "descriptors")),
    ("", "threads", "", 0, False, _figure(standing.FURTHER, "threads")),
    ("", "resident", "MiB", 0.4, False, _figure(standing.FURTHER, "resident")),
    (
        "full bus of 1 Mbit/s, one client",
        "actor's CPU",
        "% core",
        12,
        False,
        _figure(FULL, _MIDDLE),
    ),
    (
        "the same, slcan adapter, frame by frame",
        "actor's CPU",
        "% core",
        25,
        False,
        _figure(FULL_SERIAL, _MIDDLE),
    ),
]
