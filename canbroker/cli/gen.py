"""``canbroker gen``."""

from __future__ import annotations

from itertools import islice
from typing import Any

import click

from canbroker.cli.common import COUNT, NotNegative, Opener, opens_channels, outgoing
from canbroker.logs.pacing import due_together
from canbroker.simulator.traffic import GenOptions, random_frames
from canbroker.system import clock


@click.command()
@click.argument("channel")
@click.option(
    "-g",
    "gap_ms",
    metavar="MS",
    type=NotNegative(1e9),
    default=200.0,
    show_default=True,
    help="Milliseconds from frame to frame; 0 is as fast as the channel takes them.",
)
@click.option("-n", "count", metavar="N", type=COUNT, help="End after N frames.")
@click.option("-I", "identifier", metavar="ID", default="r", help="Hex, or r, e, o, i.")
@click.option(
    "-L", "length", metavar="LENGTH", default="r", help="Bytes (at most 8, FD 64), or r, i."
)
@click.option("-D", "data", metavar="DATA", default="r", help="Hex (x: any digit), or r, i.")
@click.option("-e", "extended", is_flag=True, help="29-bit identifiers.")
@click.option("-f", "fd", is_flag=True, help="CAN FD frames.")
@click.option("-b", "bitrate_switch", is_flag=True, help="CAN FD with bitrate switch.")
@click.option("-E", "error_state_indicator", is_flag=True, help="CAN FD with error state.")
@click.option("-R", "remote", is_flag=True, help="Remote frames.")
@click.option("-m", "mix", is_flag=True, help="Extended, FD and remote frames at random.")
@opens_channels("--bitrate")
def gen(channel: str, gap_ms: float, count: int | None, opener: Opener, **content: Any) -> None:
    """Send made-up frames, like cangen.

    Modes of identifier, length and data: r random, i one more each time; for the identifier
    also e random even, o random odd.

    \b
    Examples:
      canbroker gen can0
      canbroker gen can0 -g 10 -n 1000 -I 42 -L 8 -D i
    """
    try:
        options = GenOptions(**content)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    gap_ns = gap_ms * clock.MILLISECOND
    frames = islice(random_frames(options), count)
    with opener.open(channel) as bus:
        timed = ((round(number * gap_ns), frame) for number, frame in enumerate(frames))
        for due in due_together(timed):
            bus.send_batch(map(outgoing, due))
        bus.flush()
