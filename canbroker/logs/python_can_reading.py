"""BLF, ASC and TRC, by python-can's readers, which trust what they read.

python-can's generators end with the first fault, know no line numbers, and calculate times in
floating point, which for today's date are multiples of 238 ns.
"""

from __future__ import annotations

import io
import re
import struct
import zlib
from abc import abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any, Final

import can
from can.io.blf import BLFParseError

from canbroker.errors import CanInitializationError
from canbroker.logs.candump import quoted
from canbroker.logs.files import Source
from canbroker.logs.records import Record, Skipped, check_time, error_flags, valid_frame
from canbroker.logs.streams import RecordReader
from canbroker.model.frame import ERROR, FD, FD_LENGTHS, REMOTE, length_to_dlc
from canbroker.model.message import flags_of
from canbroker.system import clock

#: What python-can's readers raise for files that are damaged.
_DAMAGE: Final = (
    BLFParseError,
    struct.error,
    zlib.error,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    NotImplementedError,
)

_MAX_LINE: Final = 8192

#: More lines than any header has.
_MAX_HEADER: Final = 64


def _record(message: can.Message, timestamp_ns: int, channel: str) -> Record:
    """:raises ValueError: no such frame can exist."""
    flags, data = flags_of(message), bytes(message.data)
    content: bytes | int = data
    if flags & ERROR:
        flags = error_flags(message.arbitration_id)
    elif flags & FD and flags & REMOTE:  # how the reader of ASC takes FD frames without data
        flags &= ~REMOTE
        content = b""
    elif flags & REMOTE:
        content = message.dlc
    elif len(data) <= FD_LENGTHS[-1] and message.dlc not in {
        len(data),
        length_to_dlc(len(data)),  # TRC has codes in both kinds
    }:
        raise ValueError(f"{len(data)} bytes of data, but dlc {message.dlc}")
    frame = valid_frame(timestamp_ns, message.arbitration_id, flags, content)
    check_time(timestamp_ns)
    return Record(frame, channel, not message.is_rx)


def _channel(message: can.Message, first: int) -> str:
    """The channel's number as the file has it, where python-can calls its first one ``1 - first``.

    Empty if the file does not say it.
    """
    return str(message.channel + first) if isinstance(message.channel, int) else ""


class _BlfReader(can.BLFReader):
    """python-can's reader, protected from sizes of objects that are damaged.

    It would read an object without a size again and again, and wait for the end of a huge one in
    all that follows.
    """

    def _parse_container(self, data: bytes) -> Iterator[can.Message]:
        data, self._tail = self._tail + data, b""
        sound = _sound_objects(data)
        yield from super()._parse_container(data[:sound])
        if sound < len(data):
            raise BLFParseError("an object has an impossible size")


def _sound_objects(data: bytes) -> int:
    """How many bytes there are before an object that has an impossible size."""
    at = data.find(b"LOBJ", 0, _PADDED)
    while at >= 0 and at + _SIZE_AT + 4 <= len(data):
        (size,) = struct.unpack_from("<L", data, at + _SIZE_AT)
        if not 0 < size <= _MAX_OBJECT:
            return at
        at = data.find(b"LOBJ", at + size, at + size + _PADDED)
    return len(data)


class BlfReader(RecordReader):
    """Vector's binary log."""

    def _records(self, skipped: Skipped) -> Iterator[Record]:
        try:
            reader = _BlfReader(_unclosed(self._source))
        except _DAMAGE as error:
            raise CanInitializationError(f"{self.name} is not a BLF file: {_why(error)}") from None
        start_ns = round(reader.start_timestamp * 1000) * clock.MILLISECOND
        reader.start_timestamp = 0.0
        messages = iter(reader)
        while True:
            try:
                message = next(messages)
            except StopIteration:
                self.end = self._cut_off(reader.file_size)
                return
            except _DAMAGE as error:
                self.end = f"damaged or cut off before byte {self._source.tell()}: {_why(error)}"
                return
            try:
                yield _record(
                    message,
                    start_ns + round(message.timestamp * clock.SECOND),
                    _channel(message, 1),
                )
            except ValueError as error:
                skipped.add("impossible frames", f"before byte {self._source.tell()}: {error}")

    def _cut_off(self, size: int) -> str | None:
        """Why the file is not whole, although what there is could be read.

        :param size: as its header has it; of a file that was not closed, that of the header.
        """
        total = self._source.total
        if total is not None and size > total:
            return f"cut off: {total} bytes of {size}"
        if total is not None and size <= _BLF_HEADER < total:
            return "not closed by its writer"
        return None


#: Where an object has its size, and how many bytes may be before it.
_SIZE_AT: Final = 8
_PADDED: Final = 8

#: A container has 128 KiB, as a rule.
_MAX_OBJECT: Final = 1 << 24

