"""The ASCII lines of serial CAN adapters and the frames that they carry; no I/O.

Sources: LAWICEL AB, "CANUSB Manual" (classic frames, timestamps, answers), the CANable 2.0
firmware documentation (``d D b B``: CAN FD), Ewert Energy Systems, "CANdapter Manual" (``x``, ACK).
A line ends with CR; BEL is the answer "refused".

==========  =======================================================
``t`` ``T``  data frame with an 11-bit, a 29-bit identifier
``r`` ``R``  remote frame
``d`` ``D``  CAN FD frame
``b`` ``B``  CAN FD frame with bitrate switch
``x``        data frame with a 29-bit identifier (CANdapter)
==========  =======================================================

Then follow the identifier (3 or 8 hex digits), the data length code (1 digit), the data, and from
an adapter with timestamps 4 digits: milliseconds that wrap at 60,000. A remote frame has no data on
the bus; most firmware still writes as many bytes as its length code says. The protocol has no room
for the error state indicator, which is lost.
"""

from __future__ import annotations

import re
from binascii import unhexlify
from collections.abc import Iterator
from typing import Final, NamedTuple

from canbroker.model.frame import (
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
LF: Final = b"\n"
BEL: Final = b"\a"
#: CANdapter's CR
ACK: Final = b"\x06"

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
    b"x": EXTENDED,
}
_LETTERS: Final = {flags: letter.decode("ascii") for letter, flags in [*_KINDS.items()][:8]}
_SHAPE: Final = EXTENDED | REMOTE | FD | BITRATE_SWITCH

# int(x, 16) would take "_" and "+" for digits, so the digits are checked here.
_FRAME: Final = re.compile(
    rb"(?:([trdb])([0-7][0-9A-Fa-f]{2})|([TRDBx])([01][0-9A-Fa-f]{7}))"
    rb"([0-9A-Fa-f])((?:[0-9A-Fa-f]{2})*)"
)
_HEAD: Final = re.compile(rb"[trdbTRDBx][0-9A-Fa-f]*")
_SHORT: Final = b"trdb"
_LINE: Final = re.compile(rb"([^\r\n\a\x06]*)([\r\n\a\x06])")


class LineError(ValueError):
    """A line that does not contain a frame. ``kind`` is the reason, as the counters name it."""

    def __init__(self, kind: str, line: bytes) -> None:
        super().__init__(f"{kind} line {line[:40]!r}{'...' if len(line) > 40 else ''}")
        self.kind = kind


class Decoded(NamedTuple):
    """A frame (its ``timestamp_ns`` still 0) and the adapter's clock, if the line has it."""

    frame: Frame
    adapter_ms: int | None


def encode(frame: Frame, adapter_ms: int | None = None) -> bytes:
    """The line of a valid frame, with its CR.

    :raises ValueError: the frame is an error frame, which the protocol cannot express.
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

    Four digits behind a remote frame of two bytes may be those bytes or a timestamp. They are
    returned as a timestamp; :func:`is_ambiguous` tells.

    :raises LineError: it does not contain a frame.
    """
    match = _FRAME.fullmatch(line)
    if match is None:
        raise LineError(_fault(line), line)
    short, short_id, long, long_id, code, digits = match.groups()
    flags = _KINDS[short or long]
    dlc = int(code, 16)
    if not flags & FD and dlc > 8:
        raise LineError("malformed", line)
    if flags & REMOTE:
        return _remote(line, int(short_id or long_id, 16), flags, dlc, digits)
    size = 2 * FD_LENGTHS[dlc]
    surplus = len(digits) - size
    if surplus not in (0, 4):
        raise LineError("truncated" if surplus < 0 else "malformed", line)
    adapter_ms = int(digits[size:], 16) if surplus else None
    data = unhexlify(digits[:size])
    return Decoded(Frame(0, int(short_id or long_id, 16), flags, data), adapter_ms)


def _remote(line: bytes, identifier: int, flags: int, dlc: int, digits: bytes) -> Decoded:
    frame = Frame(0, identifier, flags, dlc)
    if len(digits) in (0, 2 * dlc) and len(digits) != 4:
        return Decoded(frame, None)
    if len(digits) in (4, 2 * dlc + 4):
        return Decoded(frame, int(digits[-4:], 16))
    raise LineError("truncated" if len(digits) < 2 * dlc else "malformed", line)


