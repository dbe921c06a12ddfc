"""``canbroker replay``."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import click

from canbroker.cli.common import NotNegative, Opener, opens_channels, outgoing
from canbroker.cli.progress import progress
from canbroker.client import Bus
from canbroker.errors import CanInitializationError
from canbroker.logs.candump import LogEntry
from canbroker.logs.pacing import Pace
from canbroker.logs.reader import LogReader, RecordedTime
from canbroker.model.frame import ERROR
from canbroker.model.message import Message
from canbroker.system import clock

#: What stands for standard input, as a file.
_STANDARD_INPUT: Final = Path("-")


@click.command()
@click.argument("path", metavar="FILE", type=click.Path(path_type=Path, allow_dash=True))
@click.argument("targets", metavar="[CHANNEL | CHANNEL=LOGGED...]", nargs=-1)
@click.option(
    "--speed",
    metavar="X",
    type=NotNegative(),
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
    type=NotNegative(1e9),
    help="Ignore the timestamps: wait this many milliseconds between frames.",
)
@click.option(
    "--strict",
    is_flag=True,
    help="Refuse a log with lines that are not frames, before anything is sent.",
)
@opens_channels("-b", "--bitrate")
def replay(
    path: Path,
    targets: tuple[str, ...],
    speed: float,
    loop: int | None,
    gap_ms: float | None,
    strict: bool,
    opener: Opener,
) -> None:
    """Send the frames of a log in time, like canplayer.

    FILE is what candump -L or canbroker dump -L has written, - is standard input. Its frames go
    to CHANNEL; or, for each assignment, those of its interface LOGGED to CHANNEL, and no others;
    or, with neither, to the channels that are named like its interfaces.

    Lines that are not frames are skipped, and counted on standard error at the end. Where the
    recording clock steps back, timing starts anew.

    \b
    Examples:
      canbroker replay drive.log can0
      canbroker replay drive.log body=can0 virtual.x=can1 --speed 2 -l i
      zcat drive.log.gz | canbroker replay - can0
    """
    route = Route(targets)
    timing = EvenTime(gap_ms) if gap_ms is not None else RecordedTime(speed)
    with ExitStack() as stack:
        log = stack.enter_context(_opened(path, strict))
        if not log.seekable and loop != 1:
            raise click.UsageError(f"{log.name} can be played once only")
        if log.seekable:
            _look_through(log, route, strict)
        player = stack.enter_context(Player(route, opener, timing))
        stack.callback(_report, log, player)
        with progress(f"replay {log.name}", None) as advance:
            for number in itertools.count() if loop is None else range(loop):
                if number:
                    timing.restart()
                for batch in log.batches():
                    player.play(batch, advance)
                player.end_reading(log.name)
                if not player.sent:
                    break
        player.flush()


def loop_count(text: str) -> int | None:
    """How often to play; ``None`` is for ever.

    :raises click.BadParameter: neither a number above 0 nor ``i``.
    """
    if text in {"i", "infinite"}:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 18 or int(text) < 1:
        raise click.BadParameter(f"{text!r} is neither a number above 0 nor i (infinite)")
    return int(text)


class Route:
    """Where the frames of a log go: one channel, one for each assigned interface, or by name."""

    def __init__(self, targets: Iterable[str]) -> None:
        """:raises click.UsageError: arguments that do not fit together."""
        #: Channels by the interfaces of the log that are assigned to them.
        self.assigned: dict[str, str] = {}
        self._only: str | None = None
        pairs = [target.rpartition("=") for target in targets]  # as canplayer: where to, what
        if len(pairs) == 1 and not pairs[0][1]:
            self._only = pairs[0][2]
            return
        for channel, _, interface in pairs:
            if not interface or not channel:
                raise click.UsageError("give one CHANNEL, or assignments CHANNEL=LOGGED")
            self.assigned[interface] = channel

    def channel(self, interface: str) -> str | None:
        """Where the frames of an interface go; ``None``: they are not sent."""
        if self._only is not None:
            return self._only
        return self.assigned.get(interface) if self.assigned else interface


class EvenTime:
    """When each frame is due that follows the one before it at a fixed distance."""

    def __init__(self, gap_ms: float) -> None:
        self._gap_ns = gap_ms * clock.MILLISECOND
        self._count = 0

    def due_ns(self, _timestamp_ns: int) -> int:
        self._count += 1
        return round((self._count - 1) * self._gap_ns)

    def restart(self) -> None:
        """The log starts again, at the same distance from its last frame."""


class Player:
    """Sends the entries of a log when they are due. One thread; closes the channels it opened."""

    def __init__(self, route: Route, opener: Opener, timing: RecordedTime | EvenTime) -> None:
        #: Those of the first reading, which are not sent.
        self.error_frames = 0
        self.sent = 0
        self._route = route
        self._opener = opener
        self._timing = timing
        self._pace = Pace()
        self._opened = ExitStack()
        self._buses: dict[str, Bus] = {}  # by channel
        self._unseen = set(route.assigned)
        self._is_first_reading = True

    def __enter__(self) -> Player:
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def play(self, batch: list[LogEntry], advance: Callable[[int], None]) -> None:
        """Returns when the last entry has been sent. Time stands still while channels are opened.

        :param advance: is told how many frames have been sent.
        :raises CanError: a channel cannot be opened, or does not take a frame.
        """
        playable: list[tuple[int, LogEntry]] = []
        channels = dict.fromkeys(self._route.assigned.values())  # at once, used so far or not
        for entry in batch:
            channel = self._route.channel(entry.interface)
            self._unseen.discard(entry.interface)
            if channel is None:
                continue
            if entry.frame.flags & ERROR:
                self.error_frames += self._is_first_reading
                continue
            channels[channel] = None
            playable.append((self._timing.due_ns(entry.timestamp_ns), entry))
        self._open(channels)
        for due in self._pace.due_together(playable):
            self._send(due)
            self.sent += len(due)
            advance(len(due))

    def end_reading(self, name: str) -> None:
        """The log ``name`` was read to its end.

        :raises CanInitializationError: it has not had an interface that is assigned.
        """
        self._is_first_reading = False
        if self._unseen:
            raise CanInitializationError(f"{name} has no interface {min(self._unseen)!r}")

    def flush(self) -> None:
        """Returns when all has been sent."""
        for bus in self._buses.values():
            bus.flush()

    def _open(self, channels: Iterable[str]) -> None:
        missing = [channel for channel in channels if channel not in self._buses]
        if missing:
            with self._pace.standing_still():
                for channel in missing:
                    self._buses[channel] = self._opened.enter_context(self._opener.open(channel))

    def _send(self, due: list[LogEntry]) -> None:
        """Sends what is due, in one request for each bus."""
        batches: dict[Bus, list[Message]] = {}
        for entry in due:
            channel = self._route.channel(entry.interface)
            if channel is not None:
                batches.setdefault(self._buses[channel], []).append(outgoing(entry.frame))
        for bus, messages in batches.items():
            bus.send_batch(messages)


def _opened(path: Path, strict: bool) -> LogReader:
    """:raises CanInitializationError: the file cannot be read."""
    if path == _STANDARD_INPUT:
        if sys.stdin is None:  # the descriptor was closed when the process began
            raise CanInitializationError("standard input is closed")
        file = os.fdopen(sys.stdin.fileno(), "rb", closefd=False)
        return LogReader(file, "standard input", strict=strict)
    return LogReader.open(path, strict=strict)


def _look_through(log: LogReader, route: Route, strict: bool) -> None:
    """Finds what can be found before anything is sent.

    :raises click.UsageError: an assigned interface is not in the log.
    :raises CanInitializationError: a line is not a frame, and ``strict``; or no line is one.
    """
    if strict:
        for _ in log.batches():
            pass
    if route.assigned:
        missing, logged = log.missing(set(route.assigned))
        if missing:
            has = ", ".join(logged) or "none"
            raise click.UsageError(f"{log.name} has no interface {min(missing)!r}; it has: {has}")


def _report(log: LogReader, player: Player) -> None:
    """Says once what of the log was not sent."""
    if log.skipped and log.found:
        click.echo(f"canbroker: replay: {log.name}: {log.skipped}", err=True)
    if player.error_frames:
        click.echo(f"canbroker: replay: {player.error_frames} error frames are not sent", err=True)
