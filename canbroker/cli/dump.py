"""``canbroker dump``."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Final, NamedTuple

import click

from canbroker.bus.tapping import tap
from canbroker.cli.common import COUNT, Opener, opens_channels
from canbroker.delivery.tap import (
    Dropped,
    Ended,
    Event,
    Frames,
    Interrupted,
    Missed,
    Restarted,
    Silent,
    Tap,
)
from canbroker.errors import CanOperationError
from canbroker.logs.candump import format_human, format_log_line, parse_dump_filters
from canbroker.model.filters import EVERYTHING, FilterSet
from canbroker.model.frame import EXTENDED, Frame
from canbroker.system import clock

_MICROSECOND: Final = 1000


class Wanted(NamedTuple):
    """A channel, and the filters for the frames to print."""

    channel: str
    filters: FilterSet


def wanted_channel(text: str) -> Wanted:
    """The channel and the filters of ``CHANNEL[,FILTER...]``, in candump's notation.

    :raises click.BadParameter: no channel, or a filter that does not parse.
    """
    channel, comma, filters = text.partition(",")
    if not channel:
        raise click.BadParameter(f"{text!r} names no channel")
    try:
        return Wanted(channel, parse_dump_filters(filters) if comma else EVERYTHING)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


@click.command()
@click.argument("wanted", metavar="CHANNEL[,FILTER...]...", type=wanted_channel, nargs=-1)
@click.option("-L", "log_form", is_flag=True, help="Log form, which replay reads.")
@click.option(
    "-t",
    "stamp",
    type=click.Choice(["a", "d", "z", "A"]),
    help="Timestamps: absolute, delta, from zero, Absolute with date.",
)
@click.option("-n", "count", metavar="N", type=COUNT, help="End after N frames.")
@click.option(
    "-T",
    "silence_ms",
    metavar="MS",
    type=COUNT,
    help="End after MS milliseconds without a frame.",
)
@opens_channels("-b", "--bitrate")
def dump(
    wanted: tuple[Wanted, ...],
    log_form: bool,
    stamp: str | None,
    count: int | None,
    silence_ms: int | None,
    opener: Opener,
) -> None:
    """Print the frames of channels, like candump.

    Ends with Ctrl-C, with -n or with -T. Lost frames are reported at the end, on standard error.

    \b
    Filters (hexadecimal), after the channel's name; a frame that passes one is printed:
      id:mask   received & mask == id & mask
      id~mask   received & mask != id & mask
      #mask     error frames of these classes; if there are filters, no others are printed
    An identifier of 8 digits is a 29-bit one; a mask with 80000000 compares the format.

    Differences from candump: filters cannot tell remote frames from data frames (40000000 in a
    mask) and cannot be joined (j); a channel must be named, "any" is not supported; -L writes to
    standard output, not to a file (-l, -f); -x, -e, -a and its other options are missing.

    \b
    Examples:
      canbroker dump can0 body,123:7FF,400:700,#FFFFFFFF
      canbroker dump -L -i slcan /dev/ttyACM0 -b 500000 > drive.log
    """
    if not wanted:
        raise click.UsageError("name at least one channel")
    lines = LogLines() if log_form else HumanLines(stamp, max(len(w.channel) for w in wanted))
    losses = Losses()
    with ExitStack() as stack:
        buses = [
            (channel, stack.enter_context(opener.open(channel, filters)))
            for channel, filters in wanted
        ]
        stream = stack.enter_context(tap(buses))
        try:
            _print(stream, lines, losses, count, None if silence_ms is None else silence_ms / 1000)
        finally:
            losses.report([channel for channel, _ in buses])


class LogLines:
    """Lines of ``candump -L``."""

    def line(self, channel: str, frame: Frame) -> str:
        return format_log_line(frame, channel)

    def text(self, event: Frames) -> str:
        return "".join(f"{self.line(event.channel, frame)}\n" for frame in event.frames)


class HumanLines:
    """Lines for a screen; each may depend on the lines before it."""

    def __init__(self, stamp: str | None, width: int) -> None:
        """``width``: length of the longest channel name; ``stamp``: as the option ``-t``."""
        self._stamp = stamp
        self._width = width
        self._align = False
        self._since_ns: int | None = None

    def line(self, channel: str, frame: Frame) -> str:
        self._align = self._align or bool(frame.flags & EXTENDED)
        text = format_human(frame, channel.rjust(self._width), align=self._align)
        return f" {self._time(frame.timestamp_ns)}{text}" if self._stamp else text

    def _time(self, now_ns: int) -> str:
        seconds, rest_ns = divmod(now_ns, clock.SECOND)
        match self._stamp:
            case "a":
                return f"({seconds:010}.{rest_ns // _MICROSECOND:06})"
            case "A":
                date = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
                return f"({date}.{rest_ns // _MICROSECOND:06})"
        since_ns = now_ns if self._since_ns is None else self._since_ns
        if self._stamp == "d" or self._since_ns is None:
            self._since_ns = now_ns
        # Frames of two adapters may not be in the order of their timestamps.
        seconds, rest_ns = divmod(max(0, now_ns - since_ns), clock.SECOND)
        return f"({seconds:03}.{rest_ns // _MICROSECOND:06})"


class Losses:
    """Counts what kept frames from being printed, for the report at the end."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, type[Event]]] = Counter()

    def add(self, event: Event) -> None:
        """Counts the frames of an event that tells how many there were, or else the event."""
        match event:
            case Missed(_, loss):
                count = loss.frames or 0
            case Dropped(_, number):
                count = number
            case _:
                count = 1
        self._counts[event.channel, type(event)] += count

    def report(self, channels: list[str]) -> None:
        """Writes a line for each kind of loss to standard error."""
        for channel in channels:
            for loss in self._of(channel):
                click.echo(f"canbroker: dump: {channel}: {loss}", err=True)

    def _of(self, channel: str) -> Iterator[str]:
        if count := self._counts[channel, Missed]:
            yield f"{count} frames lost: this program was too slow"
        if count := self._counts[channel, Dropped]:
            yield f"{count} frames lost before they reached the broker"
        if count := self._counts[channel, Restarted]:
            yield f"the channel was restarted {count} times; frames may have been missed"
        if count := self._counts[channel, Interrupted]:
            yield f"the adapter was away {count} times; frames on the bus were not received then"


def _print(
    stream: Tap,
    lines: LogLines | HumanLines,
    losses: Losses,
    count: int | None,
    silence_s: float | None,
) -> None:
    """Prints frames as they arrive, until there were ``count`` or none for ``silence_s`` seconds.

    :raises CanOperationError: a channel is gone.
    """
    left = count
    deadline = clock.deadline_after(silence_s)
    while left != 0 and (remaining_ns := clock.remaining_ns(deadline)) != 0:
        events = stream.receive(None if remaining_ns is None else remaining_ns / clock.SECOND)
        for event in events:
            match event:
                case Frames(channel, frames):
                    shown = frames[:left]
                    sys.stdout.writelines(f"{lines.line(channel, frame)}\n" for frame in shown)
                    left = None if left is None else left - len(shown)
                    deadline = clock.deadline_after(silence_s)
                case Ended(_, reason) | Silent(_, reason):
                    raise CanOperationError(reason)
                case _:
                    losses.add(event)
        sys.stdout.flush()  # a program that reads the output need not wait
