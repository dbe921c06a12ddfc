"""A recording: what happens on its channels goes to its files."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Final, TypeAlias

from canbroker.actors.recorder.capture import Capture
from canbroker.actors.recorder.conversion import written_as
from canbroker.actors.recorder.options import RecordOptions
from canbroker.actors.recorder.output import Output
from canbroker.actors.recorder.side_file import ChannelEnd
from canbroker.actors.recorder.trigger import condition
from canbroker.actors.specs import RecorderAccount, Totals
from canbroker.delivery.merging import Disorder
from canbroker.delivery.order import Loss, Place
from canbroker.delivery.tap import Ended, Event, Frames
from canbroker.errors import CanOperationError
from canbroker.logs.formats import format_of, load_writer
from canbroker.model.frame import EchoFrame, describe
from canbroker.system import clock
from canbroker.system.imports import without
from canbroker.wire.stream import AdapterClock

#: A change of the wall clock against the monotonic one that is a step. Slewing is less.
_STEP_NS: Final = 100 * clock.MILLISECOND

#: Called with a channel, a place of its route and a number of seconds; returns the frames of that
#: length of time before the place, oldest first.
Past: TypeAlias = Callable[[str, Place, float], list[EchoFrame]]


class Recording:
    """One thread. What writes may raise :class:`OSError`: then :meth:`give_up`, and
    :meth:`go_on` when it may work again."""

    def __init__(self, name: str, options: RecordOptions, before: Past) -> None:
        """
        :param before: gives access to frames of the past, which precede a trigger.
        :raises CanInitializationError: the format is unknown, or a package that it needs is
            missing; or the trigger has no meaning.
        """
        found, compressed = format_of(Path(), options.format)
        found.check_installed()
        # python-can imports it for MF4 files, which are not written here, and it takes seconds.
        with without("asammdf"):
            load_writer(written_as(options.format))
        suffix = found.suffixes[0] + (".gz" if compressed else "")
        self._of: dict[str, Output] = {}  # by channel
        if options.separate:
            self._of = {each: Output(name, each, options, suffix) for each in options.channels}
        else:
            self._of = dict.fromkeys(options.channels, Output(name, "", options, suffix))
        self._outputs = list(dict.fromkeys(self._of.values()))  # each once
        self._before = before
        self._before_s = options.before_s
        self._capture: Capture | None = None
        if options.trigger:
            self._capture = Capture(condition(options.trigger, options.database), options.after_s)
        self._wanted = options.filter_set() if options.trigger and options.filters else None
        self._trigger = options.trigger
        self._offset_ns = clock.wall_ns() - clock.monotonic_ns()
        self._behind: dict[str, Place] = {}  # up to where channels have more that was missed
        self._is_idle = False

    def left(self) -> dict[str, ChannelEnd]:
        """How far a recorder before us has come on each channel, if it did not mean to end.

        :raises OSError: the directory cannot be read.
        """
        ends: dict[str, ChannelEnd] = {}
        for output in self._outputs:
            ends |= output.left()
        return ends

    def open(self, continues: Collection[str]) -> None:
        """Completes what a recorder before us has left open, and opens new files.

        :param continues: the channels that have everything since then.
        """
        for output in self._outputs:
            output.complete_left(continues)
        capture = self._capture
        if capture is not None:
            capture.until_ns = max(output.until_ns for output in self._outputs)
        if capture is None or capture.until_ns:
            self._open_files()
            return
        for output in self._outputs:
            output.wait()

    def begin(self, channel: str, place: Place, loss: Loss | None, published: Place) -> None:
        """The channel is open, and its next frame is that of ``place``, behind a ``loss``.

        :param published: behind the frames that it has published already.
        """
        self._of[channel].begin(channel, place, loss)
        self._behind[channel] = published

    @property
    def places(self) -> dict[str, Place]:
        """Behind the last frame of each channel that has begun."""
        places: dict[str, Place] = {}
        for output in self._outputs:
            places |= output.places
        return places

    def add(self, events: Iterable[Event]) -> None:
        """Takes events in; the next :meth:`step` writes their frames."""
        self._follow_clock()  # first: the frames may be those after a step
        self._is_idle = True
        for event in events:
            self._is_idle = False
            if isinstance(event, Ended):
                self._behind.pop(event.channel, None)
            if self._capture is None:
                self._of[event.channel].add(event)
            elif isinstance(event, Frames):
                self._add_around_trigger(self._capture, event)
            elif self._capture.until_ns:
                self._of[event.channel].add(event)
            else:
                self._of[event.channel].pass_by(event)

    def know(self, clocks: Mapping[str, AdapterClock], disorder: Disorder) -> None:
        """Notes how good the times are: the clocks of adapters that stamp frames themselves, and
        the frames that came too late for the order of time."""
        for channel, known in clocks.items():
            self._of[channel].know_clock(channel, known)
        if len(self._outputs) == 1:  # otherwise each file has one channel
            self._outputs[0].add_disorder(disorder)

    def step(self, now_ns: int) -> None:
        """Does what is due; call it after each :meth:`add`, and every second at least."""
        self._follow_clock()
        if self._capture is not None and self._has_all() and self._capture.is_over(clock.wall_ns()):
            self._complete_files()
        for output in self._outputs:
            output.step(now_ns)

    def close(self, why: str, *, stopped: bool) -> None:
        """Completes the files. ``stopped``: the recording ends here, and does not go on later."""
        for output in self._outputs:
            output.close(why, stopped=stopped)

    def give_up(self) -> None:
        """Closes the files as they are; what is not certain will be written again."""
        for output in self._outputs:
            output.give_up()

    def go_on(self, why: str) -> None:
        """After :meth:`give_up`: goes back to the last certain :attr:`places`, with new files.

        :param why: the files were given up.
        """
        self._behind |= self.places
        until_ns = max(output.until_ns for output in self._outputs)
        if self._capture is not None:
            # A trigger that is not certain is found again, with what was before it.
            self._capture.until_ns = until_ns
        for output in self._outputs:
            output.go_on(why, is_writing=self._capture is None or bool(until_ns))

    def account(self, trouble: str) -> RecorderAccount:
        """What was done since the recording was made."""
        complete = unfinished = Totals()
        for output in self._outputs:
            complete = complete.plus(output.complete)
            unfinished = unfinished.plus(output.unfinished)
        return RecorderAccount(str(self._outputs[0].path), complete, unfinished, trouble)

    def _has_all(self) -> bool:
        """Whether no frames are under way that are older than now."""
        if self._behind:
            places = self.places
            self._behind = {
                channel: place for channel, place in self._behind.items() if places[channel] < place
            }
        return self._is_idle and not self._behind

    def _add_around_trigger(self, capture: Capture, event: Frames) -> None:
        """Writes the frames that are to be written, with those before the trigger."""
        channel, frames = event
        output = self._of[channel]
        for stretch in capture.split(frames):
            if stretch.began:
                self._begin_capture(channel, stretch.frames[0])
            part = Frames(channel, stretch.frames)
            if not stretch.is_written:
                output.pass_by(part)
                continue
            kept = self._kept(stretch.frames)
            output.add(Frames(channel, kept))
            output.pass_over(channel, len(stretch.frames) - len(kept))
            for each in self._outputs:
                each.write_until(capture.until_ns)
            if stretch.ended:
                self._complete_files()

    def _begin_capture(self, channel: str, trigger: EchoFrame) -> None:
        self._open_files()
        oldest_ns = trigger.timestamp_ns - int(self._before_s * clock.SECOND)
        since_s = self._before_s + max(0, clock.wall_ns() - trigger.timestamp_ns) / clock.SECOND
        for output in self._outputs:
            past: dict[str, list[EchoFrame]] = {}
            for name, place in output.places.items():
                try:
                    found = self._before(name, place, since_s)
                except CanOperationError as error:
                    output.note("lost", f"what was before the trigger: {error}")
                    continue
                past[name] = [each for each in self._kept(found) if each.timestamp_ns >= oldest_ns]
            output.add_past(past)
            output.note("trigger", f"{self._trigger}: {describe(trigger)} on {channel}")

    def _kept(self, frames: list[EchoFrame]) -> list[EchoFrame]:
        """Those to record; the others are received because they may be the trigger."""
        wanted = self._wanted
        if wanted is None:
            return frames
        return [each for each in frames if wanted.matches(each.arbitration_id, each.flags)]

    def _open_files(self) -> None:
        for output in self._outputs:
            output.open()

    def _complete_files(self) -> None:
        for output in self._outputs:
            output.complete_file("the time after the trigger is over")

    def _follow_clock(self) -> None:
        """Notes a step of the host's clock, with which the end of a capture moves."""
        offset_ns = clock.wall_ns() - clock.monotonic_ns()
        step_ns, self._offset_ns = offset_ns - self._offset_ns, offset_ns
        if abs(step_ns) >= _STEP_NS:
            way = "forward" if step_ns > 0 else "back"
            text = f"the clock of this host was set {way} by {abs(step_ns) / clock.SECOND:.3f} s"
            for output in self._outputs:
                output.note("clock", text)
            if self._capture is not None and self._capture.until_ns:
                self._capture.until_ns += step_ns
                for output in self._outputs:
                    output.write_until(self._capture.until_ns)
