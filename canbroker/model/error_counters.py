"""The error counters of a CAN controller (ISO 11898-1:2015, 12.1.4)."""

from __future__ import annotations

from typing import Annotated, Final, NamedTuple

import msgspec

from canbroker.model.frame import ERROR, Frame

_Count = Annotated[int, msgspec.Meta(ge=0)]

#: CAN_ERR_CNT of linux/can/error.h: data[6] and data[7] are the counters.
_HAS_COUNTERS: Final = 0x200


class ErrorCounters(NamedTuple):
    """A controller's counters: error-warning from 96 on, error-passive from 128 on, bus-off from
    256 on ``transmit``."""

    transmit: _Count
    receive: _Count


def counters_in(frame: Frame) -> ErrorCounters | None:
    """The counters that an error frame reports, which end at 255; ``None`` if it has none."""
    data = frame.data
    if not frame.flags & ERROR or isinstance(data, int) or len(data) < 8:
        return None
    # Older kernels fill the counters in without the class bit.
    if frame.arbitration_id & _HAS_COUNTERS or data[6] or data[7]:
        return ErrorCounters(data[6], data[7])
    return None
