"""``canbroker record``."""

from __future__ import annotations

from pathlib import Path

import click

from canbroker.bus.history import recent_frames
from canbroker.cli import Failure
from canbroker.cli.common import NotNegative, broker_option
from canbroker.logs.candump import format_log_line


@click.command()
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
def record(channel: str, seconds: float, output: Path | None, broker: str | None) -> None:
    """Write what was on a channel just now.

    The lines are those of candump -L. Every channel keeps its recent frames, 16 MiB and 60 s of
    them unless configured: those that passed the filters of any client. CHANNEL is the broker's
    name for it, as canbroker status shows it. A channel whose process was killed and replaced has
    its predecessor's frames, too.

    \b
    Examples:
      canbroker record --last 30 can0 -o before-the-fault.log
      canbroker record virtual.x | grep 451#
    """
    frames = recent_frames(broker, channel, seconds)
    text = "".join(f"{format_log_line(frame, channel)}\n" for frame in frames)
    if output is None:
        click.echo(text, nl=False)
        return
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise Failure(f"cannot write {output}: {error.strerror}") from error
    click.echo(f"{len(frames)} frames in {output}", err=True)
