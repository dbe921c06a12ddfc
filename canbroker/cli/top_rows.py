"""What ``canbroker top`` shows: rows that are sorted, filtered, paused and frozen, and their texts.

Pure: no terminal. Widths are those of a terminal with 80 columns.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from canbroker.model.frame import ERROR, EXTENDED, EchoFrame, identifier_text
from canbroker.model.wording import printable
from canbroker.system import clock
from canbroker.view.channel import ChannelView, Sample
from canbroker.view.table import Row
from canbroker.wire.stream import StateEvent

#: Column -> its width; the data takes what is left. Numbers are right of their column.
COLUMNS: Final[Mapping[str, int]] = {
    "id": 8,
    "": 2,  # rx or tx
    "count": 9,
    "rate": 7,
    "period": 7,
    "jitter": 7,
    "age": 5,
    "len": 3,
}

#: Where the data begins.
DATA_AT: Final = sum(COLUMNS.values()) + len(COLUMNS)

_BAR_NS: Final = 2 * clock.SECOND
_BLOCKS: Final = " ▁▂▃▄▅▆▇█"

_RANGE: Final = re.compile(r"([0-9A-Fa-f]{1,8})-([0-9A-Fa-f]{1,8})")

_MILLION: Final = 1_000_000


class Shown(NamedTuple):
    """A row as it was at a time; ``name``: of its message, if a database has it."""

    key: int
    frame: EchoFrame
    is_sent: bool
    frames: int
    rate: float
    period_ns: int | None
    jitter_ns: int | None
    age_ns: int
    changed: int
    name: str
    is_frozen: bool = False

    @property
    def identifier(self) -> str:
        """Three or eight hexadecimal digits."""
        return identifier_text(self.frame.arbitration_id, self.frame.flags & (EXTENDED | ERROR))


def _identifier_key(row: Shown) -> tuple[int, int]:
    return row.frame.arbitration_id, row.key


#: What rows are sorted by. Of equal rows, the lower identifier is first.
SORTS: Final[Mapping[str, Callable[[Shown], float]]] = {
    "id": lambda row: row.frame.arbitration_id,
    "count": lambda row: -row.frames,
    "rate": lambda row: -row.rate,
    "period": lambda row: row.period_ns if row.period_ns is not None else float("inf"),
    "jitter": lambda row: -(row.jitter_ns or 0),
    "age": lambda row: row.age_ns,
}


class Wanted:
    """A filter as a user types it: a part of an identifier or of a message's name, a range of
    identifiers (``100-1FF``), ``rx`` or ``tx``. With several words, rows have to pass all."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._tests = [_test(word) for word in text.split()]

    def passes(self, row: Shown) -> bool:
        return all(test(row) for test in self._tests)


def _test(word: str) -> Callable[[Shown], bool]:
    bounds = _RANGE.fullmatch(word)
    if bounds:
        first, last = int(bounds[1], 16), int(bounds[2], 16)
        return lambda row: first <= row.frame.arbitration_id <= last
    lowered = word.lower()
    if lowered in {"rx", "tx"}:
        return lambda row: row.is_sent == (lowered == "tx")
    return lambda row: lowered in row.identifier.lower() or lowered in row.name.lower()


class Display:
    """The rows to show, of those of a table.

    ``rows``: in their order. ``sort``: one of :data:`SORTS`.
    """

    def __init__(self, name_of: Callable[[EchoFrame], str | None]) -> None:
        """``name_of``: the name of the message that a frame carries, if it is known."""
        self.rows: list[Shown] = []
        self.sort = "id"
        self.is_reversed = False
        self.is_paused = False
        self.wanted = Wanted("")
        self._name_of = name_of
        self._all: list[Shown] = []
        self._frozen: dict[int, Shown] = {}

    def take(self, rows: Iterable[Row], now_ns: int) -> None:
        """Shows the rows as they are at ``now_ns`` (monotonic), unless the display is paused."""
        if not self.is_paused:
            self._all = [self._frozen.get(row.key) or self._shown(row, now_ns) for row in rows]
        self.arrange()

    def arrange(self) -> None:
        """Filters and sorts again."""
        rows = sorted(filter(self.wanted.passes, self._all), key=_identifier_key)
        rows.sort(key=SORTS[self.sort], reverse=self.is_reversed)
        self.rows = rows

    def next_sort(self) -> None:
        """Sorts by the next column."""
        names = list(SORTS)
        self.sort = names[(names.index(self.sort) + 1) % len(names)]
        self.arrange()

    def freeze(self, key: int) -> None:
        """Keeps a row as it is, or ends that."""
        if self._frozen.pop(key, None) is None:
            for row in self._all:
                if row.key == key:
                    self._frozen[key] = row._replace(is_frozen=True)
        self._all = [
            self._frozen.get(row.key) or row._replace(is_frozen=False) for row in self._all
        ]
        self.arrange()

    def clear(self) -> None:
        """Forgets all rows, also frozen ones."""
        self._frozen.clear()
        self._all = []
        self.arrange()

    def _shown(self, row: Row, now_ns: int) -> Shown:
        return Shown(
            row.key,
            row.last,
            row.is_sent,
            row.count,
            row.rate,
            row.period_ns,
            row.jitter_ns,
            row.age_ns(now_ns),
            row.changed,
            self._name_of(row.last) or "",
        )


# ------------------------------------------------------------------------------------ texts


