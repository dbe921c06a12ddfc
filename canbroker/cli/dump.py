"""``canbroker dump``."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from canbroker.bus.databases import channel_decoder
from canbroker.bus.tapping import tap
from canbroker.cli.common import COUNT, Opener, databases_option, opens_channels
from canbroker.cli.lines import DecodedLines, Decoding, HumanLines, JsonLines, Lines, LogLines
from canbroker.client import Bus
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
from canbroker.errors import CanInitializationError, CanOperationError
from canbroker.logs.candump import parse_dump_filters
from canbroker.model.filters import EVERYTHING, FilterSet
from canbroker.signals import load_databases
from canbroker.system import clock
from canbroker.system.imports import without

if TYPE_CHECKING:
    from canbroker.signals.decoder import Decoder


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
@databases_option("Decode signals.")
@click.option("--decode", is_flag=True, help="Decode signals by the channels' own databases.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object for each frame.")
@opens_channels("-b", "--bitrate")
def dump(  # noqa: PLR0913, PLR0917 - an argument for each option
    wanted: tuple[Wanted, ...],
    log_form: bool,
    stamp: str | None,
    count: int | None,
    silence_ms: int | None,
    databases: tuple[Path, ...],
    decode: bool,
    as_json: bool,
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

    With --dbc or --decode, " ::" and the message with its signals follow in each line, as "cantools
    decode --single-line" writes them. Frames whose data is not that of their message are counted,
    and reported at the end, too.

    Differences from candump: filters cannot tell remote frames from data frames (40000000 in a
    mask) and cannot be joined (j); a channel must be named, "any" is not supported; -L writes to
    standard output, not to a file (-l, -f); -x, -e, -a and its other options are missing.

    \b
    Examples:
      canbroker dump can0 body,123:7FF,400:700,#FFFFFFFF
      canbroker dump -L -i slcan /dev/ttyACM0 -b 500000 > drive.log
      canbroker dump --dbc car.dbc can0
      canbroker dump --decode --json can0 | jq .signals
    """
    if not wanted:
        raise click.UsageError("name at least one channel")
    if as_json and (log_form or stamp):
        raise click.UsageError("--json cannot be combined with -L or -t")
    with without("asammdf"):  # python-can, which cantools imports, loads it and with it pandas
        given = load_databases(databases) if databases else None
    losses = Losses()
    decoding: Decoding | None = None
    with ExitStack() as stack:
        buses = [
            (channel, stack.enter_context(opener.open(channel, filters)))
            for channel, filters in wanted
        ]
        if given is not None or decode:
            with without("asammdf"):
                decoding = _decoding(buses, given)
        lines: Lines
        if as_json:
            lines = JsonLines(decoding)
        else:
            width = max(len(channel) for channel, _ in buses)
            lines = LogLines() if log_form else HumanLines(stamp, width)
            lines = lines if decoding is None else DecodedLines(lines, decoding)
        stream = stack.enter_context(tap(buses))
        try:
            _print(stream, lines, losses, count, None if silence_ms is None else silence_ms / 1000)
        finally:
            losses.report([channel for channel, _ in buses])
            for sentence in decoding.report() if decoding else ():
                click.echo(f"canbroker: dump: {sentence}", err=True)


def _decoding(buses: Sequence[tuple[str, Bus]], given: Decoder | None) -> Decoding:
    """Decodes by ``given``, or else by the databases that the broker has for the channels.

    :raises CanInitializationError: a channel has none.
    """
    if given is not None:
        return Decoding({channel: given for channel, _ in buses})
    decoders = {}
    for channel, bus in buses:
        decoder = channel_decoder(bus)
        if decoder is None:
            raise CanInitializationError(
                f"channel {channel!r} has no database: give one with --dbc, or with database = "
                f"[...] in the broker's configuration"
            )
        decoders[channel] = decoder
    return Decoding(decoders)


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
    lines: Lines,
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
