"""Pictures of figures and distributions; needs matplotlib, of the ``bench`` extra."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from benchmarks.figures import US, Figures

_COLOURS: Final = {
    "canbroker": "#1f6f8b",
    "canbroker, send": "#5fa8c4",
    "canbroker, recv_batch": "#a6d3e3",
    "python-can": "#c1440e",
    "python-can virtual": "#e3a587",
    "udp_multicast": "#c1440e",
    "python-can-remote": "#d9a400",
    "sockcan": "#8e5ea2",
    "bare pyzmq, 128 a time": "#444444",
    "bare pyzmq, singly": "#8a8a8a",
    "bare pyzmq, round trip": "#c4c4c4",
}
_OTHER: Final = "#7aa974"
_GROWTH_COLOURS: Final = ("#1f6f8b", "#c1440e")

#: What is later than so many of a thousand is where the difference is: a logarithmic axis.
_SHARES: Final = [0.5, *(1 - 10 ** (-n / 20) for n in range(7, 81))]


def draw_lateness(runs: Sequence[tuple[int, str, Sequence[float]]], path: Path) -> None:
    """Draws how many frames were later than what; one panel for each number of tasks.

    ``runs``: tasks, system, sorted lateness in ms.
    """
    counts = sorted({tasks for tasks, _, _ in runs})
    figure, axes = plt.subplots(
        1, len(counts), figsize=(3.4 * len(counts), 3.8), sharey=True, squeeze=False
    )
    lines = {}
    for panel, tasks in zip(axes[0], counts, strict=True):
        for count, system, late in runs:
            if count != tasks or not late:
                continue
            shares = [share for share in _SHARES if (1 - share) * len(late) >= 1]
            values = [max(1e-3, late[int(share * len(late))]) for share in shares]
            colour = _COLOURS.get(system, _OTHER)
            lines[system] = panel.plot(values, [1 - share for share in shares], color=colour)[0]
        panel.set_title(f"{tasks:,} task{'s' if tasks > 1 else ''} at 10 ms", fontsize=10)
        panel.set_xscale("log")
        panel.set_yscale("log")
        panel.set_xlim(1e-3, 3e3)
        panel.set_xlabel("|gap - 10 ms| [ms]")
        panel.grid(visible=True, which="major", alpha=0.3)
    axes[0][0].set_ylabel("share of frames that are later")
    figure.legend(
        lines.values(), lines.keys(), loc="upper center", bbox_to_anchor=(0.5, 0), ncols=len(lines)
    )
    _save(figure, path)


def draw_rates(figures: Figures, loads: Sequence[str], path: Path) -> None:
    """Draws frames a second by load; the bars of one colour are of one way to share a bus."""
    _bars(figures, loads, "rate", "frames/s at the slowest receiver", path)


def draw_latencies(figures: Figures, loads: Sequence[str], path: Path) -> None:
    """Draws p50 by load, with p99 as a line above it."""
    _bars(figures, loads, "p50", "µs from send to recv: p50, line to p99", path, "p99")


def draw_routes(figures: Figures, loads: Sequence[str], counts: Sequence[int], path: Path) -> None:
    """Draws what a frame costs the channel actor by the number of its routes."""
    costs = [figures.values(load, US, "CPU in the middle") or [float("nan")] for load in loads]
    medians = [statistics.median(values) for values in costs]
    below = [median - min(values) for median, values in zip(medians, costs, strict=True)]
    above = [max(values) - median for median, values in zip(medians, costs, strict=True)]
    figure, panel = plt.subplots(figsize=(5, 3.4))
    panel.errorbar(counts, medians, [below, above], color=_COLOURS[US], marker="o", capsize=3)
    panel.set_xscale("log")
    panel.set_ylim(bottom=0)
    panel.set_xlabel("routes, none of which the frame matches")
    panel.set_ylabel("actor's processor time [µs/frame]")
    panel.grid(visible=True, which="major", alpha=0.3)
    _save(figure, path)


def draw_growth(
    rows: Sequence[tuple[str, Sequence[int], Mapping[str, Mapping[str, Sequence[float]]]]],
    path: Path,
) -> None:
    """Draws a row of panels for each thing that grows: its name, its numbers, and lines of each
    panel by their names. The panels of a column have one scale."""
    columns = len(rows[0][2])
    figure, axes = plt.subplots(
        len(rows), columns, figsize=(3.4 * columns, 2.9 * len(rows)), sharey="col", squeeze=False
    )
    for panels, (growing, numbers, quantities) in zip(axes, rows, strict=True):
        for panel, (quantity, lines) in zip(panels, quantities.items(), strict=True):
            for (name, values), colour in zip(lines.items(), _GROWTH_COLOURS, strict=False):
                panel.plot(numbers, values, marker="o", markersize=4, color=colour, label=name)
            panel.set_xscale("log", base=2)
            panel.set_yscale("log")
            panel.set_xticks(numbers, [str(number) for number in numbers])
            panel.set_xlabel(growing)
            panel.set_ylabel(quantity)
            panel.grid(visible=True, which="major", alpha=0.3)
            panel.legend(fontsize=8)
    _save(figure, path)


def _bars(
    figures: Figures,
    loads: Sequence[str],
    what: str,
    label: str,
    path: Path,
    line: str | None = None,
) -> None:
    whos = list(dict.fromkeys(key.who for key in figures if key.load in loads and key.what == what))
    figure, panel = plt.subplots(figsize=(2.4 * len(loads) + 2.2, 4))
    width = 0.85 / max(1, len(whos))
    for number, who in enumerate(whos):
        values = [figures.median(load, who, what) for load in loads]
        shown = [(place, value) for place, value in enumerate(values) if value]
        at = [place + (number - (len(whos) - 1) / 2) * width for place, _ in shown]
        colour = _COLOURS.get(who, _OTHER)
        panel.bar(at, [value for _, value in shown], width, label=who, color=colour)
        for position, (place, value) in zip(at, shown, strict=True):
            top = figures.median(loads[place], who, line) if line else None
            if top:
                panel.plot([position, position], [value, top], color=colour, linewidth=1)
    panel.set_xticks(range(len(loads)), loads)
    panel.set_yscale("log")
    panel.set_ylabel(label)
    panel.grid(visible=True, axis="y", which="major", alpha=0.3)
    panel.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    figure.tight_layout()
    figure.savefig(path, dpi=120, bbox_inches="tight")
    plt.close(figure)
