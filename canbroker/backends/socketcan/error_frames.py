"""What a controller reports in error frames, in words. Numbers: ``linux/can/error.h``."""

from __future__ import annotations

from typing import Final

from canbroker.backends.base import BusCondition
from canbroker.model.frame import Frame

#: CAN_ERR_MASK: every class of error frames
ALL_CLASSES: Final = 0x1FFFFFFF

_LOSTARB: Final = 0x02
_CRTL: Final = 0x04
_PROT: Final = 0x08
_TRX: Final = 0x10
_BUSOFF: Final = 0x40
_RESTARTED: Final = 0x100
_CNT: Final = 0x200

#: Classes that have nothing more to say: bit -> (kind for counting, words).
_PLAIN: Final = {
    0x01: ("tx_timeout", "transmit timeout"),
    0x20: ("no_ack", "no acknowledgement"),
    _BUSOFF: ("bus_off", "bus-off"),
    0x80: ("bus_error", "bus error"),
    _RESTARTED: ("restarted", "controller restarted"),
}
#: data[1]
_CONTROLLER: Final = {
    0x01: ("rx_overrun", "receive overrun"),
    0x02: ("tx_overrun", "transmit overrun"),
    0x04: ("error_warning", "receive error warning"),
    0x08: ("error_warning", "transmit error warning"),
    0x10: ("error_passive", "receive error passive"),
    0x20: ("error_passive", "transmit error passive"),
    0x40: ("error_active", "error active again"),
}
_OVERRUN: Final = 0x01
_WARNING: Final = 0x0C
_PASSIVE: Final = 0x30
_ACTIVE: Final = 0x40
#: data[2]
_VIOLATION: Final = {
    0x01: "single bit",
    0x02: "frame format",
    0x04: "bit stuffing",
    0x08: "cannot send a dominant bit",
    0x10: "cannot send a recessive bit",
    0x20: "overload",
    0x40: "active error announced",
    0x80: "while sending",
}
#: data[3]; the field of the frame in which a violation was seen
_FIELD: Final = {
    0x02: "identifier bits 28-21",
    0x03: "start of frame",
    0x04: "SRR/RTR bit",
    0x05: "IDE bit",
    0x06: "identifier bits 20-18",
    0x07: "identifier bits 17-13",
    0x08: "CRC",
    0x09: "reserved bit 0",
    0x0A: "data",
    0x0B: "data length code",
    0x0C: "RTR bit",
    0x0D: "reserved bit 1",
    0x0E: "identifier bits 4-0",
    0x0F: "identifier bits 12-5",
    0x12: "intermission",
    0x18: "CRC delimiter",
    0x19: "acknowledge slot",
    0x1A: "end of frame",
    0x1B: "acknowledge delimiter",
}
#: data[4]: CANH in the low half, CANL in the high one
_WIRES: Final = {
    0x04: "CANH has no wire",
    0x05: "CANH shorted to battery",
    0x06: "CANH shorted to supply",
    0x07: "CANH shorted to ground",
    0x40: "CANL has no wire",
    0x50: "CANL shorted to battery",
    0x60: "CANL shorted to supply",
    0x70: "CANL shorted to ground",
    0x80: "CANL shorted to CANH",
}


def error_causes(frame: Frame) -> list[tuple[str, str]]:
    """Each cause that an error frame names: ``(kind for counting, words)``."""
    data = _data(frame)
    classes = frame.arbitration_id
    causes = [cause for bit, cause in _PLAIN.items() if classes & bit]
    if classes & _LOSTARB:
        where = f" at bit {data[0]}" if data[0] else ""
        causes.append(("arbitration_lost", f"arbitration lost{where}"))
    if classes & _CRTL:
        named = [cause for bit, cause in _CONTROLLER.items() if data[1] & bit]
        causes.extend(named or [("controller", "controller problem")])
    if classes & _PROT:
        causes.append(("protocol", _violation(data)))
    if classes & _TRX:
        wires = [_WIRES[half] for half in (data[4] & 0x0F, data[4] & 0xF0) if half in _WIRES]
        causes.append(("transceiver", ", ".join(["transceiver", *wires])))
    return causes


def describe_error(frame: Frame) -> str:
    """An error frame in words, with the controller's error counters when it has them."""
    data = _data(frame)
    words = ", ".join(words for _, words in error_causes(frame)) or "unknown error"
    # Older kernels fill the counters in without the class bit.
    if frame.arbitration_id & _CNT or data[6] or data[7]:
        words += f" (transmit errors {data[6]}, receive errors {data[7]})"
    return words


def is_overrun(frame: Frame) -> bool:
    """Whether the controller had to drop a received frame."""
    return bool(frame.arbitration_id & _CRTL and _data(frame)[1] & _OVERRUN)


def condition_after(frame: Frame, before: BusCondition) -> BusCondition:
    """What is known of the bus after this error frame."""
    classes, controller = frame.arbitration_id, _data(frame)[1]
    if classes & _BUSOFF:
        return BusCondition(off=True, reason=describe_error(frame))
    if classes & _CRTL and controller & (_WARNING | _PASSIVE):
        return BusCondition(reason=describe_error(frame))
    if classes & _RESTARTED or (classes & _CRTL and controller & _ACTIVE):
        return BusCondition()
    return before


def _violation(data: bytes) -> str:
    kinds = [words for bit, words in _VIOLATION.items() if data[2] & bit]
    where = f" in {_FIELD[data[3]]}" if data[3] in _FIELD else ""
    return f"protocol violation: {', '.join(kinds) or 'unspecified'}{where}"


def _data(frame: Frame) -> bytes:
    """Eight bytes, whatever came."""
    return frame.data.ljust(8, b"\0") if isinstance(frame.data, bytes) else bytes(8)
