"""``canbroker record CHANNEL``: what was on a channel just now."""

from __future__ import annotations

from pathlib import Path

import click

from canbroker.bus.history import recent_frames
from canbroker.cli import Failure
from canbroker.cli.common import NotNegative, broker_option
from canbroker.cli.dump import LogLines


@click.command("record")
@click.argument("channel")
@click.option(
    "--last",
    "seconds",
    metavar="SECONDS",
    type=NotNegative(86_400),
    default=10.0,
    show_default=True,
    help="How far back.",
)
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write there. Default: standard output.",
)
@broker_option
def last(channel: str, seconds: float, output: Path | None, broker: str | None) -> None:
    """Write the recent frames of a channel.

    The lines are those of candump -L. Every channel keeps its recent frames that passed the
    filters of any client, up to 16 MiB and 60 s unless configured otherwise. If its process was
    killed and replaced, the frames of the old process are still there. CHANNEL is the broker's
    name for the channel, as canbroker status shows it.

    \b
    Examples:
      canbroker record --last 30 can0 -o before-the-fault.log
      canbroker record virtual.x | grep 451#
    """
    recent = recent_frames(broker, channel, seconds)
    text = LogLines().text(recent)
    if output is None:
        click.echo(text, nl=False)
        return
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise Failure(f"cannot write {output}: {error.strerror}") from error
    click.echo(f"{len(recent.frames)} frames in {output}", err=True)
