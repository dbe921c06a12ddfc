"""``canbroker demo``."""

from __future__ import annotations

from pathlib import Path

import click

from canbroker.cli.common import NotNegative
from canbroker.demo.run import run


@click.command()
@click.option(
    "--trace",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="A log of candump -L. Default: a made-up vehicle's traffic.",
)
@click.option(
    "--speed",
    metavar="X",
    type=NotNegative(),
    default=1.0,
    show_default=True,
    help="Times as fast as recorded; 0 is as fast as possible.",
)
@click.pass_context
def demo(ctx: click.Context, trace: Path | None, speed: float) -> None:
    """Show one adapter shared by many processes.

    A simulated adapter replays traffic, client processes with different filters receive it,
    and a ledger at the end shows that nothing was lost. Needs no hardware.

    \b
    Example:
      canbroker demo --trace drive.log
    """
    ctx.exit(run(trace, speed))
