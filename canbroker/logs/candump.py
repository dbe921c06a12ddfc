"""The text forms of can-utils: candump's logs and screen lines, cansend's frames, filters.

Converts text to objects and back. Based on the manual pages and the usage texts of can-utils.
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

from canbroker.logs.records import check_time
from canbroker.model.filters import Filter, FilterSet
from canbroker.model.frame import (
    BITRATE_SWITCH,
    ERROR,
    ERROR_STATE_INDICATOR,
    EXTENDED,
    FD,
    MAX_EXTENDED_ID,
    MAX_STANDARD_ID,
    REMOTE,
    Frame,
    describe,
    frame_fault,
    padded_fd,
)
from canbroker.system.clock import SECOND

# The kernel keeps a frame's kind in the upper bits of its identifier; can-utils print these bits.
_EFF_FLAG = 0x80000000
_RTR_FLAG = 0x40000000
_ERR_FLAG = 0x20000000

_LOG_LINE = re.compile(r"\(([0-9]{1,10})\.([0-9]{1,9})\)\s+(\S+)\s+(\S+)(?:\s+([RT]))?")
_FRAME = re.compile(r"([0-9A-Fa-f]{3}|[0-9A-Fa-f]{8})#(.*)")
_REMOTE = re.compile(r"[Rr]([0-9]?)")
_DATA = re.compile(r"(?:[0-9A-Fa-f]{2}\.?)*")
_DUMP_FILTER = re.compile(r"([0-9A-Fa-f]{1,8})([:~])([0-9A-Fa-f]{1,8})")
_ERROR_FILTER = re.compile(r"#([0-9A-Fa-f]{1,8})")

FRAME_FORMS = (
    "expected ID#DATA, ID#R, ID#R<length> or ID##<flags>DATA, where ID has 3 hexadecimal digits "
    "(11-bit) or 8 (29-bit) and flags is one digit (1 bitrate switch, 2 error state indicator)"
)


class LogEntry(NamedTuple):
    """One line of a log; ``timestamp_ns`` is wall clock time, and equals the frame's timestamp.

    ``sent``: the line ends with ``T``, as ``candump -x`` writes it for frames that were sent.
    """

    timestamp_ns: int
    interface: str
    frame: Frame
    sent: bool = False


def parse_log_line(line: str) -> LogEntry:
    """Parses one line of ``candump -L``, with or without a direction.

    :raises ValueError: the line has another form; the message gives the expected one.
    """
    match = _LOG_LINE.fullmatch(line.strip())
    if match is None:
        shown = quoted(line.strip())
        raise ValueError(f"{shown} is not of the form (seconds.fraction) interface frame")
    seconds, fraction, interface, text, direction = match.groups()
    timestamp_ns = int(seconds) * SECOND + int(fraction.ljust(9, "0"))
    check_time(timestamp_ns)
    frame = parse_frame(text)
    frame.timestamp_ns = timestamp_ns
    return LogEntry(timestamp_ns, interface, frame, direction == "T")


def format_log_line(
    frame: Frame, interface: str, direction: Literal["R", "T"] | None = None
) -> str:
    """The frame as a line of ``candump -L``, with microseconds and without a line end.

    Blanks separate the fields, so blanks in the interface's name become ``_``.
    """
    seconds, rest = divmod(frame.timestamp_ns, SECOND)
    name = "_".join(interface.split()) or "_"
    tail = f" {direction}" if direction else ""
    text = format_frame(frame)
    before, is_fd, after = text.partition("##")
    if is_fd:  # the kernel marks FD frames by 4 (CANFD_FDF), and candump prints that flag
        text = f"{before}##{int(after[0], 16) | 4:X}{after[1:]}"
    return f"({seconds:010}.{rest // 1000:06}) {name} {text}{tail}"


def quoted(text: str, length: int = 160) -> str:
    """The text for a message; if it is longer than any frame, only its beginning."""
    return repr(text) if len(text) <= length else f"{text[:length]!r}..."


def parse_frame(text: str) -> Frame:
    """Parses a frame in cansend's notation; its timestamp is 0.

    Dots between bytes are ignored. If the length of FD data is not a valid FD length, the data is
    padded with zeros to the next valid one, as cansend does.

    :raises ValueError: the message says what is wrong and what is expected.
    """
    match = _FRAME.fullmatch(text)
    if match is None:
        raise ValueError(f"{quoted(text)} is not a CAN frame: {FRAME_FORMS}")
    digits, rest = match.groups()
    arbitration_id, flags = _identifier(text, digits)
    data: bytes | int
    if rest.startswith("#"):
        if flags & ERROR:
            raise ValueError(
                f"{quoted(text)} is not a CAN frame: an error frame is never an FD frame"
            )
        more, data = _fd_content(text, rest[1:])
        flags |= more
    elif remote := _REMOTE.fullmatch(rest):
        flags, data = flags | REMOTE, int(remote[1] or "0")
    else:
        data = _bytes(text, rest)
    fault = frame_fault(arbitration_id, flags, data)
    if fault is not None:
        raise ValueError(f"{quoted(text)} is not a CAN frame: {fault}")
    return Frame(0, arbitration_id, flags, data)


def format_frame(frame: Frame) -> str:
    """The frame in cansend's notation. :func:`parse_frame` can read the result for every frame.

    A frame that no controller could send is written as the nearest possible frame: an identifier
    that does not fit 11 bits as a 29-bit one, more than 8 bytes as an FD frame, an error frame as
    a classic one, a remote frame's length as 8 at most.
    """
    identifier, flags, data = frame.arbitration_id, frame.flags, frame.data
    if flags & ERROR:
        content = b"" if isinstance(data, int) else data[:8]
        return f"{identifier | _ERR_FLAG:08X}#{content.hex().upper()}"
    if identifier > MAX_STANDARD_ID:
        flags |= EXTENDED
    if isinstance(data, int):
        data = min(data, 8)
    elif len(data) > 8:
        flags |= FD
    return describe(Frame(0, identifier, flags, data))


def format_human(frame: Frame, interface: str, *, align: bool = False) -> str:
    """The frame in candump's screen format: ``  can0  123   [4]  DE AD BE EF``.

    :param align: aligns 11-bit identifiers with the end of 29-bit ones. candump does this after
        the first 29-bit identifier.
    """
    flags, data = frame.flags, frame.data
    if flags & ERROR:
        identifier = f"{frame.arbitration_id | _ERR_FLAG:08X}"
    elif flags & EXTENDED:
        identifier = f"{frame.arbitration_id:08X}"
    else:
        identifier = f"{frame.arbitration_id:03X}"
        if align:
            identifier = identifier.rjust(8)
    if isinstance(data, int):
        return f"  {interface}  {identifier}   [{data}]  remote request"
    length = f" [{len(data):02}]" if flags & FD else f"  [{len(data)}]"
    content = "".join(f" {byte:02X}" for byte in data)
    if flags & ERROR:
        content = f"{content:24}   ERRORFRAME"
    return f"  {interface}  {identifier} {length} {content}"


def parse_dump_filters(text: str) -> FilterSet:
    """Parses candump's comma-separated filters.

    - ``id:mask`` passes data and remote frames where ``received & mask == id & mask``;
    - ``id~mask`` passes data and remote frames that ``id:mask`` does not pass;
    - ``#mask`` passes error frames of these classes (``linux/can/error.h``). Without it, no error
      frames pass.

    Numbers are hexadecimal. An identifier of eight digits is a 29-bit one; the format is compared
    if the mask contains 80000000. Without any ``id``, all data and remote frames pass.

    :raises ValueError: a filter does not parse; the message names it.
    """
    identifiers: list[Filter] | None = None
    errors: list[Filter] = []
    for part in filter(None, text.split(",")):
        if match := _ERROR_FILTER.fullmatch(part):
            bits = _bits(int(match[1], 16) & MAX_EXTENDED_ID)
            errors += [Filter(bit, bit, None, True) for bit in bits]
        else:
            identifiers = (identifiers or []) + _identifier_filters(part)
    if identifiers is None:
        identifiers = [Filter(0, 0, None, False)]
    return FilterSet(identifiers + errors, nothing=True)


def _identifier(text: str, digits: str) -> tuple[int, int]:
    """Parses the digits before ``#``; returns identifier and flags."""
    number = int(digits, 16)
    if len(digits) == 3:
        return number, 0
    if number & _ERR_FLAG and not number & (_EFF_FLAG | _RTR_FLAG):
        error_class = number & MAX_EXTENDED_ID
        return error_class, ERROR | (EXTENDED if error_class > MAX_STANDARD_ID else 0)
    if number > MAX_EXTENDED_ID:
        raise ValueError(f"{quoted(text)} is not a CAN frame: {digits} does not fit 29 bits")
    return number, EXTENDED


