"""``canbroker dump``."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from typing import Final, NamedTuple

import click

from canbroker.cli.common import COUNT, Opener, opens_channels
from canbroker.cli.merging import Source, merge
from canbroker.cli.timed import TimedBus, TimedMessage
from canbroker.client import BusStats
from canbroker.logs.candump import format_human, format_log_line, parse_dump_filters
from canbroker.model.filters import EVERYTHING, FilterSet
from canbroker.model.frame import EXTENDED, Frame
from canbroker.model.message import Message, received_frame
from canbroker.system import clock

_MICROSECOND: Final = 1000


class Wanted(NamedTuple):
    """A channel, and what of it to print."""

    channel: str
    filters: FilterSet


def wanted_channel(text: str) -> Wanted:
    """What ``CHANNEL[,FILTER...]`` says, with candump's filters.

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

    Ends with Ctrl-C, with -n or with -T. What was lost is reported at the end, on standard
    error.

    \b
    Filters (hexadecimal), after the channel's name; a frame that passes one is printed:
      id:mask   received & mask == id & mask
      id~mask   received & mask != id & mask
      #mask     error frames of these classes; without it there are none, but with no filter
    An identifier of 8 digits is a 29-bit one; a mask with 80000000 compares the format.

    Not as candump: no filter tells remote frames from data frames (40000000 in a mask) or is
    joined with others (j); a channel is named, never "any"; -L writes to standard output, not
    to a file (-l, -f); -x, -e, -a and its other options are missing.

    \b
    Examples:
      canbroker dump can0 body,123:7FF,400:700,#FFFFFFFF
      canbroker dump -L -i slcan /dev/ttyACM0 -b 500000 > drive.log
    """
    if not wanted:
        raise click.UsageError("name a channel at least")
    lines = LogLines() if log_form else HumanLines(stamp, max(len(w.channel) for w in wanted))
    with ExitStack() as stack:
        sources = [
            Source(channel, stack.enter_context(opener.open(channel, filters, TimedBus)))
            for channel, filters in wanted
        ]
        try:
            _print(lines, merge(sources, None if silence_ms is None else silence_ms / 1000), count)
        finally:
            _report_losses(sources)


class LogLines:
    """Lines of ``candump -L``."""

    def line(self, channel: str, frame: Frame) -> str:
        return format_log_line(frame, channel)


class HumanLines:
    """Lines for a screen; remembers what the next line depends on."""

    def __init__(self, stamp: str | None, width: int) -> None:
        """``width`` is that of the longest channel name; ``stamp`` as the option ``-t``."""
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
        # Frames of two adapters may come in another order than their timestamps.
        seconds, rest_ns = divmod(max(0, now_ns - since_ns), clock.SECOND)
        return f"({seconds:03}.{rest_ns // _MICROSECOND:06})"


def timed_frame(message: Message) -> Frame:
    """The frame that a received message was.

    Unchecked, unlike a frame to send: whatever an adapter has received is shown.
    """
    frame = received_frame(message)
    assert isinstance(message, TimedMessage), "of a TimedBus"  # noqa: S101
    frame.timestamp_ns = message.timestamp_ns
    return frame


def _print(
    lines: LogLines | HumanLines,
    batches: Iterable[list[tuple[str, Message]]],
    count: int | None,
) -> None:
    """Prints batch by batch, so that whoever reads the output waits for nothing."""
    left = count
    for batch in batches:
        shown = batch[:left]
        sys.stdout.writelines(
            f"{lines.line(channel, timed_frame(message))}\n" for channel, message in shown
        )
        sys.stdout.flush()
        if left is not None:
            left -= len(shown)
            if not left:
                return


def _report_losses(sources: list[Source]) -> None:
    for channel, bus in sources:
        for loss in _losses(bus.stats):
            click.echo(f"canbroker: dump: {channel}: {loss}", err=True)


def _losses(stats: BusStats) -> Iterator[str]:
    if stats.lost:
        yield f"{stats.lost} frames lost: this program was too slow"
    if stats.dropped_upstream:
        yield f"{stats.dropped_upstream} frames lost before they reached the broker"
    if stats.restarts:
        yield f"the channel was restarted {stats.restarts} times; frames may have been missed"
    if stats.interruptions:
        yield f"the adapter was away {stats.interruptions} times; nobody received what came then"
