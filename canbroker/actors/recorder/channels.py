"""The channels that a recorder records: opens them, again if they end, and reads all as one tap.

A channel holds the recorder's route while no recorder is there: its frames are kept in the ring and
numbered, so that the next recorder asks for what it has missed.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from canbroker.actors.held_channel import HeldChannel
from canbroker.actors.recorder.options import HOLD_S, RecordOptions, holder_of
from canbroker.actors.recorder.side_file import ChannelEnd
from canbroker.client import Bus
from canbroker.delivery.merging import Disorder
from canbroker.delivery.order import Loss, Place
from canbroker.delivery.tap import Ended, Event, Tap
from canbroker.errors import CanError
from canbroker.model.frame import EchoFrame
from canbroker.system import clock
from canbroker.wire.stream import AdapterClock

_POLL_S: Final = 0.02

#: A channel answers at once, unless it ends.
_RELEASE_S: Final = 1.0

_logger = logging.getLogger(__name__)


class Beginning(NamedTuple):
    """A channel was opened: its next frame is that of ``place``, behind a ``loss``, and it has
    ``published`` frames up to there. ``continues``: it goes on where the recorder before us has
    ended."""

    channel: str
    place: Place
    loss: Loss | None
    published: Place
    continues: bool


class _Channel(HeldChannel):
    """One channel, from where the last recorder has ended."""

    def __init__(self, name: str, options: RecordOptions, address: str, holder: str) -> None:
        given: dict[str, Any] = {
            "can_filters": options.subscribed(),
            "broker": address,
            **options.parameters,
        }
        super().__init__(
            name,
            holder,
            HOLD_S,
            lambda: Bus(name, options.interface, ignore_config=True, **given),
            "recorded",
        )
        self._before: ChannelEnd | None = None

    def begin(self, before: ChannelEnd | None) -> None:
        """Begins to open it. ``before``: where the last recorder has ended."""
        self._before = before
        self.open(self._epoch)

    def poll(self, now_ns: int) -> Beginning | None:
        """How it begins, if it was just opened. If it cannot be opened, it is tried again."""
        held = self.opened(now_ns, self._epoch)
        if held is None or self.tapped is None:
            return None
        before, self._before = self._before, None
        place, loss = self.tapped.place, None
        continues = held.continues and before is not None and not before.over
        if before is not None and continues:
            place = before.place
        elif held.epoch == place.epoch:
            place = min(place, Place(held.epoch, held.since))
        if before is not None and not before.over and not continues:
            loss = Loss(before.epoch, before.number, None, "nothing has kept them")
        self.tapped.go_back(place)
        published = Place(held.epoch, held.next_seq)
        return Beginning(self.name, place, loss, published, continues=continues)

    @property
    def _epoch(self) -> int | None:
        return None if self._before is None else self._before.epoch


class Channels:
    """All channels of a recording. One thread."""

    def __init__(self, recording: str, options: RecordOptions, address: str) -> None:
        """``address`` of the broker. Opens nothing."""
        self._holder = holder_of(recording)
        self._channels = {
            name: _Channel(name, options, address, self._holder) for name in options.channels
        }
        #: Up to where channels have published, when the recording was to end.
        self.published: dict[str, Place] = {}
        self._tap: Tap | None = None
        self._late = 0  # frames of this tap that are accounted for

    @property
    def problems(self) -> list[str]:
        """Why channels are not open."""
        return [
            f"channel {channel.name!r}: {channel.problem}"
            for channel in self._channels.values()
            if channel.problem
        ]

    @property
    def clocks(self) -> dict[str, AdapterClock]:
        """The clocks of adapters that stamp frames themselves, as far as they are known."""
        return {
            name: channel.tapped.feed.clock
            for name, channel in self._channels.items()
            if channel.tapped is not None and channel.tapped.feed.clock is not None
        }

    def disorder(self) -> Disorder:
        """The frames that came too late for their place among other channels', since the last
        call."""
        found = Disorder() if self._tap is None else self._tap.disorder
        frames, self._late = found.frames - self._late, found.frames
        return Disorder(frames, found.worst_ns) if frames else Disorder()

    def open(self, before: Mapping[str, ChannelEnd], patience_s: float) -> list[Beginning]:
        """Opens the channels, and waits ``patience_s`` at most for those that take their time.

        :param before: where the last recorder has ended on each.
        """
        for name, channel in self._channels.items():
            channel.begin(before.get(name))
        deadline = clock.deadline_after(patience_s)
        begun = self.poll({})
        while clock.remaining_ns(deadline) and not self._are_tried():
            time.sleep(_POLL_S)
            begun += self.poll({each.channel: each.place for each in begun})
        return begun

    def poll(self, places: Mapping[str, Place]) -> list[Beginning]:
        """The channels that were just opened.

        :param places: behind what was read from the others, which go on from there.
        """
        now_ns = clock.monotonic_ns()
        begun = [
            begins
            for channel in self._channels.values()
            if (begins := channel.poll(now_ns)) is not None
        ]
        if begun:
            others = places.keys() - {each.channel for each in begun}
            self.go_back({name: places[name] for name in others})
        return begun

    def receive(self, timeout: float) -> list[Event]:
        """As :meth:`Tap.receive`; channels that end are closed, and opened again later."""
        if self._tap is None:
            time.sleep(timeout)
            return []
        events = self._tap.receive(timeout)
        ended = [event.channel for event in events if isinstance(event, Ended)]
        for name in ended:
            self._channels[name].end(clock.monotonic_ns())
        if ended:
            self._renew_tap()
        return events

    def go_back(self, places: Mapping[str, Place]) -> None:
        """Reads on from these places, whatever was read from there on."""
        for name, place in places.items():
            tapped = self._channels[name].tapped
            if tapped is not None:
                tapped.go_back(place)
        self._renew_tap()

    def before(self, channel: str, place: Place, seconds: float) -> list[EchoFrame]:
        """The frames of the last ``seconds`` before a place, as far as the channel has them.

        :raises CanOperationError: the channel does not answer.
        """
        tapped = self._channels[channel].tapped
        return [] if tapped is None else tapped.before(place, seconds)

    def release(self) -> None:
        """Ends the holds, as the recording ends, and notes what each channel has published."""
        for name, channel in self._channels.items():
            if channel.tapped is not None:
                try:
                    held = channel.tapped.hold(self._holder, 0, timeout=_RELEASE_S)
                except CanError as error:  # it ends, too, and then its end is read
                    _logger.info("channel %r: %s", name, error)
                    continue
                self.published[name] = Place(held.epoch, held.next_seq)

    def unread(self, places: Mapping[str, Place]) -> dict[str, Place | None]:
        """The channels that have more than was read, and up to where; ``None``: to their end.

        :param places: behind what was read.
        """
        unread: dict[str, Place | None] = {}
        for name, channel in self._channels.items():
            published = self.published.get(name)
            if channel.tapped is not None and (published is None or published > places[name]):
                unread[name] = published
        return unread

    def close(self) -> None:
        """Closes what is open."""
        if self._tap is not None:
            self._tap.close()
        for channel in self._channels.values():
            channel.end(clock.monotonic_ns())

    def _are_tried(self) -> bool:
        return all(channel.is_tried for channel in self._channels.values())

    def _renew_tap(self) -> None:
        if self._tap is not None:
            self._tap.close()
        feeds = [channel.tapped.feed for channel in self._channels.values() if channel.tapped]
        self._tap = Tap(feeds) if feeds else None
        self._late = 0
