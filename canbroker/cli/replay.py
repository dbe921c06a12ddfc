"""``canbroker replay``."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Final

import click

from canbroker.cli.common import NotNegative, Opener, count_damage_only, opens_channels
from canbroker.cli.progress import replay_progress
from canbroker.errors import CanInitializationError
from canbroker.logs.candump import parse_dump_filters
from canbroker.model.filters import EVERYTHING, FilterSet
from canbroker.playback.player import Choice, Player, Stop
from canbroker.playback.replaying import look_through, timing_of
from canbroker.playback.route import Route, Target
from canbroker.playback.source import CandumpLog, Log, open_log
from canbroker.playback.window import Moment, Window

#: What stands for standard input, as a file.
_STANDARD_INPUT: Final = Path("-")


def filters_of(_context: object, _parameter: object, text: str | None) -> FilterSet:
    """:raises click.BadParameter: a filter does not parse."""
    try:
        return EVERYTHING if text is None else parse_dump_filters(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def moment(_context: object, _parameter: object, text: str | None) -> Moment | None:
    """:raises click.BadParameter: neither a number nor a time."""
    if text is None:
        return None
    try:
        return float(text)
    except ValueError:
        pass
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        expected = "neither seconds nor a time such as 2026-11-30T12:00:00"
        raise click.BadParameter(f"{text!r} is {expected}") from None


def loop_count(text: str) -> int | None:
    """How often to play; ``None`` is for ever.

    :raises click.BadParameter: neither a number above 0 nor ``i``.
    """
    if text in {"i", "infinite"}:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 18 or int(text) < 1:
        raise click.BadParameter(f"{text!r} is neither a number above 0 nor i (infinite)")
    return int(text)


def target(arguments: Iterable[str], maps: Iterable[str] = ()) -> Target:
    """Where frames go, by arguments ``CHANNEL`` or ``CHANNEL=LOGGED`` and maps ``LOGGED=CHANNEL``.

    :raises click.UsageError: they do not fit together.
    """
    pairs = [argument.rpartition("=") for argument in arguments]  # as canplayer: where to, what
    mapped = [(logged, channel) for logged, _, channel in (text.partition("=") for text in maps)]
    if len(pairs) == 1 and not pairs[0][1] and not mapped:
        return pairs[0][2]
    assigned = dict(mapped) | {interface: channel for channel, _, interface in pairs}
    if not all(assigned) or not all(assigned.values()) or not all(pair[1] for pair in pairs):
        raise click.UsageError(
            "give one CHANNEL, or assignments CHANNEL=LOGGED or --map LOGGED=CHANNEL"
        )
    return assigned or None


@click.command()
@click.argument("path", metavar="FILE", type=click.Path(path_type=Path, allow_dash=True))
@click.argument("targets", metavar="[CHANNEL | CHANNEL=LOGGED...]", nargs=-1)
@click.option(
    "--map",
    "maps",
    metavar="LOGGED=CHANNEL",
    multiple=True,
    help="Send what the log has of LOGGED (a name or number) to CHANNEL. Repeatable.",
)
@click.option(
    "--filter",
    "filters",
    metavar="FILTER,...",
    callback=filters_of,
    help="Only frames that pass: id:mask or id~mask, as for dump.",
)
@click.option(
    "--speed",
    metavar="X",
    type=NotNegative(1e9),
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
    help="Play it this many times; i (infinite) for ever.",
)
@click.option(
    "-g",
    "gap_ms",
    metavar="MS",
    type=NotNegative(1e9),
    help="Ignore the timestamps: wait this many milliseconds between frames.",
)
@click.option(
    "--skip-gaps",
    metavar="SECONDS",
    type=NotNegative(1e9),
    help="Pauses of the recording that are longer last only this long.",
)
@click.option(
    "--from",
    "begin",
    metavar="MOMENT",
    callback=moment,
    help="Begin there: seconds from the first frame, or a time (ISO 8601).",
)
@click.option("--to", "end", metavar="MOMENT", callback=moment, help="End there; likewise.")
@click.option(
    "--strict",
    is_flag=True,
    help="Refuse a log with lines that are not frames, before anything is sent.",
)
@opens_channels("-b", "--bitrate")
def replay(  # noqa: PLR0913 - an option each
    *,
    path: Path,
    targets: tuple[str, ...],
    maps: tuple[str, ...],
    filters: FilterSet,
    speed: float,
    loop: int | None,
    gap_ms: float | None,
    skip_gaps: float | None,
    begin: Moment | None,
    end: Moment | None,
    strict: bool,
    opener: Opener,
) -> None:
    """Send the frames of a log in time, like canplayer.

    FILE is what candump -L or canbroker dump -L has written, or of any other format that
    canbroker reads: its suffix says so (blf, asc, trc, csv, db, parquet, pcapng, and others). - is
    standard input, as of candump. Its frames go to CHANNEL; or, for each assignment, those of its
    interface or number LOGGED to CHANNEL, and no others; or, with neither, to the channels that
    are named like its interfaces.

    Frames are sent ahead, and the channel keeps them until they are due. Ctrl-C takes back those
    that are waiting. Lines that are not frames are skipped, and counted on standard error at the
    end, as are frames that cannot be sent. Where the recording clock steps back, timing starts
    anew. A moment without a time zone is local time.

    \b
    Examples:
      canbroker replay drive.log can0
      canbroker replay drive.log --map can0=body --map can1=virtual.x --speed 2 -l i
      canbroker replay drive.blf --map 1=can0 --from 60 --to 90
      zcat drive.log.gz | canbroker replay - can0
    """
    count_damage_only()
    timing = timing_of(speed, None if gap_ms is None else gap_ms / 1000, skip_gaps)
    route = Route(target(targets, maps))
    with ExitStack() as stack:
        log = stack.enter_context(_opened(path, strict))
        try:
            choice = Choice(filters, Window(begin, end))
            look_through(log, route, strict=strict, loops=loop)
        except ValueError as error:
            raise click.UsageError(str(error)) from error
        told = stack.enter_context(replay_progress(f"replay {path.name}"))
        player = Player(route, opener.open, timing, choice, Stop(), told)
        stack.callback(_report, player)
        stack.enter_context(player)
        player.play(log, loop)


def _opened(path: Path, strict: bool) -> Log:
    """:raises CanInitializationError: the file cannot be read."""
    if path == _STANDARD_INPUT:
        if sys.stdin is None:  # the descriptor was closed when the process began
            raise CanInitializationError("standard input is closed")
        file = os.fdopen(sys.stdin.fileno(), "rb", closefd=False)
        return CandumpLog(file, "standard input", strict=strict)
    return open_log(path, strict=strict)


def _report(player: Player) -> None:
    """Says once what was not sent."""
    for line in player.report().lines():
        click.echo(f"canbroker: replay: {line}", err=True)
