"""A recording: what happens on its channels goes to its files."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Final

from canbroker.actors.recorder.options import RecordOptions
from canbroker.actors.recorder.output import Output
from canbroker.actors.recorder.side_file import ChannelEnd
from canbroker.actors.specs import RecorderAccount, Totals
from canbroker.delivery.merging import Disorder
from canbroker.delivery.order import Loss, Place
from canbroker.delivery.tap import Event
from canbroker.logs.formats import format_of
from canbroker.system import clock
from canbroker.wire.stream import AdapterClock

#: A change of the wall clock against the monotonic one that is a step. Slewing is less.
_STEP_NS: Final = 100 * clock.MILLISECOND


class Recording:
    """One thread. What writes may raise :class:`OSError`: then :meth:`give_up`, and
    :meth:`go_on` when it may work again."""

    def __init__(self, name: str, options: RecordOptions) -> None:
        """:raises CanInitializationError: the format is unknown, or a package that it needs is
        missing."""
        found, compressed = format_of(Path(), options.format)
        found.check_installed()
        suffix = found.suffixes[0] + (".gz" if compressed else "")
        self._outputs = [
            Output(name, channel, options, suffix)
            for channel in (options.channels if options.separate else [""])
        ]
        of_all = self._outputs * len(options.channels)  # the only one
        outputs = self._outputs if options.separate else of_all
        self._of = dict(zip(options.channels, outputs, strict=True))
        self._offset_ns = clock.wall_ns() - clock.monotonic_ns()

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
            output.open()

    def begin(self, channel: str, place: Place, loss: Loss | None = None) -> None:
        """The channel is open, and its next frame is that of ``place``, behind a ``loss``."""
        self._of[channel].begin(channel, place, loss)

    @property
    def places(self) -> dict[str, Place]:
        """Behind the last frame of each channel that has begun."""
        places: dict[str, Place] = {}
        for output in self._outputs:
            places |= output.places
        return places

    def add(self, events: Iterable[Event]) -> None:
        for event in events:
            self._of[event.channel].add(event)

    def know(self, clocks: Mapping[str, AdapterClock], disorder: Disorder) -> None:
        """Notes how good the times are: the clocks of adapters that stamp frames themselves, and
        the frames that came too late for the order of time."""
        for channel, known in clocks.items():
            self._of[channel].know_clock(channel, known)
        if len(self._outputs) == 1:  # otherwise each file has one channel
            self._outputs[0].add_disorder(disorder)

    def step(self, now_ns: int) -> None:
        """Does what is due; call it after each :meth:`add`, and every second at least."""
        self._note_step_of_clock()
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
        for output in self._outputs:
            output.go_on(why)

    def account(self, trouble: str) -> RecorderAccount:
        """What was done since the recording was made."""
        complete = unfinished = Totals()
        for output in self._outputs:
            complete = complete.plus(output.complete)
            unfinished = unfinished.plus(output.unfinished)
        return RecorderAccount(str(self._outputs[0].path), complete, unfinished, trouble)

    def _note_step_of_clock(self) -> None:
        offset_ns = clock.wall_ns() - clock.monotonic_ns()
        step_ns, self._offset_ns = offset_ns - self._offset_ns, offset_ns
        if abs(step_ns) >= _STEP_NS:
            way = "forward" if step_ns > 0 else "back"
            text = f"the clock of this host was set {way} by {abs(step_ns) / clock.SECOND:.3f} s"
            for output in self._outputs:
                output.note("clock", text)
