"""The ASCII lines of serial CAN adapters and the frames that they carry; no I/O.

Sources: LAWICEL AB, "CANUSB Manual" (classic frames, timestamps, answers) and the CANable 2.0
firmware documentation (``d D b B``: CAN FD). A line ends in CR; BEL is the answer "refused".

==========  =======================================================
``t`` ``T``  data frame with an 11-bit, a 29-bit identifier
``r`` ``R``  remote frame
``d`` ``D``  CAN FD frame
``b`` ``B``  CAN FD frame with bitrate switch
==========  =======================================================

Then follow the identifier (3 or 8 hex digits), the data length code (1 digit), the data, and from
an adapter with timestamps 4 digits: milliseconds that wrap at 60,000. The dialect has no place
for the error state indicator; it is lost on the way.
"""

from __future__ import annotations

import re
from binascii import unhexlify
from collections.abc import Iterator
from typing import Final, NamedTuple

from canbroker.frame import (
    BITRATE_SWITCH,
    ERROR,
    EXTENDED,
    FD,
    FD_LENGTHS,
    REMOTE,
    Frame,
    length_to_dlc,
)

CR: Final = b"\r"
BEL: Final = b"\a"

#: Longest line that is kept; the longest valid one has 142 bytes.
MAX_LINE: Final = 256

_KINDS: Final[dict[bytes, int]] = {
    b"t": 0,
    b"T": EXTENDED,
    b"r": REMOTE,
    b"R": REMOTE | EXTENDED,
    b"d": FD,
    b"D": FD | EXTENDED,
    b"b": FD | BITRATE_SWITCH,
    b"B": FD | BITRATE_SWITCH | EXTENDED,
}
_LETTERS: Final = {flags: letter.decode("ascii") for letter, flags in _KINDS.items()}
_SHAPE: Final = EXTENDED | REMOTE | FD | BITRATE_SWITCH

# int(x, 16) would take "_" and "+" for digits, so the digits are checked here.
_FRAME: Final = re.compile(
    rb"(?:([trdb])([0-7][0-9A-Fa-f]{2})|([TRDB])([01][0-9A-Fa-f]{7}))"
    rb"([0-9A-Fa-f])((?:[0-9A-Fa-f]{2})*)"
)
_HEAD: Final = re.compile(rb"[trdbTRDB][0-9A-Fa-f]*")
_LINE: Final = re.compile(rb"([^\r\a]*)([\r\a])")


class LineError(ValueError):
    """A line that carries no frame. ``kind`` names the reason as the counters do."""

    def __init__(self, kind: str, line: bytes) -> None:
        super().__init__(f"{kind} line {line[:40]!r}{'...' if len(line) > 40 else ''}")
        self.kind = kind


class Decoded(NamedTuple):
    """A frame (its ``timestamp_ns`` still 0) and the adapter's clock, if the line has it."""

    frame: Frame
    adapter_ms: int | None


def encode(frame: Frame, adapter_ms: int | None = None) -> bytes:
    """The line of a valid frame, with its CR.

    :raises ValueError: an error frame, for which there is no line.
    """
    flags = frame.flags
    if flags & ERROR:
        raise ValueError("an slcan line cannot carry an error frame")
    letter = _LETTERS[flags & _SHAPE]
    data = frame.data
    digits = 8 if flags & EXTENDED else 3
    if isinstance(data, int):
        length, payload = data, ""
    else:
        length, payload = length_to_dlc(len(data)), data.hex().upper()
    stamp = "" if adapter_ms is None else f"{adapter_ms:04X}"
    return f"{letter}{frame.arbitration_id:0{digits}X}{length:X}{payload}{stamp}\r".encode("ascii")


def decode(line: bytes) -> Decoded:
    """The frame that a line without its terminator carries.

    :raises LineError: it carries none.
    """
    match = _FRAME.fullmatch(line)
    if match is None:
        raise LineError(_fault(line), line)
    short, short_id, long, long_id, code, digits = match.groups()
    flags = _KINDS[short or long]
    dlc = int(code, 16)
    if not flags & FD and dlc > 8:
        raise LineError("malformed", line)
    size = 0 if flags & REMOTE else 2 * FD_LENGTHS[dlc]
    surplus = len(digits) - size
    if surplus not in (0, 4):
        raise LineError("truncated" if surplus < 0 else "malformed", line)
    adapter_ms = int(digits[size:], 16) if surplus else None
    data = dlc if flags & REMOTE else unhexlify(digits[:size])
    return Decoded(Frame(0, int(short_id or long_id, 16), flags, data), adapter_ms)


def _fault(line: bytes) -> str:
    if len(line) > MAX_LINE:
        return "overlong"
    if not line.isascii():
        return "non_ascii"
    if _HEAD.fullmatch(line):
        # All of its letters are right: the end is missing, or the identifier is too large.
        data_digits = len(line) - (5 if line[:1].islower() else 10)
        return "truncated" if data_digits < 0 or data_digits % 2 else "malformed"
    return "malformed"


class LineBuffer:
    """Cuts a stream into lines, however it was cut into reads. Bounded; one thread."""

    def __init__(self) -> None:
        self._partial = b""

    def feed(self, data: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Every line that ``data`` completes: ``(line, terminator)``, the terminator CR or BEL.

        Of an over-long line only the beginning comes, one byte longer than :data:`MAX_LINE`.
        Iterate to the end before the next call.
        """
        end = 0
        for match in _LINE.finditer(data):
            end = match.end()
            line, terminator = match.groups()
            if self._partial:
                line, self._partial = self._partial + line, b""
            yield line[: MAX_LINE + 1], terminator
        self._partial = (self._partial + data[end:])[: MAX_LINE + 1]

    def clear(self) -> None:
        """Forgets the unfinished line."""
        self._partial = b""
