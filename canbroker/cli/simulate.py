"""``canbroker simulate``."""

from __future__ import annotations

import sys
from typing import Any

import click

from canbroker.cli.common import NotNegative
from canbroker.simulator import SimulatorOptions, run


@click.group()
def simulate() -> None:
    """Simulate an adapter without hardware.

    \b
    Example:
      canbroker simulate slcan --replay drive.log --loop
    """


@simulate.command()
@click.option("--replay", metavar="FILE", help="A log of candump -L that the adapter receives.")
@click.option("--loop", is_flag=True, help="Replay it again and again.")
@click.option(
    "--rate",
    metavar="X",
    type=NotNegative(),
    default=1.0,
    show_default=True,
    help="Times as fast as recorded; 0 is as fast as it is read.",
)
@click.option("--paused", is_flag=True, help="Replay nothing before the command start.")
@click.option("--link", metavar="PATH", help="A symbolic link to keep on the device.")
@click.option("--timestamps/--no-timestamps", default=True, help="The adapter has timestamps (Z1).")
@click.option("--fd/--no-fd", default=True, help="It knows the CANable 2 dialect for CAN FD.")
@click.option("--silent", is_flag=True, help="It acknowledges nothing.")
@click.option(
    "--fault",
    "faults",
    metavar="WORDS",
    multiple=True,
    help='A command to begin with, --fault "drop 0.1". Repeatable.',
)
@click.option("--seed", type=int, default=0, help="Makes random faults repeat.")
def slcan(faults: tuple[str, ...], **options: Any) -> None:
    """Simulate a serial adapter (Lawicel protocol) on a pseudo-terminal.

    The first line on standard output is the path to open. Commands are read from standard
    input, one a line: start, stats, accepted, inject LINE, drop P, garble P, split on|off,
    bel N, noack N, hang SECONDS, unplug, replug, quit (P from 0 to 1). Reports are lines of
    JSON. Ctrl-C ends it with its ledger.

    \b
    Example, in two terminals:
      canbroker simulate slcan --link /tmp/adapter --replay drive.log --loop
      canbroker dump -i slcan /tmp/adapter -b 500000
    """
    try:
        run(SimulatorOptions(faults=list(faults), **options), sys.stdout, sys.stdin)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