#: Bytes; all that a writer knows of its file's size when it begins.
_BLF_HEADER: Final = 144


class _Unclosed(io.BufferedIOBase):
    """A source that python-can does not close, so that it can be read again."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def read(self, size: int | None = -1, /) -> bytes:
        return self._source.read(size)


def _unclosed(source: Source) -> Any:
    return _Unclosed(source)


def _why(error: BaseException) -> str:
    return str(error) or type(error).__name__


#: Begins a part of an ASC file.
_BLOCK: Final = re.compile(r"\s*begin\s+triggerblock", re.IGNORECASE)


class _Lines:
    """The lines of a text file, as python-can iterates over them; knows which one was last.

    Keeps the header, to begin again after a line that the reader cannot take: a generator that has
    raised is over.
    """

    def __init__(self, source: Source) -> None:
        self.number = 0
        self.text = ""
        self.is_complete = True
        #: Whether the last line has not given a message yet.
        self.is_open = False
        self._source = source
        self._header: list[str] = []
        self._again: list[str] = []
        self._in_header = True
        self._on_unused: Any = None

    def on_unused(self, note: Any) -> None:
        """``note`` is called for each line that gives no message."""
        self._on_unused = note

    def begin_again(self) -> None:
        """Lets a new reader see the header again, and then the lines that follow.

        Not the last line: the reader cannot take it.
        """
        if self._in_header:
            del self._header[-1:]
        self._again = self._header[::-1]
        self.is_open = False

    def end_header(self) -> None:
        """The last line was the first one with a message."""
        if self._in_header:
            self._in_header = False
            del self._header[-1:]

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if self._again:
            return self._again.pop()
        if self.is_open and self._on_unused is not None:
            self._on_unused()
        self.is_open = False
        line = self._source.readline(_MAX_LINE)
        if not line:
            raise StopIteration
        self.is_complete = line.endswith(b"\n")
        self.number += 1
        try:
            self.text = line.decode()
        except UnicodeDecodeError:
            self.text = line.decode("latin-1")  # Vector's tools write the code page of Windows
        self.is_open = True
        if self._in_header and len(self._header) < _MAX_HEADER:
            self._header.append(self.text)
        elif _BLOCK.match(self.text):  # from here on, times count from another moment
            if self._header and _BLOCK.match(self._header[-1]):
                self._header.pop()
            self._header.append(self.text)
        return self.text

    def close(self) -> None:
        """The file stays open: it may be read again."""


class _TextReader(RecordReader):
    """A text log, a line a frame."""

    #: A line that should give a message.
    candidate: re.Pattern[str]

    @abstractmethod
    def _reader(self, lines: _Lines) -> Iterable[can.Message]:
        """python-can's reader of these lines."""

    @abstractmethod
    def _channel(self, message: can.Message) -> str:
        """The channel's number as the file has it."""

    def _records(self, skipped: Skipped) -> Iterator[Record]:
        lines = _Lines(self._source)

        def note(kind: str, why: str) -> None:
            skipped.add(kind, f"line {lines.number}: {why}")

        def unused() -> None:
            if self.candidate.match(lines.text):
                note("lines without a frame", quoted(lines.text.strip(), 60))

        lines.on_unused(unused)
        messages = iter(self._reader(lines))
        while True:
            try:
                message = next(messages)
                lines.end_header()
                lines.is_open = False
                # The resolution of the format: more digits come from floating point.
                microseconds = round(message.timestamp * 1_000_000)
                record = _record(message, microseconds * clock.MICROSECOND, self._channel(message))
            except StopIteration:
                if not (lines.is_complete or lines.text.lower().startswith("end trigger")):
                    self.end = f"cut off in line {lines.number}"
                return
            except _DAMAGE as error:
                note("damaged lines", f"{quoted(lines.text.strip(), 60)}: {_why(error)}")
                if lines.is_open:  # its generator is over
                    lines.begin_again()
                    messages = iter(self._reader(lines))
                continue
            if lines.is_complete:  # else its last byte may have lost a digit
                yield record


class AscReader(_TextReader):
    """Vector's text log."""

    candidate = re.compile(r"\s*\d+\.\d+\s+(?!Start of measurement)")

    def _reader(self, lines: _Lines) -> Iterable[can.Message]:
        return can.ASCReader(lines, relative_timestamp=False)  # type: ignore[arg-type]

    def _channel(self, message: can.Message) -> str:
        return _channel(message, 1)


class TrcReader(_TextReader):
    """PEAK's text log, of any version that python-can reads."""

    candidate = re.compile(r"\s*\d+\)?\s")

    def _reader(self, lines: _Lines) -> Iterable[can.Message]:
        return can.TRCReader(lines)  # type: ignore[arg-type]

    def _channel(self, message: can.Message) -> str:
        return _channel(message, 0)
