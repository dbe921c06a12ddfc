"""From single measurements to medians, ratios, a table and files."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from rich import box
from rich.table import Table


class Delivery(NamedTuple):
    """What one receiver got of a stream, and the monotonic time at which it had the last of it."""

    frames: int
    last_ns: int


class Summary(NamedTuple):
    """One line of the result: the median of all rounds, and the extremes."""

    name: str
    unit: str
    median: float
    lowest: float
    highest: float
    rounds: int


_LOSS: Final = "frames"


def percentile(values: Sequence[float], percent: int) -> float:
    return sorted(values)[min(len(values) - 1, len(values) * percent // 100)]


def latencies(name: str, nanoseconds: Sequence[int]) -> dict[str, float]:
    """p50 and p99 in microseconds, as figures."""
    return {
        f"{name}, p50 [µs]": percentile(nanoseconds, 50) / 1000,
        f"{name}, p99 [µs]": percentile(nanoseconds, 99) / 1000,
    }


def stream(name: str, sent: int, began_ns: int, deliveries: Sequence[Delivery]) -> dict[str, float]:
    """Frames a second from the first send to the last frame at the slowest receiver; and losses."""
    rates = [item.frames * 1e9 / (item.last_ns - began_ns) for item in deliveries if item.frames]
    return {
        f"{name} [frames/s]": min(rates, default=0.0),
        f"{name}, lost [frames]": float(sum(sent - delivery.frames for delivery in deliveries)),
    }


class Figures:
    """All rounds' figures. A name ends in its unit: ``latency, p50 [µs]``."""

    def __init__(self) -> None:
        self._values: dict[str, list[float]] = {}

    def add(self, figures: dict[str, float]) -> None:
        for name, value in figures.items():
            self._values.setdefault(name, []).append(value)

    def add_ratio(self, name: str, numerator: str, denominator: str) -> None:
        """The ratio of two figures within each round: what disturbs one disturbs both."""
        pairs = zip(self._values[numerator], self._values[denominator], strict=True)
        self._values[f"{name} [x]"] = [above / below for above, below in pairs]

    def summaries(self) -> list[Summary]:
        return [_summary(name, values) for name, values in self._values.items()]

    def table(self) -> Table:
        lost = sum(sum(values) for name, values in self._values.items() if _is_loss(name))
        table = Table(
            caption=f"frames lost in all streams of all rounds: {lost:.0f}",
            caption_justify="left",
            box=box.SIMPLE_HEAD,
            padding=(0, 1, 0, 0),
        )
        table.add_column("what", no_wrap=True)
        for heading in ("median", "unit", "lowest", "highest"):
            table.add_column(
                heading, justify="left" if heading == "unit" else "right", no_wrap=True
            )
        for line in self.summaries():
            if line.unit == _LOSS:
                continue
            numbers = [_number(value) for value in (line.median, line.lowest, line.highest)]
            table.add_row(line.name, numbers[0], line.unit, *numbers[1:])
        return table

    def write(self, directory: Path, about: dict[str, Any]) -> None:
        """Writes ``latest.json`` and ``latest.md``; ``about`` is the machine."""
        directory.mkdir(exist_ok=True)
        content = {"about": about, "figures": self._values}
        text = json.dumps(content, indent=1, ensure_ascii=False)
        (directory / "latest.json").write_text(text, encoding="utf-8")
        (directory / "latest.md").write_text(self._markdown(about), encoding="utf-8")

    def _markdown(self, about: dict[str, Any]) -> str:
        lines = [", ".join(f"{key} {value}" for key, value in about.items()), ""]
        lines += ["| what | median | unit | lowest | highest |", "|---|---:|---|---:|---:|"]
        for line in self.summaries():
            numbers = [_number(value) for value in (line.median, line.lowest, line.highest)]
            lines.append(
                f"| {line.name} | {numbers[0]} | {line.unit} | {numbers[1]} | {numbers[2]} |"
            )
        return "\n".join(lines) + "\n"


def _is_loss(name: str) -> bool:
    return name.endswith(f"[{_LOSS}]")


def _summary(name: str, values: list[float]) -> Summary:
    what, _, unit = name.removesuffix("]").rpartition(" [")
    return Summary(what, unit, statistics.median(values), min(values), max(values), len(values))


def _number(value: float) -> str:
    """Three digits; thousands and millions as k and M."""
    if value >= 1e6:
        return f"{value / 1e6:.3g} M"
    if value >= 1e4:
        return f"{value / 1e3:.3g} k"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
