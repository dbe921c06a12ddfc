"""``canbroker simulate``."""

from __future__ import annotations

import sys
from typing import Any

import click

from canbroker.cli.common import NotNegative
from canbroker.simulator import SimulatorOptions, run
from canbroker.simulator.firmware import FIRMWARES


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
@click.option(
    "--firmware",
    type=click.Choice(list(FIRMWARES)),
    default="lawicel",
    show_default=True,
    help="What the adapter runs; each is written from its source or manual.",
)
@click.option(
    "--queue", metavar="N", type=click.IntRange(min=1), help="Frames that wait for the bus."
)
@click.option(
    "--boot",
    metavar="SECONDS",
    type=click.FloatRange(min=0),
    help="How long arduino and esp32 boot when the port is opened.",
)
@click.option(
    "--answer-delay",
    metavar="SECONDS",
    type=click.FloatRange(min=0),
    default=0.0,
    help="How late everything arrives that it says, as over Bluetooth.",
)
@click.option(
    "--timestamps/--no-timestamps", default=True, help="lawicel: it has time stamps (Z1)."
)
@click.option("--silent", is_flag=True, help="lawicel: it acknowledges nothing.")
@click.option(
    "--fault",
    "faults",
    metavar="WORDS",
    multiple=True,
    help='A command to begin with, --fault "drop 0.1". Repeatable.',
)
@click.option("--seed", type=int, default=0, help="Makes random faults repeat.")
def slcan(faults: tuple[str, ...], **options: Any) -> None:
    """Simulate a serial adapter on a pseudo-terminal.

    \b
    The firmware:
      lawicel           CANUSB: acknowledges everything, refuses with BEL
      canable           CANable's stock firmware: acknowledges nothing
      canable2          the same with CAN FD
      canable2-lawicel  CANable 2 with a firmware that acknowledges, CAN FD
      candapter         Ewert Energy: ACK for CR, x for 29-bit identifiers
      arduino           slcanuino: boots when the port opens, counts for time stamps
      esp32             mintynet's: boots with text, loses frames that come too fast

    The first line on standard output is the path to open. Commands are read from standard
    input, one a line: start, stats, accepted, receive FRAME (as for canbroker send), inject LINE,
    drop P, garble P, split on|off, bel N, noack N, hang SECONDS, unplug, replug, quit (P from 0
    to 1). Reports are lines of JSON. Ctrl-C ends it with its ledger.

    \b
    Example, in two terminals:
      canbroker simulate slcan --link /tmp/adapter --replay drive.log --loop
      canbroker dump -i slcan /tmp/adapter -b 500000
    """
    try:
        run(SimulatorOptions(faults=list(faults), **options), sys.stdout, sys.stdin)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
