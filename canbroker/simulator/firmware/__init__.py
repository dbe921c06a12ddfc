"""What each kind of serial adapter does with the bytes that a host writes.

One module per firmware, written from its source or its manual, which the first lines name;
oddities are part of it. :mod:`.base` has what they share, :mod:`.sketch` what the two sketches
for microcontroller boards share.
"""

from __future__ import annotations

from typing import Final

from canbroker.simulator.firmware.arduino import Arduino
from canbroker.simulator.firmware.base import Firmware, State
from canbroker.simulator.firmware.canable import Canable
from canbroker.simulator.firmware.canable2 import Canable2
from canbroker.simulator.firmware.canable2_lawicel import Canable2Lawicel
from canbroker.simulator.firmware.candapter import Candapter
from canbroker.simulator.firmware.esp32 import Esp32
from canbroker.simulator.firmware.lawicel import Lawicel
from canbroker.simulator.options import SimulatorOptions

__all__ = ["FIRMWARES", "Firmware", "State", "create"]

FIRMWARES: Final[dict[str, type[Firmware]]] = {
    "lawicel": Lawicel,
    "canable": Canable,
    "canable2": Canable2,
    "canable2-lawicel": Canable2Lawicel,
    "candapter": Candapter,
    "arduino": Arduino,
    "esp32": Esp32,
}


def create(options: SimulatorOptions) -> Firmware:
    """The adapter that the options name.

    :raises ValueError: the firmware is unknown; the message names the known ones.
    """
    if options.firmware not in FIRMWARES:
        raise ValueError(
            f"firmware must be one of {', '.join(FIRMWARES)}, got {options.firmware!r}"
        )
    return FIRMWARES[options.firmware](options)
