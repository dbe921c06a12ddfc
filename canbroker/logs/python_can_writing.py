"""BLF, ASC and TRC, by python-can's writers, without what those do to times.

python-can passes times as seconds in floating point, which for today's date are multiples of
238 ns, and each of its writers treats a time before the first one in another way. So they are
given times that count from the file's start and are never negative.
"""

from __future__ import annotations

import io
import struct
import time
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import can

from canbroker.logs.channel_numbers import ChannelNumbers
from canbroker.logs.losses import EARLIER, Holds
from canbroker.logs.records import Record
from canbroker.logs.streams import SinkWriter
from canbroker.model.message import Message
from canbroker.system import clock


class _PythonCanWriter(SinkWriter):
    """Hands messages to a writer of python-can, whose file is a :class:`Sink`."""

    #: The start of the file is rounded down to what its header can express.
    start_resolution_ns: int = clock.MILLISECOND

    #: Earlier starts cannot be expressed: then times count from 1970, as of a clock never set.
    earliest_start_ns: int = 0

    #: python-can's, which each format makes.
    _writer: Any

    def __init__(self, path: Path, *, compressed: bool, holds: Holds) -> None:
        super().__init__(path, compressed=compressed, holds=holds)
        self._numbers = ChannelNumbers()
        self._start_ns: int | None = None
        self._latest_ns = 0
        self._closed = False

    @abstractmethod
    def _begin(self, start_ns: int) -> None:
        """Writes the header, with the time from which all others count."""

    @abstractmethod
    def _finish(self) -> None:
        """Writes what completes the file."""

    def _write(self, records: Sequence[Record]) -> None:
        if self._start_ns is None:
            first_ns = records[0].frame.timestamp_ns
            start_ns = first_ns - first_ns % self.start_resolution_ns
            self._start_ns = start_ns if start_ns >= self.earliest_start_ns else 0
            self._begin(self._start_ns)
        start_ns, earlier = self._start_ns, 0
        frames = [record.frame for record in records]
        channels = dict.fromkeys(record.channel for record in records)
        numbers = {channel: self._numbers.number(channel) - 1 for channel in channels}
        put = self._writer.on_message_received  # which adds the 1 again
        # Ours have all attributes that the writers read, and cost a third to make.
        messages: list[Any] = list(Message.from_frames(frames, None))
        for message, (frame, channel, sent, _, _) in zip(messages, records, strict=True):
            since_ns = frame.timestamp_ns - start_ns
            if since_ns < 0:
                since_ns, earlier = 0, earlier + 1
            # Half a nanosecond more, as writers cut off what follows their last digit.
            message.timestamp = (since_ns + 0.5) / clock.SECOND
            message.channel = numbers[channel]
            message.is_rx = not sent
            put(message)
        self._latest_ns = max(self._latest_ns, *(frame.timestamp_ns for frame in frames))
        self.losses.add(EARLIER, earlier)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        try:
            if self._start_ns is None:
                now_ns = time.time_ns()
                self._begin(now_ns - now_ns % self.start_resolution_ns)
            self._finish()
        finally:
            super().close()


class BlfWriter(_PythonCanWriter):
    """Vector's binary log; times are nanoseconds since a start in UTC."""

    #: Where the file's header has its start.
    _START_AT: Final = 40

    earliest_start_ns = 631_152_000 * clock.SECOND  # python-can takes 1990 for the first real year

    def __init__(
        self, path: Path, *, compressed: bool, holds: Holds, metadata: Mapping[str, str]
    ) -> None:
        del metadata  # the format has no place for it
        super().__init__(path, compressed=compressed, holds=holds)
        self._writer = can.BLFWriter(self._sink.binary)

    def _begin(self, start_ns: int) -> None:
        self._writer.start_timestamp = 0.0
        # python-can writes the start when it closes the file: a killed one would not have it.
        file = self._sink.binary
        end = file.tell()
        file.seek(self._START_AT)
        file.write(struct.pack("<8H", *_system_time(start_ns)))
        file.seek(end)

    def sync(self) -> None:
        self._writer._flush()  # what it has gathered: its containers are independent
        super().sync()

    def _finish(self) -> None:
        start_ns = self._start_ns or 0
        self._writer.start_timestamp = start_ns / clock.SECOND
        self._writer.stop_timestamp = max(start_ns, self._latest_ns) / clock.SECOND
        self._writer.stop()


def _system_time(moment_ns: int) -> tuple[int, ...]:
    """Windows' SYSTEMTIME."""
    seconds, rest = divmod(moment_ns, clock.SECOND)
    moment = datetime.fromtimestamp(seconds, UTC)
    return (
        *(moment.year, moment.month, moment.isoweekday() % 7, moment.day),
        *(moment.hour, moment.minute, moment.second, rest // clock.MILLISECOND),
    )


class AscWriter(_PythonCanWriter):
    """Vector's text log. Its header has local time, without a zone."""

    def __init__(
        self, path: Path, *, compressed: bool, holds: Holds, metadata: Mapping[str, str]
    ) -> None:
        del metadata
        super().__init__(path, compressed=compressed, holds=holds)
        self._text = io.TextIOWrapper(self._sink.binary, "utf-8", newline="\n")
        # The header that it writes has the present time, with milliseconds that lack zeros.
        self._writer = can.ASCWriter(io.StringIO())
        self._writer.file = self._text

    def _begin(self, start_ns: int) -> None:
        seconds, rest = divmod(start_ns, clock.SECOND)
        moment = time.strftime("%a %b %d %H:%M:%S.{} %Y", time.localtime(seconds))
        date = moment.format(f"{rest // clock.MILLISECOND:03}")
        self._text.write(
            f"date {date}\nbase hex  timestamps absolute\ninternal events logged\n"
            f"Begin Triggerblock {date}\n 0.000000 Start of measurement\n"
        )
        self._writer.header_written = True
        self._writer.started = self._writer.last_timestamp = 0.0

    def sync(self) -> None:
        self._text.flush()
        super().sync()

    def _finish(self) -> None:
        self._writer.stop()


class TrcWriter(_PythonCanWriter):
    """PEAK's text log, version 2.1."""

    start_resolution_ns = clock.MICROSECOND

    def __init__(
        self, path: Path, *, compressed: bool, holds: Holds, metadata: Mapping[str, str]
    ) -> None:
        del metadata
        super().__init__(path, compressed=compressed, holds=holds)
        self._name = path.name
        self._text = io.TextIOWrapper(self._sink.binary, "utf-8")
        self._writer = can.TRCWriter(self._text)

    def _begin(self, start_ns: int) -> None:
        self._writer.filepath = self._name  # not where it is on this machine
        self._writer.write_header(start_ns / clock.SECOND)
        self._writer.first_timestamp = 0.0

    def sync(self) -> None:
        self._text.flush()
        super().sync()

    def _finish(self) -> None:
        self._writer.stop()
