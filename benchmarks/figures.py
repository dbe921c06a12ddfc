"""From single measurements to medians, ratios, tables and files."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from rich import box
from rich.table import Table

#: Where benchmarks write, unless they are told another directory.
RESULTS: Final = Path(__file__).with_name("results")

#: Ratios are between it and the others.
US: Final = "canbroker"

#: The share of frames that did not arrive.
LOST: Final = "lost"

_FIELDS: Final = ("load", "who", "what", "median", "unit", "lowest", "highest", f"{US} / this")
_TARGET_FIELDS: Final = ("target", "what", "median", "lowest", "highest", "wanted", "")
_TEXTS: Final = {"load", "who", "what", "unit", "target", "wanted", ""}


class Key(NamedTuple):
    """What a figure is of: who did what under which load."""

    load: str
    who: str
    what: str
    unit: str


class Verdict(NamedTuple):
    """What was wanted of a figure, and what its rounds have given."""

    target: str
    what: str
    unit: str
    limit: float
    at_least: bool
    values: list[float]

    @property
    def measured(self) -> float:
        return statistics.median(self.values)

    @property
    def outcome(self) -> str:
        """``met``, ``missed`` or ``not measured``, by the median."""
        if not self.values:
            return "not measured"
        above = self.measured >= self.limit
        return "met" if above == self.at_least or self.measured == self.limit else "missed"


#: What one measurement has found.
Found = Mapping[Key, float]


def percentile(values: Sequence[float], percent: int) -> float:
    """The value that so many percent are below; not a number, if there are none."""
    if not values:
        return float("nan")
    return sorted(values)[min(len(values) - 1, len(values) * percent // 100)]


def latencies(load: str, who: str, nanoseconds: Sequence[int]) -> dict[Key, float]:
    """p50 and p99 in microseconds."""
    return {
        Key(load, who, f"p{percent}", "µs"): percentile(nanoseconds, percent) / 1000
        for percent in (50, 99)
    }


class Figures:
    """All rounds' figures."""

    def __init__(self) -> None:
        self._values: dict[Key, list[float]] = {}

    def add(self, found: Found) -> None:
        for key, value in found.items():
            self._values.setdefault(key, []).append(value)

    def __iter__(self) -> Iterator[Key]:
        return iter(self._values)

    def values(self, load: str, who: str, what: str) -> list[float]:
        """Of all rounds; none if that was not measured."""
        for key, values in self._values.items():
            if key[:3] == (load, who, what):
                return values
        return []

    def median(self, load: str, who: str, what: str) -> float | None:
        values = self.values(load, who, what)
        return statistics.median(values) if values else None

    def rows(self) -> list[list[str]]:
        """One for each figure; a load's figures are together, and so are those that compare.

        Losses are shown where there were some.
        """
        order = {key.load: number for number, key in reversed([*enumerate(self._values)])}
        whats = {key[::2]: number for number, key in reversed([*enumerate(self._values)])}
        keys = sorted(self._values, key=lambda key: (order[key.load], whats[key[::2]]))
        return [self._row(key) for key in keys if key.what != LOST or any(self._values[key])]

    def table(self) -> Table:
        return _table(_FIELDS, self.rows())

    def write(self, directory: Path, about: Mapping[str, Any], verdicts: Sequence[Verdict]) -> None:
        """Writes ``latest.json`` (all values) and ``latest.md``; ``about`` is the machine."""
        directory.mkdir(parents=True, exist_ok=True)
        figures = [{**key._asdict(), "values": values} for key, values in self._values.items()]
        targets = [verdict._asdict() for verdict in verdicts]
        content = {"about": about, "targets": targets, "figures": figures}
        text = json.dumps(content, indent=1, ensure_ascii=False)
        (directory / "latest.json").write_text(text, encoding="utf-8")
        lines = [", ".join(f"{key} {value}" for key, value in about.items()), ""]
        lines += _markdown(_TARGET_FIELDS, target_rows(verdicts))
        lines += ["", *_markdown(_FIELDS, self.rows())]
        (directory / "latest.md").write_text("\n".join(lines) + "\n", encoding="utf-8")

    def _row(self, key: Key) -> list[str]:
        values = self._values[key]
        median, *ends = (number(f(values)) for f in (statistics.median, min, max))
        return [*key[:3], median, key.unit, *ends, self._ratio(key)]

    def _ratio(self, key: Key) -> str:
        """Ours to this one within each round, so that what disturbs one disturbs both."""
        ours = self._values.get(key._replace(who=US), [])
        if key.who == US or key.what == LOST:
            return ""
        values = [
            above / below for above, below in zip(ours, self._values[key], strict=False) if below
        ]
        return f"{number(statistics.median(values))} x" if values else ""


def target_table(verdicts: Sequence[Verdict]) -> Table:
    return _table(_TARGET_FIELDS, target_rows(verdicts))


def target_rows(verdicts: Sequence[Verdict]) -> list[list[str]]:
    """One for each target: what was wanted and what was measured."""
    rows = []
    for verdict in verdicts:
        if verdict.values:
            ends = [number(f(verdict.values)) for f in (min, max)]
            measured = [number(verdict.measured), *ends]
        else:
            measured = ["-", "", ""]
        wanted = f"{'≥' if verdict.at_least else '≤'} {number(verdict.limit)} {verdict.unit}"
        rows.append([verdict.target, verdict.what, *measured, wanted, verdict.outcome])
    return rows


def number(value: float) -> str:
    """Three digits; thousands and millions as k and M."""
    if value >= 1e6:
        return f"{value / 1e6:.3g} M"
    if value >= 1e4:
        return f"{value / 1e3:.3g} k"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _table(fields: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for field in fields:
        justify = "left" if field in _TEXTS else "right"
        table.add_column(field, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    for row in rows:
        table.add_row(*row)
    return table


def _markdown(fields: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    rule = "|".join("---" if field in _TEXTS else "---:" for field in fields)
    lines = [f"| {' | '.join(fields)} |", f"|{rule}|"]
    return lines + [f"| {' | '.join(row)} |" for row in rows]
