"""The user's message, with python-can's documented attributes, and its way from and to a frame."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable
from copy import deepcopy
from typing import Any, Final, Self

from canbroker.errors import CanOperationError
from canbroker.model.frame import (
    BITRATE_SWITCH,
    ERROR,
    ERROR_STATE_INDICATOR,
    EXTENDED,
    FD,
    FD_LENGTHS,
    HARDWARE_TIMESTAMP,
    MAX_EXTENDED_ID,
    MAX_STANDARD_ID,
    REMOTE,
    Frame,
    frame_fault,
    padded_fd,
)
from canbroker.model.plain_numbers import plain

#: Whole: a quotient of integers is rounded once, and a timestamp comes out as it went in.
_SECOND: Final = 1_000_000_000

#: Seconds; timestamps on the wire are whole nanoseconds of 64 bits.
_MAX_TIMESTAMP: Final = 2**63 // _SECOND

# Flags of a frame (the low six bits) -> the six attributes that they stand for. Looking them up
# costs a third of testing bit by bit.
_ATTRIBUTES: Final = [
    tuple(
        bool(flags & bit)
        for bit in (EXTENDED, REMOTE, ERROR, FD, BITRATE_SWITCH, ERROR_STATE_INDICATOR)
    )
    for flags in range(64)
]


class Message:
    """A CAN message: mutable, compared and hashed by identity.

    ``timestamp`` is in seconds, ``dlc`` the length in bytes (0-8, FD 0-64; of a remote frame the
    length that it asks for), ``data`` a bytearray. A given bytearray is used, not copied. FD data
    of a length that no frame has (9 to 63, but 12, 16, 20, 24, 32, 48) is sent with zeros up to the
    next one.

    :param data: bytes-like, an iterable of integers, or an integer: that many zeros. A remote
        frame has none, whatever is given.
    :param check: raises :class:`ValueError` if no such frame can exist; without it, any values
        are taken.
    """

    __slots__ = (
        "__weakref__",
        "arbitration_id",
        "bitrate_switch",
        "channel",
        "data",
        "dlc",
        "error_state_indicator",
        "is_error_frame",
        "is_extended_id",
        "is_fd",
        "is_remote_frame",
        "is_rx",
        "timestamp",
    )

    def __init__(  # noqa: PLR0913, PLR0917 - python-can documents these thirteen
        self,
        timestamp: float = 0.0,
        arbitration_id: int = 0,
        is_extended_id: bool = True,
        is_remote_frame: bool = False,
        is_error_frame: bool = False,
        channel: Any = None,
        dlc: int | None = None,
        data: bytes | bytearray | memoryview | Iterable[int] | int | None = None,
        is_fd: bool = False,
        is_rx: bool = True,
        bitrate_switch: bool = False,
        error_state_indicator: bool = False,
        check: bool = False,
    ) -> None:
        self.timestamp = timestamp
        self.arbitration_id = arbitration_id
        self.is_extended_id = is_extended_id
        self.is_remote_frame = is_remote_frame
        self.is_error_frame = is_error_frame
        self.channel = channel
        self.is_fd = is_fd
        self.is_rx = is_rx
        self.bitrate_switch = bitrate_switch
        self.error_state_indicator = error_state_indicator
        self.data = bytearray() if data is None or is_remote_frame else _bytearray(data)
        self.dlc = len(self.data) if dlc is None else dlc
        if check:
            fault = self._fault()
            if fault is not None:
                raise ValueError(fault)

    @classmethod
    def from_frame(cls, frame: Frame, channel: Any, is_rx: bool = True) -> Self:
        """The message of a received frame; ``channel`` is the object that the user knows it by."""
        return cls.from_frames((frame,), channel, is_rx)[0]

    @classmethod
    def from_frames(cls, frames: Iterable[Frame], channel: Any, is_rx: bool = True) -> list[Self]:
        """The messages of received frames, as :meth:`from_frame`."""
        # The client's hot path: no constructor, no call a message, each slot is stored once.
        messages: list[Self] = []
        append = messages.append
        new, attributes = object.__new__, _ATTRIBUTES
        for frame in frames:
            message = new(cls)
            message.timestamp = frame.timestamp_ns / _SECOND
            message.arbitration_id = frame.arbitration_id
            (
                message.is_extended_id,
                message.is_remote_frame,
                message.is_error_frame,
                message.is_fd,
                message.bitrate_switch,
                message.error_state_indicator,
            ) = attributes[frame.flags & 63]
            data: bytes | bytearray | int = frame.data
            if type(data) is bytearray:  # cheaper than isinstance
                message.data = data
                message.dlc = len(data)
            elif isinstance(data, int):
                message.data = bytearray()
                message.dlc = data
            else:
                message.data = bytearray(data)
                message.dlc = len(data)
            message.channel = channel
            message.is_rx = is_rx
            append(message)
        return messages

    def equals(
        self,
        other: Message,
        timestamp_delta: float | None = 1e-6,
        check_channel: bool = True,
        check_direction: bool = True,
    ) -> bool:
        """Whether both say the same.

        :param timestamp_delta: seconds by which the timestamps may differ; ``None``: any.
        """
        if self is other:  # even if a value differs from itself, as NaN does
            return True
        return (
            (timestamp_delta is None or abs(self.timestamp - other.timestamp) <= timestamp_delta)
            and self.arbitration_id == other.arbitration_id
            and self.is_extended_id == other.is_extended_id
            and self.dlc == other.dlc
            and self.data == other.data
            and self.is_remote_frame == other.is_remote_frame
            and self.is_error_frame == other.is_error_frame
            and self.is_fd == other.is_fd
            and self.bitrate_switch == other.bitrate_switch
            and self.error_state_indicator == other.error_state_indicator
            and (not check_channel or self.channel == other.channel)
            and (not check_direction or self.is_rx == other.is_rx)
        )

    def __len__(self) -> int:
        return self.dlc

    def __bool__(self) -> bool:
        return True

    def __bytes__(self) -> bytes:
        return bytes(self.data)

    def __copy__(self) -> Message:
        return self._copy(self.channel)

    def __deepcopy__(self, memo: dict[int, Any] | None) -> Message:
        return self._copy(deepcopy(self.channel, memo))

    def __repr__(self) -> str:
        """The call that makes this message, naming what differs from the defaults."""
        parts = [
            f"timestamp={self.timestamp}",
            f"arbitration_id={self.arbitration_id:#x}",
            f"is_extended_id={self.is_extended_id}",
        ]
        if not self.is_rx:
            parts.append("is_rx=False")
        if self.is_remote_frame:
            parts.append(f"is_remote_frame={self.is_remote_frame}")
        if self.is_error_frame:
            parts.append(f"is_error_frame={self.is_error_frame}")
        if self.channel is not None:
            parts.append(f"channel={self.channel!r}")
        data = ", ".join(f"{byte:#x}" for byte in self.data)
        parts.append(f"dlc={self.dlc}, data=[{data}]")
        if self.is_fd:
            parts.append(f"is_fd=True, bitrate_switch={self.bitrate_switch}")
            parts.append(f"error_state_indicator={self.error_state_indicator}")
        return f"can.Message({', '.join(parts)})"

    def __str__(self) -> str:
        """One line for people, in columns."""
        time = f"{self.timestamp:15.6f}"
        identifier = f"{self.arbitration_id:0{8 if self.is_extended_id else 3}x}"
        kind = (
            f"{'X' if self.is_extended_id else 'S'} {'Rx' if self.is_rx else 'Tx'} "
            f"{'E' if self.is_error_frame else ' '} {'R' if self.is_remote_frame else ' '} "
            f"{'F' if self.is_fd else ' '} {'BS' if self.bitrate_switch else '  '} "
            f"{'EI' if self.error_state_indicator else '  '}"
        )
        data = bytes(self.data)
        fields = [
            f"Timestamp: {time}",
            f"ID: {identifier:>8}",
            kind,
            f"DL: {self.dlc:2d}",
            f"{data[: self.dlc].hex(' '):24}",
        ]
        if data.isalnum():  # looks like text
            fields.append(f"'{data.decode('ascii')}'")
        if self.channel is not None:
            fields.append(f"Channel: {self.channel}")
        return "    ".join(fields).rstrip()

    def __format__(self, format_spec: str) -> str:
        if format_spec:
            raise ValueError(f"a Message has no format {format_spec!r}, only the empty one")
        return str(self)

    def _copy(self, channel: Any) -> Message:
        copied = object.__new__(Message)
        for name in _COPIED:
            setattr(copied, name, getattr(self, name))
        copied.data = bytearray(self.data)
        copied.channel = channel
        return copied

    def _fault(self) -> str | None:
        """Why no such message can exist, or ``None``."""
        if not 0.0 <= self.timestamp < math.inf:  # NaN is neither
            return f"timestamp must be finite and not negative, got {self.timestamp}"
        if self.is_remote_frame and self.is_error_frame:
            return "a message cannot be a remote and an error frame at the same time"
        if self.is_remote_frame and self.is_fd:
            return "CAN FD has no remote frames"
        limit = MAX_EXTENDED_ID if self.is_extended_id else MAX_STANDARD_ID
        if not 0 <= self.arbitration_id <= limit:
            return f"arbitration_id must be 0 to {limit:#x}, got {_hex(self.arbitration_id)}"
        longest = FD_LENGTHS[-1] if self.is_fd else 8
        if not 0 <= self.dlc <= longest:
            return f"dlc must be 0 to {longest}, got {self.dlc}"
        if not self.is_remote_frame and self.dlc != len(self.data):
            return f"dlc is {self.dlc}, but there are {len(self.data)} bytes of data"
        if not self.is_fd and (self.bitrate_switch or self.error_state_indicator):
            return "bitrate_switch and error_state_indicator exist in CAN FD messages only"
        return None


_COPIED: Final = tuple(
    name for name in Message.__slots__ if name not in ("__weakref__", "channel", "data")
)


def to_frame(message: Any) -> Frame:
    """The frame that ``message`` asks to send; its timestamp is 0.

    Takes every object with the attributes of a :class:`Message`, python-can's own included.
    ``dlc`` is the length on the bus: data that is shorter is filled up with zeros, as
    python-can's drivers do; data that is longer is refused, where they cut it off silently. FD
    data of 9 bytes, say, becomes 12: no frame has another length in between.

    :raises TypeError: it is not a message.
    :raises CanOperationError: no controller could send it; the text names message and fault.
    """
    try:
        flags = flags_of(message)
        raw_id, raw_dlc, raw_data = message.arbitration_id, message.dlc, message.data
    except AttributeError as error:
        raise TypeError(f"{message!r} is not a CAN message: {error}") from None
    try:
        arbitration_id = operator.index(raw_id)
        dlc = operator.index(raw_dlc)
        data = dlc if flags & REMOTE else _padded(raw_data, dlc)
        if flags & FD and isinstance(data, bytes):
            data = padded_fd(data)
    except (TypeError, ValueError) as error:
        raise CanOperationError(f"cannot send {_name(message)}: {error}") from None
    fault = frame_fault(arbitration_id, flags, data)
    if fault is not None:
        raise CanOperationError(f"cannot send {_name(message)}: {fault}")
    return Frame(0, arbitration_id, flags, data)


def to_stamped_frame(message: Any) -> Frame:
    """As :func:`to_frame`, with the message's own timestamp, which is to be kept.

    :raises ValueError: its timestamp is negative, not finite, or later than the year 2262.
    """
    frame = to_frame(message)
    timestamp = plain(message.timestamp)
    if not 0 <= timestamp < _MAX_TIMESTAMP:  # NaN is not, either
        allowed = f"0 to {_MAX_TIMESTAMP} seconds"
        raise ValueError(f"cannot send {_name(message)}: its timestamp must be {allowed}")
    # In two parts: in one, the time of today times 1e9 is rounded to 256 ns.
    seconds = int(timestamp)
    frame.timestamp_ns = seconds * _SECOND + round((timestamp - seconds) * _SECOND)
    frame.flags |= HARDWARE_TIMESTAMP
    return frame


def flags_of(message: Any) -> int:
    """The flags of a message's frame, of those that its attributes stand for."""
    return (
        (EXTENDED if message.is_extended_id else 0)
        | (REMOTE if message.is_remote_frame else 0)
        | (ERROR if message.is_error_frame else 0)
        | (FD if message.is_fd else 0)
        | (BITRATE_SWITCH if message.bitrate_switch else 0)
        | (ERROR_STATE_INDICATOR if message.error_state_indicator else 0)
    )


def _padded(data: Any, dlc: int) -> bytes:
    """``data`` as ``dlc`` bytes."""
    if isinstance(data, (int, str)):
        raise TypeError(f"data must be bytes, got {data!r}")
    content = b"" if data is None else bytes(data)
    if len(content) == dlc:
        return content
    if len(content) > dlc:
        raise ValueError(f"dlc is {dlc}, but there are {len(content)} bytes of data")
    if dlc > FD_LENGTHS[-1]:
        raise ValueError(f"dlc must be 0 to {FD_LENGTHS[-1]}, got {dlc}")
    return content.ljust(dlc, b"\0")


def _name(message: Any) -> str:
    """The message in few words, whatever its attributes are."""
    return f"the message with arbitration_id {_hex(message.arbitration_id)}, dlc {message.dlc!r}"


def _hex(identifier: Any) -> str:
    number = plain(identifier)
    return f"{number:#x}" if isinstance(number, int) else repr(identifier)


def _bytearray(data: bytes | bytearray | memoryview | Iterable[int] | int) -> bytearray:
    if isinstance(data, bytearray):
        return data
    try:
        return bytearray(data)
    except TypeError:
        raise TypeError(f"data must be bytes or integers, got {data!r}") from None
