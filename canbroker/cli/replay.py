"""``canbroker replay``."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import click

from canbroker import clock
from canbroker.candump import LogEntry, read_log
from canbroker.cli.common import Opener, opens_channels, outgoing
from canbroker.cli.pacing import due_together
from canbroker.cli.progress import progress
from canbroker.client import Bus
from canbroker.errors import CanInitializationError
from canbroker.frame import ERROR
from canbroker.message import Message

#: Between the last frame of a log and its first one when it starts again.
_LOOP_GAP_NS: Final = clock.MILLISECOND


@click.command()
@click.argument("path", metavar="FILE", type=click.Path(path_type=Path))
@click.argument("targets", metavar="[CHANNEL | CHANNEL=LOGGED...]", nargs=-1)
@click.option(
    "--speed",
    metavar="X",
    type=click.FloatRange(min=0),
    default=1.0,
    show_default=True,
    help="Times as fast as recorded; 0 is as fast as possible.",
)
@click.option(
    "-l",
    "--loop",
    metavar="N|i",
    default="1",
    callback=lambda _ctx, _param, value: loop_count(value),
    help="So many times; i (infinite) for ever.",
)
@click.option(
    "-g",
    "gap_ms",
    metavar="MS",
    type=click.FloatRange(min=0),
    help="Ignore the timestamps: so many milliseconds from frame to frame.",
)
@opens_channels("-b", "--bitrate")
def replay(
    path: Path,
    targets: tuple[str, ...],
    speed: float,
    loop: int | None,
    gap_ms: float | None,
    opener: Opener,
) -> None:
    """Send the frames of a log in time, like canplayer.

    FILE is what candump -L or canbroker dump -L has written. Its frames go to CHANNEL; or, for
    each assignment, those of its interface LOGGED to CHANNEL, and no others; or, with neither,
    to the channels that are named like its interfaces.

    \b
    Examples:
      canbroker replay drive.log can0
      canbroker replay drive.log body=can0 virtual.x=can1 --speed 2 -l i
    """
    entries = read_entries(path)
    channels = assignments(targets, entries, path)
    playable = [e for e in entries if e.interface in channels and not e.frame.flags & ERROR]
    errors = sum(1 for e in entries if e.interface in channels) - len(playable)
    if errors:
        click.echo(f"canbroker: replay: {errors} error frames are not sent", err=True)
    if gap_ms is None:
        offsets = recorded_offsets(playable, speed)
    else:
        offsets = [round(number * gap_ms * clock.MILLISECOND) for number in range(len(playable))]
    with ExitStack() as stack:
        opened = {
            channel: stack.enter_context(opener.open(channel))
            for channel in dict.fromkeys(channels.values())
        }
        buses = {logged: opened[channel] for logged, channel in channels.items()}
        total = None if loop is None else loop * len(playable)
        with progress(f"replay {path.name}", total) as advance:
            for due in due_together(repeated(playable, offsets, loop)):
                _send(due, buses)
                advance(len(due))
        for bus in opened.values():
            bus.flush()


def loop_count(text: str) -> int | None:
    """How often to play; ``None`` is for ever.

    :raises click.BadParameter: neither a number above 0 nor ``i``.
    """
    if text in {"i", "infinite"}:
        return None
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise click.BadParameter(f"{text!r} is no number above 0, and not i (infinite)")
    return int(text)


def read_entries(path: Path) -> list[LogEntry]:
    """The entries of a log.

    :raises CanInitializationError: it cannot be read or has none; or names the line that is wrong.
    """
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            entries = list(read_log(file, str(path)))
    except OSError as error:
        raise CanInitializationError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise CanInitializationError(str(error)) from error
    if not entries:
        raise CanInitializationError(f"{path} holds no frames")
    return entries


def assignments(targets: Iterable[str], entries: Iterable[LogEntry], path: Path) -> dict[str, str]:
    """Channels by the log's interfaces, as the arguments assign them.

    :raises click.UsageError: arguments that do not fit together, or not the log.
    """
    logged = list(dict.fromkeys(entry.interface for entry in entries))
    pairs = [target.rpartition("=") for target in targets]  # as canplayer: where to, what
    if not pairs:
        return {interface: interface for interface in logged}
    if len(pairs) == 1 and not pairs[0][1]:
        return dict.fromkeys(logged, pairs[0][2])
    for channel, _, interface in pairs:
        if not interface or not channel:
            raise click.UsageError("give one CHANNEL, or assignments CHANNEL=LOGGED")
        if interface not in logged:
            raise click.UsageError(
                f"{path} has no interface {interface!r}; it has: {', '.join(logged)}"
            )
    return {interface: channel for channel, _, interface in pairs}


def recorded_offsets(entries: list[LogEntry], speed: float) -> list[int]:
    """Nanoseconds after the first entry at which each is due.

    A log that was merged from several may step back in time; its order is what counts.
    """
    if not speed or not entries:
        return [0] * len(entries)
    latest = itertools.accumulate((entry.timestamp_ns for entry in entries), max)
    return [round((at_ns - entries[0].timestamp_ns) / speed) for at_ns in latest]


def repeated(
    entries: list[LogEntry], offsets: list[int], loops: int | None
) -> Iterator[tuple[int, LogEntry]]:
    """Every entry of every loop with the time at which it is due; ``None`` loops for ever."""
    if not entries:
        return
    period_ns = offsets[-1] + _LOOP_GAP_NS if offsets[-1] else 0
    for loop in itertools.count() if loops is None else range(loops):
        for offset_ns, entry in zip(offsets, entries, strict=True):
            yield loop * period_ns + offset_ns, entry


def _send(due: list[LogEntry], buses: dict[str, Bus]) -> None:
    """Sends what is due, in one request for each bus."""
    batches: dict[Bus, list[Message]] = {}
    for entry in due:
        batches.setdefault(buses[entry.interface], []).append(outgoing(entry.frame))
    for bus, messages in batches.items():
        bus.send_batch(messages)
