"""How far a long command has come, for a person at a terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from canbroker.playback.report import Progress as ReplayProgress

#: Commands that take less time need no bar.
_SOON_S: Final = 1.0


class _FrameRate(ProgressColumn):
    """Frames per second of a task that counts something else."""

    def render(self, task: Task) -> Text:
        seconds = task.finished_time or task.elapsed or 0
        rate = task.fields["frames"] / seconds if seconds else 0
        return Text(f"{task.fields['frames']:,} frames, {rate:,.0f}/s", style="cyan")


class _Rate(ProgressColumn):
    """Frames per second."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.finished_speed or task.speed or 0:,.0f} frames/s", style="cyan")


@contextmanager
def progress(title: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Shows a bar on standard error while it is a terminal; yields what advances it.

    Only what takes longer than a second has a bar.

    :param total: frames; ``None`` if it is not known.
    """
    console = Console(stderr=True)
    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeElapsedColumn(),
        *([] if total is None else [TimeRemainingColumn()]),
        console=console,
        disable=not console.is_terminal,
    )
    task = bar.add_task(title, total=total)
    begun = time.monotonic()

    def advance(frames: int) -> None:
        bar.advance(task, frames)
        if not bar.live.is_started and time.monotonic() - begun > _SOON_S:
            bar.start()

    try:
        yield advance
    finally:
        if bar.live.is_started:
            bar.stop()


class _Reached(ProgressColumn):
    """The place in the recording, the rate, and how late frames are."""

    def render(self, task: Task) -> Text:
        reached: ReplayProgress | None = task.fields["reached"]
        if reached is None:
            return Text("")
        minutes, seconds = divmod(reached.position, 60)
        rate = task.fields["rate"]
        late = Text(f"{reached.late * 1e3:.2f} ms late", style="red" if reached.late > 5e-3 else "")
        place = f"at {minutes:02.0f}:{seconds:06.3f}  {reached.sent:,} frames  {rate:,.0f}/s  "
        return Text.assemble((place, "cyan"), late)


@contextmanager
def replay_progress(title: str) -> Iterator[Callable[[ReplayProgress], None]]:
    """Like :func:`progress`, for a replay, whose progress the yielded function takes."""
    console = Console(stderr=True)
    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        TaskProgressColumn(),
        _Reached(),
        TimeElapsedColumn(),
        console=console,
        disable=not console.is_terminal,
    )
    with bar:
        task = bar.add_task(title, total=None, reached=None, rate=0.0)
        begun: list[float] = []  # when the first frames were sent; channels were opened before

        def show(reached: ReplayProgress) -> None:
            if reached.sent and not begun:
                begun.append(time.monotonic())
            passed = time.monotonic() - begun[0] if begun else 0.0
            rate = reached.sent / passed if passed else 0.0
            total = None if reached.share is None else 1.0
            bar.update(task, total=total, completed=reached.share or 0, reached=reached, rate=rate)

        yield show


@contextmanager
def file_progress(title: str) -> Iterator[Callable[[int, int, int | None], None]]:
    """Shows how much of a file has been read, on standard error while it is a terminal.

    Yields what advances it, by a number of frames, to a place in the file of how many.
    """
    console = Console(stderr=True)
    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        _FrameRate(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )
    with bar:
        task = bar.add_task(title, total=None, frames=0)
        frames = 0

        def show(more: int, done: int, total: int | None) -> None:
            nonlocal frames
            frames += more
            bar.update(task, completed=done, total=total, frames=frames)

        yield show