def heading(sort: str, *, is_reversed: bool, has_names: bool) -> str:
    """The names of the columns, with a mark at the one that sorts."""
    arrow = "▲" if is_reversed else "▼"
    cells = []
    for name, width in COLUMNS.items():
        marked = f"{name}{arrow}" if name == sort else name
        cells.append(marked.ljust(width) if name == "id" else marked.rjust(width))
    data = f"{'data':<25}message" if has_names else "data"  # names stand behind eight bytes
    return " ".join([*cells, data])


def fixed_cells(row: Shown, group: str = ",") -> str:
    """The cells of a row before its data, each in its width; ``group`` separates thousands."""
    data = row.frame.data
    cells = (
        row.identifier,
        "tx" if row.is_sent else "rx",
        _count(row.frames, group),
        _rate(row.rate, group),
        _milliseconds(row.period_ns, group),
        _milliseconds(row.jitter_ns, group),
        _age(row.age_ns),
        str(data if isinstance(data, int) else len(data)),
    )
    return " ".join(map(_right, cells, COLUMNS.values()))


def data_cells(row: Shown, width: int) -> list[tuple[str, bool]]:
    """The data in as many columns: ``(text, whether it has changed)``, byte by byte.

    The name of the message follows where there is room.
    """
    data = row.frame.data
    if isinstance(data, int):
        return [("remote"[:width], False)]
    room = max(0, (width + 1) // 3)
    cells = [(f"{byte:02X} ", bool(row.changed >> at & 1)) for at, byte in enumerate(data[:room])]
    if len(data) > room and cells:
        cells[-1] = ("… ", False)
    left = width - 3 * max(len(cells), 8) - 1
    if row.name and left > 2:
        cells.append((" " * 3 * max(0, 8 - len(cells)) + " " + printable(row.name)[:left], False))
    return cells


def plain_line(row: Shown, width: int) -> str:
    """A row as text, with numbers that programs read."""
    data = "".join(text for text, _ in data_cells(row, width - DATA_AT))
    return f"{fixed_cells(row, group='')} {data}".rstrip()


def headline(view: ChannelView, width: int) -> str:
    """One line about a channel: its state, rates, load and what went wrong."""
    parts = [printable(view.name), *_state_parts(view.state)]
    if view.problem:
        parts.insert(1, f"NOT RECEIVING: {printable(view.problem)}")
    counts = {
        "missed": view.missed,
        "dropped": view.dropped,
        "restarts": view.restarts,
        "interruptions": view.interruptions,
        "unlisted": view.table.unlisted,
    }
    parts += [f"{count:,} {name}" for name, count in counts.items() if count]
    return "  ".join(parts)[:width]


def _state_parts(state: StateEvent | None) -> list[str]:
    if state is None:
        return ["waiting for its state"]
    word = f"{state.state}: {printable(state.reason)}" if state.reason else state.state
    rates = [f"{rate / 1000:g}k" for rate in (state.bitrate, state.data_bitrate) if rate]
    parts = [word, *(["/".join(rates)] if rates else [])]
    if state.load is not None:
        parts.append(f"load {state.load:.0%}")
    parts += [f"rx {state.received_rate:,.0f}/s", f"tx {state.transmitted_rate:,.0f}/s"]
    if state.error_counters is not None:
        errors = state.error_counters
        parts.append(f"errors tx {errors.transmit} rx {errors.receive}")
    if state.failed:
        parts.append(f"{state.failed:,} failed")
    return parts


def load_line(samples: Sequence[Sample], width: int) -> str:
    """The load over time as blocks, the newest at the right; each is the largest of two seconds."""
    loads: dict[int, float] = {}
    for sample in samples:
        if sample.load is not None:
            bar = sample.wall_ns // _BAR_NS
            loads[bar] = max(sample.load, loads.get(bar, 0))
    if not loads:
        return "load is not known: the channel has no bit rate, or has not told yet"
    label = f"load, max {max(loads.values()):4.0%} "
    bars = max(0, width - len(label))
    last = max(loads)
    blocks = (_block(loads.get(bar, 0)) for bar in range(last - bars + 1, last + 1))
    return label + "".join(blocks)


def _block(load: float) -> str:
    return _BLOCKS[max(0, min(len(_BLOCKS) - 1, round(load * (len(_BLOCKS) - 1))))]


def _right(text: str, width: int) -> str:
    """A number in its column; one that does not fit says no more than that."""
    return text.rjust(width) if len(text) <= width else "…".rjust(width)


def _count(count: int, group: str) -> str:
    is_long = group and count >= _MILLION
    return f"{count / _MILLION:,.2f}M" if is_long else f"{count:{group}d}"


def _rate(rate: float, group: str) -> str:
    return f"{rate:.1f}" if rate < 1000 else f"{rate:{group}.0f}"


def _milliseconds(time_ns: int | None, group: str) -> str:
    if time_ns is None:
        return "-"
    time_ms = time_ns / clock.MILLISECOND
    return f"{time_ms:.2f}" if time_ms < 100 else f"{time_ms:{group}.0f}"


def _age(age_ns: int) -> str:
    seconds = age_ns / clock.SECOND
    for limit, form in ((100, "{:.1f}"), (1000, "{:.0f}")):
        if seconds < limit:
            return form.format(seconds)
    return f"{seconds / 60:.0f}m" if seconds < 36_000 else f"{seconds / 3600:.0f}h"
