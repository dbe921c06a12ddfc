"""The demonstration's output: a live table on a terminal, or one line per second elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Final, Self

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from canbroker.demo.ledger import Report, Tally
from canbroker.demo.roles import Role
from canbroker.wire.stream import StateEvent

_LIVE_S: Final = 0.25
_LINE_S: Final = 1.0


class Screen:
    """Shows progress while its context is open; :meth:`ledger` prints the result afterwards."""

    def __init__(self, console: Console, roles: Sequence[Role]) -> None:
        self._console = console
        self._roles = roles
        self._live = (
            Live(console=console, auto_refresh=False, transient=True)
            if console.is_terminal
            else None
        )
        self._began: float | None = None
        self._due = 0.0

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def say(self, text: str) -> None:
        self._console.print(text, highlight=False, soft_wrap=True)

    def show(self, reports: Mapping[str, Report], state: StateEvent | None) -> None:
        """Draws the current reports, if the last drawing is old enough."""
        now = time.monotonic()
        if now < self._due:
            return
        self._began = self._began or now
        channel = _channel_line(state)
        if self._live is not None:
            self._due = now + _LIVE_S
            self._live.update(Group(self._progress(reports), Text(channel)), refresh=True)
        else:
            self._due = now + _LINE_S
            counts = "  ".join(f"{role.name} {reports[role.name].frames}" for role in self._roles)
            self.say(f"{now - self._began:5.1f} s  {channel}  |  {counts}")

    def ledger(
        self, frames: int, expected: Mapping[Role, Tally], reports: Mapping[str, Report]
    ) -> None:
        """Prints the account at the end."""
        table = _table("expected", "delivered", "lost", "p50 µs", "p99 µs")
        table.title = f"Ledger: {frames} frames on the adapter"
        table.add_column("order")
        for role, tally in expected.items():
            report = reports[role.name]
            table.add_row(
                role.name,
                role.wording,
                str(tally.frames),
                str(report.frames),
                str(report.lost),
                _microseconds(report.p50_us),
                _microseconds(report.p99_us),
                "exact" if report.digest == tally.digest else "WRONG",
            )
        self._console.print(table)

    def _progress(self, reports: Mapping[str, Report]) -> Table:
        table = _table("frames", "frames/s", "p50 µs", "p99 µs", "lost")
        for role in self._roles:
            report = reports[role.name]
            table.add_row(
                role.name,
                role.wording,
                str(report.frames),
                f"{report.rate:.0f}",
                _microseconds(report.p50_us),
                _microseconds(report.p99_us),
                str(report.lost),
            )
        return table


def _table(*numbers: str) -> Table:
    """A table of clients that fits into 80 columns, with these number columns."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), title_justify="left")
    for heading in ("client", "filter"):
        table.add_column(heading, no_wrap=True)
    for heading in numbers:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _channel_line(state: StateEvent | None) -> str:
    if state is None:
        return "adapter: no state yet"
    load = "unknown" if state.load is None else f"{state.load:.0%}"
    return f"adapter {state.state}  {state.received_rate:.0f} frames/s  bus load {load}"


def _microseconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"