def is_ambiguous(frame: Frame) -> bool:
    """Whether what :func:`decode` returned as this frame's timestamp may be its data."""
    return bool(frame.flags & REMOTE) and frame.data == 2


def encode_candapter(frame: Frame) -> bytes:
    """The line of a valid data frame for a CANdapter, with its CR.

    :raises ValueError: the protocol cannot express this frame.
    """
    if frame.flags & (REMOTE | FD):
        raise ValueError("a CANdapter has no line for remote and FD frames")
    line = encode(frame)
    return b"x" + line[1:] if frame.flags & EXTENDED else line


def decode_candapter(line: bytes) -> Decoded:
    """Like :func:`decode` for a CANdapter, whose ``T`` is an 11-bit frame like ``t``.

    :raises LineError: it does not contain a frame.
    """
    letter = line[:1]
    return decode((b"t" if letter == b"T" else b"x" if letter == b"X" else letter) + line[1:])


def _fault(line: bytes) -> str:
    if len(line) > MAX_LINE:
        return "overlong"
    if not line.isascii():
        return "non_ascii"
    if _HEAD.fullmatch(line):
        # Its characters are valid: the end is missing, or the identifier is too large.
        data_digits = len(line) - (5 if line[:1] in _SHORT else 10)
        return "truncated" if data_digits < 0 or data_digits % 2 else "malformed"
    return "malformed"


class LineBuffer:
    """Splits a stream into lines, independently of how it is read. Bounded; one thread.

    A line ends with CR; in firmware written for terminals, with CR LF or CR CR LF. The second CR of
    the latter is not an empty line, which would be an acknowledgement. The next byte shows which
    it is, so an empty line after another line is held until that byte comes, unless a frame has
    shown that this adapter ends its lines otherwise. :attr:`held` says that an empty line is held
    while the line ending is unknown; :meth:`release` ends the wait.
    """

    def __init__(self) -> None:
        self._partial = b""
        self._behind_line = b""  # the line whose CR was the last byte; empty: there is none
        self._waits = False  # an empty line is held
        self._plain = False  # no frame's CR is followed by CR LF
        self._doubled = False  # a line's CR was

    @property
    def held(self) -> bool:
        """Whether an empty line waits for a byte that may not come."""
        return self._waits and not self._doubled

    def feed(self, data: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Every line that ``data`` completes: ``(line, terminator)``.

        The terminator is CR, BEL or ACK, also for empty lines, or LF. Of an over-long line only
        the beginning comes, one byte longer than :data:`MAX_LINE`. Iterate to the end before the
        next call.
        """
        end = 0
        for match in _LINE.finditer(data):
            end = match.end()
            line, terminator = match.groups()
            if self._partial:
                line, self._partial = self._partial + line, b""
            if line and self._plain and terminator == CR:
                yield line[: MAX_LINE + 1], terminator
                continue
            yield from self._token(line[: MAX_LINE + 1], terminator)
        self._partial = (self._partial + data[end:])[: MAX_LINE + 1]

    def release(self) -> Iterator[tuple[bytes, bytes]]:
        """Returns the empty line that was :attr:`held`, if any: no LF follows it."""
        if self.held:
            self._waits = False
            self._behind_line = b""
            yield b"", CR

    def clear(self) -> None:
        """Forgets the unfinished line."""
        self._partial = b""
        self._behind_line = b""
        self._waits = False

    def _token(self, line: bytes, terminator: bytes) -> Iterator[tuple[bytes, bytes]]:
        behind, self._behind_line = self._behind_line, b""
        if self._waits:
            self._waits = False
            if not line and terminator == LF:
                self._doubled = True
                return
            self._plain = self._plain or _FRAME.fullmatch(behind) is not None
            yield b"", CR
            behind = b""
        if not line and terminator == LF:
            self._plain = self._plain or _FRAME.fullmatch(behind) is not None  # CR LF
            return
        if not line and terminator == CR and behind and not self._plain:
            self._behind_line = behind
            self._waits = True
            return
        self._plain = self._plain or _FRAME.fullmatch(behind) is not None
        if terminator == CR and not self._plain:
            self._behind_line = line
        yield line, terminator