def _fd_content(text: str, rest: str) -> tuple[int, bytes]:
    """Parses the text after ``##``; returns flags and data."""
    if not re.match("[0-9A-Fa-f]", rest):
        raise ValueError(f"{quoted(text)} is not a CAN frame: one digit of flags must follow '##'")
    bits = int(rest[0], 16)  # 4 is the kernel's mark for FD itself
    data = padded_fd(_bytes(text, rest[1:]))
    switch = BITRATE_SWITCH if bits & 1 else 0
    indicator = ERROR_STATE_INDICATOR if bits & 2 else 0
    return FD | switch | indicator, data


def _bytes(text: str, digits: str) -> bytes:
    if _DATA.fullmatch(digits):
        return bytes.fromhex(digits.replace(".", ""))
    if "_" in digits:
        raise ValueError(
            f"{quoted(text)}: length codes above 8 of classic frames (the suffix _9 to _F) are not "
            "supported"
        )
    raise ValueError(
        f"{quoted(text)} is not a CAN frame: {quoted(digits)} is not bytes of two digits; "
        f"{FRAME_FORMS}"
    )


def _identifier_filters(part: str) -> list[Filter]:
    """The filters that together are equivalent to ``id:mask`` or ``id~mask``."""
    match = _DUMP_FILTER.fullmatch(part)
    if match is None:
        hint = " (joined filters, 'j', are not supported)" if part in "jJ" else ""
        raise ValueError(
            f"filter {part!r} is not id:mask, id~mask or #errormask in hexadecimal{hint}"
        )
    can_id, can_mask = int(match[1], 16), int(match[3], 16)
    if can_mask & _RTR_FLAG:
        raise ValueError(
            f"filter {part!r}: remote frames cannot be told apart by a filter; "
            f"take the mask {can_mask & ~_RTR_FLAG:X}"
        )
    extended = bool(can_id & _EFF_FLAG) or len(match[1]) == 8
    compares_format = bool(can_mask & _EFF_FLAG)
    can_mask &= MAX_STANDARD_ID if compares_format and not extended else MAX_EXTENDED_ID
    if match[2] == ":":
        return [Filter(can_id, can_mask, extended if compares_format else None, False)]
    differs = [Filter(~can_id & bit, bit, None, False) for bit in _bits(can_mask)]
    if compares_format:
        differs.append(Filter(0, 0, not extended, False))
    return differs


def _bits(mask: int) -> list[int]:
    return [1 << index for index in range(mask.bit_length()) if mask >> index & 1]
