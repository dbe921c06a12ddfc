"""Frames as the kernel's raw CAN sockets carry them. Layouts and numbers: ``linux/can.h``."""

from __future__ import annotations

import struct
from typing import Final

from canbroker.model.frame import (
    BITRATE_SWITCH,
    ERROR,
    ERROR_STATE_INDICATOR,
    EXTENDED,
    FD,
    REMOTE,
    Frame,
)

CAN_EFF_FLAG: Final = 0x80000000
CAN_RTR_FLAG: Final = 0x40000000
CAN_ERR_FLAG: Final = 0x20000000
CAN_EFF_MASK: Final = 0x1FFFFFFF
CAN_SFF_MASK: Final = 0x7FF

CAN_MTU: Final = 16
CANFD_MTU: Final = 72

_CANFD_BRS: Final = 1
_CANFD_ESI: Final = 2
_CANFD_FDF: Final = 4

_CLASSIC = struct.Struct("=IB3x8s")  # struct can_frame
_FD = struct.Struct("=IBB2x64s")  # struct canfd_frame
_HEADER = struct.Struct("=IB")
_DATA_AT: Final = 8


def can_id_of(arbitration_id: int, flags: int) -> int:
    """Identifier and format in one number, as filters see them (without the remote bit)."""
    return arbitration_id | CAN_EFF_FLAG if flags & EXTENDED else arbitration_id


def encode(frame: Frame) -> bytes:
    """The valid frame as it is written to a socket, and as its confirmation comes back."""
    can_id = can_id_of(frame.arbitration_id, frame.flags)
    if isinstance(frame.data, int):
        return _CLASSIC.pack(can_id | CAN_RTR_FLAG, frame.data, b"")
    if frame.flags & FD:
        # Newer kernels set FDF if it is missing; with it the confirmation is the same bytes.
        bits = _CANFD_FDF
        if frame.flags & BITRATE_SWITCH:
            bits |= _CANFD_BRS
        if frame.flags & ERROR_STATE_INDICATOR:
            bits |= _CANFD_ESI
        return _FD.pack(can_id, len(frame.data), bits, frame.data)
    return _CLASSIC.pack(can_id, len(frame.data), frame.data)


def decode(wire: bytes, timestamp_ns: int, flags: int = 0) -> Frame:
    """The frame that was read from a socket; ``flags`` are added to its own.

    An error frame (``ERROR``) has its class bits as ``arbitration_id``.
    """
    can_id, length = _HEADER.unpack_from(wire)
    if len(wire) == CANFD_MTU:
        flags |= FD
        if wire[5] & _CANFD_BRS:
            flags |= BITRATE_SWITCH
        if wire[5] & _CANFD_ESI:
            flags |= ERROR_STATE_INDICATOR
    if can_id > CAN_EFF_MASK:  # any of the three flags
        if can_id & CAN_ERR_FLAG:
            flags |= ERROR
        elif can_id & CAN_EFF_FLAG:
            flags |= EXTENDED
        if can_id & CAN_RTR_FLAG:
            return Frame(timestamp_ns, can_id & CAN_EFF_MASK, flags | REMOTE, min(length, 8))
        can_id &= CAN_EFF_MASK
    return Frame(timestamp_ns, can_id, flags, wire[_DATA_AT : _DATA_AT + length])
