"""The files of a recording that follow each other, for all of its channels or for one."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from canbroker.actors.recorder.conversion import Conversions
from canbroker.actors.recorder.open_file import Lost, OpenFile, file_name, stem
from canbroker.actors.recorder.options import RecordOptions
from canbroker.actors.recorder.recovery import complete, files_of
from canbroker.actors.recorder.side_file import (
    CONVERTING,
    OPEN,
    ChannelEnd,
    SideFile,
    part_of,
    side_of,
    utc,
)
from canbroker.actors.recorder.waiting import WaitingFile
from canbroker.actors.specs import Totals
from canbroker.delivery.merging import Disorder
from canbroker.delivery.order import Loss, Place
from canbroker.delivery.tap import (
    Dropped,
    Ended,
    Event,
    Frames,
    Interrupted,
    Missed,
    Restarted,
    Resumed,
    Silent,
)
from canbroker.logs.records import Record
from canbroker.model.frame import EchoFrame
from canbroker.system import clock
from canbroker.wire.stream import AdapterClock

#: How often what was written is made certain.
SYNC_NS: Final = clock.SECOND

#: The last file is converted within this time, as a rule, when a recording is stopped.
_CONVERT_S: Final = 8.0

_MIB: Final = 1 << 20

_logger = logging.getLogger(__name__)


class Closed(NamedTuple):
    """A complete file, and how large it is with its side file."""

    number: int
    path: Path
    side: Path
    size: int


class Output:
    """Writes events to a file, and begins another one when that is full.

    Methods that write may raise :class:`OSError`; then :meth:`give_up`, and :meth:`go_on` when it
    may work again. ``path`` is the file that is being written, or the last one; ``complete``: what
    is in the files that it has completed. ``until_ns``: a triggered recording writes up to this
    time, as far as that is certain; 0 while it waits.
    """

    def __init__(self, recording: str, output: str, options: RecordOptions, suffix: str) -> None:
        """``output``: the channel, if the files are for one; ``suffix`` of the format."""
        self.path = Path(options.directory)
        self.until_ns = 0
        self._recording = recording
        self._output = output
        self._options = options
        self._suffix = suffix
        self._directory = Path(options.directory)
        self._ends: dict[str, ChannelEnd] = {}
        self._file: OpenFile | None = None
        self._unfinished: SideFile | None = None  # of a file that was given up
        self._waiting: WaitingFile | None = None  # of a triggered recording
        if options.trigger:
            name = f"{stem(recording, output)}.waiting"
            self._waiting = WaitingFile(self._directory / name, recording, output)
        self._unnoted: list[Lost] = []  # for the next file
        self._left: list[SideFile] = []  # by recorders before us
        self._number = 0
        self._closed: list[Closed] = []
        self.complete = Totals()
        self._sync_due = 0
        self._conversions = Conversions(self._directory)
        self._gathered: list[Record] = []  # not written yet

    @property
    def unfinished(self) -> Totals:
        """Of the file that is being written, if there is one."""
        file = self._file
        side = self._unfinished if file is None else file.side
        if side is None:
            return Totals()
        size = side.bytes if file is None else file.size
        return Totals(1, side.frames, size, side.lost, side.unfit)

    @property
    def places(self) -> Mapping[str, Place]:
        """Behind the last frame of each channel."""
        return {channel: end.place for channel, end in self._ends.items()}

    # ---------------------------------------------------------------------------- beginning

    def left(self) -> dict[str, ChannelEnd]:
        """How far a recorder before us has come; nothing if it was told to stop.

        :raises OSError: the directory cannot be read.
        """
        self._left = files_of(self._directory, self._recording, self._output)
        last = self._left[-1] if self._left else None
        if self._waiting is not None and (last is None or last.state != OPEN):
            self._ends = _latest(self._waiting.read(), {} if last is None else last.channels)
        elif last is not None and not last.stopped:
            self.until_ns = last.until_ns
            # Of channels that are not there again yet, too: the next side file has to know them.
            self._ends = {channel: copy(end) for channel, end in last.channels.items()}
        return dict(self._ends)

    def complete_left(self, continues: Collection[str]) -> None:
        """Completes the files that a recorder before us has left open.

        :param continues: the channels that have everything since then.
        """
        for side in self._left:
            if side.state == OPEN:
                cut = any(channel in continues for channel in side.channels)
                complete(self._directory, side, "the recorder ended", cut=cut)
                self.complete = self.complete.plus(_totals(side))
            self._convert(side)
        self._closed = [self._sized(side) for side in self._left]
        self._number = max((closed.number for closed in self._closed), default=0)

    def begin(self, channel: str, place: Place, loss: Loss | None) -> None:
        """The channel is open; its next frame is that of ``place``, behind a ``loss``."""
        self._ends[channel] = ChannelEnd(*place)
        certain = self._file.certain if self._file is not None else self._unfinished
        if certain is not None:
            certain.channels[channel] = ChannelEnd(*place)
        if loss is not None and self._waiting is not None and not self.until_ns:
            _logger.warning("a trigger in what is lost of %s is not seen: %s", channel, loss)
        elif loss is not None:
            self._unnoted.append(Lost(channel, loss.frames, str(loss)))

    def open(self) -> None:
        """Opens the first file."""
        self._directory.mkdir(parents=True, exist_ok=True)
        self._next_file()

    def wait(self) -> None:
        """Notes how far it has looked for the trigger, and that it can write there."""
        if self._waiting is not None:
            self._directory.mkdir(parents=True, exist_ok=True)
            self._waiting.write(self._ends)
            self._sync_due = clock.monotonic_ns() + SYNC_NS

    # ------------------------------------------------------------------------------ writing

    def add(self, event: Event) -> None:
        """Gathers the frames of an event for the next :meth:`step`, or notes what has happened.

        Gathers, because frames of two full channels alternate: an event may have a single one.
        """
        file = self._file
        if file is None:
            raise RuntimeError("a file must be open")
        if isinstance(event, Frames):
            channel, frames = event
            self._gathered += _records(channel, frames, self._ends[channel].number)
        else:
            self._flush()
            _note_event(file, event)
        self.pass_by(event)

    def _flush(self) -> None:
        records, self._gathered = self._gathered, []
        if records and self._file is not None:
            self._file.write(records)

    def pass_by(self, event: Event) -> None:
        """Goes to the place behind an event."""
        end = self._ends[event.channel]
        match event:
            case Frames(_, frames):
                end.number += len(frames)
            case Missed(channel, loss) if loss.frames is not None:
                self._ends[channel] = ChannelEnd(loss.epoch, loss.first + loss.frames)
            case Restarted(channel, place):
                self._ends[channel] = ChannelEnd(*place)
            case Ended():
                end.over = True

    def pass_over(self, channel: str, count: int) -> None:
        """Goes behind frames that are not to be recorded."""
        self._ends[channel].number += count

    def add_past(self, past: Mapping[str, list[EchoFrame]]) -> None:
        """Gathers frames that came right before the places of their channels, in order of time."""
        records = [
            record
            for channel, frames in past.items()
            for record in _records(channel, frames, self._ends[channel].number - len(frames))
        ]
        records.sort(key=lambda record: record.frame.timestamp_ns)
        if self._file is not None:
            self._gathered += records

    def write_until(self, until_ns: int) -> None:
        """Notes up to which time a triggered recording writes."""
        if self._file is not None:
            self._file.side.until_ns = until_ns

    def note(self, what: str, text: str) -> None:
        """Notes something about all channels."""
        self._flush()
        if self._file is not None:
            self._file.note(what, text=text)

    def know_clock(self, channel: str, known: AdapterClock) -> None:
        """The clock that stamps the channel's frames, other than the host's."""
        if self._file is not None:
            self._file.side.clocks[channel] = known

    def add_disorder(self, disorder: Disorder) -> None:
        """Frames came too late for their place among those of other channels."""
        if self._file is not None and disorder.frames:
            side = self._file.side
            side.out_of_order += disorder.frames
            side.out_of_order_ns = max(side.out_of_order_ns, disorder.worst_ns)

    def step(self, now_ns: int) -> None:
        """Writes what was gathered; makes it certain, and begins another file, if that is due."""
        self._flush()
        file, options = self._file, self._options
        if now_ns >= self._sync_due:
            self._conversions.step(now_ns)
            if file is None:
                self.wait()
        if file is None:
            return
        while self._unnoted:
            file.note_lost(self._unnoted.pop())
        is_full = options.rotate_mb is not None and file.size >= options.rotate_mb * _MIB
        is_old = (
            options.rotate_s is not None
            and now_ns - file.began_ns >= options.rotate_s * clock.SECOND
        )
        if is_full or is_old:
            self._close(file, "another file follows")
            self._next_file()
        elif now_ns >= self._sync_due:
            file.sync(self._ends)
            self.until_ns = file.side.until_ns
            self._sync_due = now_ns + SYNC_NS

    def complete_file(self, why: str, *, stopped: bool = False) -> None:
        """Completes the file, if one is open; no other follows before :meth:`open`."""
        self._flush()
        if self._file is not None:
            self._close(self._file, why, stopped=stopped)
        self.until_ns = 0  # not before: if that failed, what is not certain needs another

    def close(self, why: str, *, stopped: bool) -> None:
        """Completes the last file. ``stopped``: the recording does not go on here."""
        self.complete_file(why, stopped=stopped)
        if self._waiting is not None and stopped:
            self._waiting.remove()
        else:
            self.wait()
        self._conversions.wait(_CONVERT_S if stopped else 0)

    def give_up(self) -> None:
        """Closes the file as it is."""
        file, self._file = self._file, None
        self._gathered = []
        if file is not None:
            self._unfinished = file.certain
            file.give_up()

    def go_on(self, why: str, *, is_writing: bool) -> None:
        """After :meth:`give_up`: completes that file as far as it is certain, and opens another.

        Everything behind the :attr:`places` has to be written again. ``why`` the file was given up.

        :param is_writing: rather than waiting for a trigger.
        """
        self._directory.mkdir(parents=True, exist_ok=True)
        side = self._unfinished
        if side is not None:
            self._ends = {channel: copy(end) for channel, end in side.channels.items()}
            gone = complete(self._directory, side, why, cut=True)
            self._unfinished = None
            if gone:
                self._unnoted.append(
                    Lost("", gone, f"{gone} frames were in {side.file}: {side.why}")
                )
            self._keep(side)
        if is_writing:
            self.open()

    # ---------------------------------------------------------------------------- the files

    def _next_file(self) -> None:
        number = self._number + 1
        name = file_name(self._recording, self._output, number, self._suffix)
        side = SideFile(
            recording=self._recording,
            output=self._output,
            file=name,
            format=self._options.format,
            number=number,
            began=utc(clock.wall_ns()),
            channels=dict(self._ends),
            until_ns=self.until_ns,
        )
        self._file = OpenFile(self._directory, side)
        self._number = number
        self.path = part_of(self._file.path)
        self._sync_due = clock.monotonic_ns() + SYNC_NS
        self._remove_oldest()

    def _close(self, file: OpenFile, why: str, *, stopped: bool = False) -> None:
        file.close(self._ends, why, stopped=stopped)
        self._file = None
        self.until_ns = file.side.until_ns
        self.path = file.path
        self._keep(file.side)

    def _keep(self, side: SideFile) -> None:
        """Accounts for a file that we have completed, and begins its conversion if it has one."""
        self.complete = self.complete.plus(_totals(side))
        self._convert(side)
        self._closed.append(self._sized(side))

    def _convert(self, side: SideFile) -> None:
        if side.state == CONVERTING:
            self._conversions.begin(side.file)

    def _sized(self, side: SideFile) -> Closed:
        path = self._directory / side.file
        size = side.bytes + len(msgspec.json.encode(side))
        return Closed(side.number, path, side_of(path), size)

    def _remove_oldest(self) -> None:
        """Removes the oldest complete files while all together are larger than they may be."""
        if self._options.keep_mb is None:
            return
        total = sum(closed.size for closed in self._closed)
        while self._closed and total > self._options.keep_mb * _MIB:
            oldest = min(self._closed)
            self._closed.remove(oldest)
            total -= oldest.size
            _logger.info("removing %s: the recording may keep no more", oldest.path)
            oldest.path.unlink(missing_ok=True)
            part_of(oldest.path).unlink(missing_ok=True)
            oldest.side.unlink(missing_ok=True)


def _note_event(file: OpenFile, event: Event) -> None:
    match event:
        case Missed(channel, loss):
            file.note_lost(Lost(channel, loss.frames, str(loss)))
        case Restarted(channel, _):
            file.note("restarted", channel, text="the channel's process was replaced")
        case Dropped(channel, number):
            text = f"{number} frames were lost before they reached the broker"
            file.note("dropped", channel, frames=number, text=text)
        case Interrupted(channel, reason):
            file.note("interrupted", channel, text=reason or "the adapter was away")
        case Silent(channel, reason):
            file.note("silent", channel, text=reason)
        case Resumed(channel):
            file.note("resumed", channel, text="frames can be received again")
        case Ended(channel, reason):
            file.note("ended", channel, text=reason)


def _records(channel: str, frames: Sequence[EchoFrame], first: int) -> list[Record]:
    return [
        Record(frame, channel, frame.origin is not None, frame.origin, number)
        for number, frame in enumerate(frames, first)
    ]


def _latest(
    looked: Mapping[str, ChannelEnd], written: Mapping[str, ChannelEnd]
) -> dict[str, ChannelEnd]:
    """How far was looked for a trigger, but not into what was written for the one before."""
    return {
        channel: copy(max(end, written.get(channel, end), key=lambda each: each.place))
        for channel, end in looked.items()
    }


def _totals(side: SideFile) -> Totals:
    return Totals(1, side.frames, side.bytes, side.lost, side.unfit)
