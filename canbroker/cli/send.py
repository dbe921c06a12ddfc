"""``canbroker send``."""

from __future__ import annotations

from typing import Final

import click

from canbroker.cli.common import Opener, opens_channels, outgoing
from canbroker.logs.candump import parse_frame
from canbroker.model.frame import Frame

#: A driver that works takes a frame at once; a busy bus may need the time.
_TAKEN_S: Final = 1.0


def spelled_frame(text: str) -> Frame:
    """The frame that ``text`` spells in cansend's notation.

    :raises click.BadParameter: none.
    """
    try:
        return parse_frame(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


@click.command()
@click.argument("channel")
@click.argument("frames", metavar="FRAME...", type=spelled_frame, nargs=-1, required=True)
@opens_channels("-b", "--bitrate")
def send(channel: str, frames: tuple[Frame, ...], opener: Opener) -> None:
    """Send frames, like cansend.

    The exit code is 0 when the driver has taken every frame.

    \b
    FRAME is
      123#DEADBEEF       data, 11-bit identifier (dots between bytes are fine)
      18FEF100#11        data, 29-bit identifier (8 digits)
      123#R  123#R4      remote frame, and one that asks for 4 bytes
      123##1001122       CAN FD; the digit after ## is 1 for bitrate switch, 2 for error state
    Not as cansend: no raw length codes (the suffix _9 to _F), no CAN XL.

    \b
    Examples:
      canbroker send can0 123#DE.AD.BE.EF
      canbroker send -i slcan /dev/ttyACM0 -b 500000 7DF#0201050000000000
    """
    with opener.open(channel) as bus:
        bus.send_batch(map(outgoing, frames), timeout=_TAKEN_S)
