"""python-can's messages and our frames."""

from __future__ import annotations

import math
from typing import Final

import can

from canbroker.backends.python_can.adapter_clock import AdapterClock
from canbroker.backends.python_can.known import ErrorFrames
from canbroker.model.frame import (
    BITRATE_SWITCH,
    ERROR,
    ERROR_STATE_INDICATOR,
    EXTENDED,
    FD,
    REMOTE,
    Frame,
    frame_fault,
    padded_fd,
)
from canbroker.system import clock

#: A stamp this far from now is ignored: some drivers have no clock, or one that starts with them.
_PLAUSIBLE_NS: Final = 60 * clock.SECOND


class MessageError(ValueError):
    """A driver returned something that is not a message that a bus can carry."""


def to_frame(
    message: object,
    wall_ns: int,
    error_frames: ErrorFrames = ErrorFrames.SOCKETCAN,
    adapter_clock: AdapterClock | None = None,
) -> Frame:
    """The frame of a driver's message, which was returned at ``wall_ns``.

    ``error_frames``: what its driver's are. ``adapter_clock`` reads its time stamp; without one
    a stamp near ``wall_ns`` is kept.

    :raises MessageError: the message is not valid; the error says why.
    """
    if not isinstance(message, can.Message):
        raise MessageError(f"no can.Message, but {type(message).__name__}")
    identifier = message.arbitration_id
    if type(identifier) is not int:
        raise MessageError(f"arbitration_id is {type(identifier).__name__}")
    flags = _flags(message)
    data: bytes | int
    if flags & REMOTE:
        data = message.dlc
        if type(data) is not int:
            raise MessageError(f"dlc is {type(data).__name__}")
    elif isinstance(message.data, (bytes, bytearray)):
        data = bytes(message.data)
        if flags & FD:  # python-can's virtual and network buses pass on what no wire could
            data = padded_fd(data)
    else:
        raise MessageError(f"data is {type(message.data).__name__}")
    if flags & ERROR and error_frames is not ErrorFrames.SOCKETCAN:
        identifier, flags = _BUS_ERROR, ERROR
        data = bytes(8)
        if error_frames is ErrorFrames.PCAN:
            identifier, data = _pcan_error(message)
    # The identifier of an error frame is made of its classes, 29 bits without being extended.
    as_sent = flags | EXTENDED if flags & ERROR else flags
    fault = frame_fault(identifier, as_sent, data)
    if fault is not None:
        raise MessageError(fault)
    when = _timestamp if adapter_clock is None else adapter_clock.read
    return Frame(when(message.timestamp, wall_ns), identifier, flags, data)


#: Error classes of Linux (linux/can/error.h): a bus error; a violation of the protocol, of which
#: the third byte says more; and the last two bytes are the controller's error counters.
_BUS_ERROR: Final = 0x80
_PROTOCOL: Final = 0x08
_COUNTERS: Final = 0x200
_TRANSMITTING: Final = 0x80

#: PCAN's kinds of error (its manual: Error Frames), and Linux's: bit, form, stuff; 8 is any other.
_PCAN_KINDS: Final = {1: 0x01, 2: 0x02, 4: 0x04}


def _pcan_error(message: can.Message) -> tuple[int, bytes]:
    """A PCAN error frame in the form of Linux.

    Its data: direction (0: while transmitting), the SJA1000's error code capture, of which the
    lower five bits are the place as Linux has it, receive and transmit error counters.
    """
    direction, capture, receiving, transmitting = bytes(message.data[:4]).ljust(4, b"\0")
    kind = _PCAN_KINDS.get(message.arbitration_id, 0)
    if direction == 0:
        kind |= _TRANSMITTING
    detail = bytes((0, 0, kind, capture & 0x1F, 0, 0, transmitting, receiving))
    return _BUS_ERROR | _PROTOCOL | _COUNTERS, detail


def to_message(frame: Frame) -> can.Message:
    """The message to send; ``frame`` is valid."""
    flags, data = frame.flags, frame.data
    is_remote = isinstance(data, int)
    return can.Message(
        arbitration_id=frame.arbitration_id,
        is_extended_id=bool(flags & EXTENDED),
        is_remote_frame=is_remote,
        is_error_frame=bool(flags & ERROR),
        is_fd=bool(flags & FD),
        bitrate_switch=bool(flags & BITRATE_SWITCH),
        error_state_indicator=bool(flags & ERROR_STATE_INDICATOR),
        is_rx=False,
        dlc=data if isinstance(data, int) else len(data),
        data=None if isinstance(data, int) else data,
    )


def _flags(message: can.Message) -> int:
    return (
        EXTENDED * bool(message.is_extended_id)
        | REMOTE * bool(message.is_remote_frame)
        | ERROR * bool(message.is_error_frame)
        | FD * bool(message.is_fd)
        | BITRATE_SWITCH * bool(message.bitrate_switch)
        | ERROR_STATE_INDICATOR * bool(message.error_state_indicator)
    )


def _timestamp(seconds: object, wall_ns: int) -> int:
    if not isinstance(seconds, (int, float)) or not math.isfinite(seconds):
        return wall_ns
    stamp_ns = round(seconds * clock.SECOND)
    return stamp_ns if abs(stamp_ns - wall_ns) < _PLAUSIBLE_NS else wall_ns
