"""Puts the events of several channels into one order of time.

Channels deliver through processes of their own, so a frame may arrive after a later one of another
channel. Each is held back until later ones of all other channels have come, or for a short time: a
silent channel delays the others no longer than that.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Final, Generic, NamedTuple, TypeVar

from canbroker.model.frame import EchoFrame
from canbroker.system import clock

#: A frame is held back at most this long. Frames are under way for a millisecond or two, on a busy
#: machine for ten.
HOLD_NS: Final = 20 * clock.MILLISECOND

#: The most frames that are held back, some ten megabytes.
MAX_HELD: Final = 65_536

#: A channel whose times step back by more has had its clock set; it is not out of order.
_SET_NS: Final = clock.SECOND

_E = TypeVar("_E")


class Disorder(NamedTuple):
    """The number of frames that came too late for their place, and the most that one was late."""

    frames: int = 0
    worst_ns: int = 0


class _Held(NamedTuple, Generic[_E]):
    """An event, what time its channel has reached with it, and when it arrived."""

    reached_ns: int
    arrived_ns: int
    event: _E


class _Channel(Generic[_E]):
    def __init__(self) -> None:
        self.held: deque[_Held[_E]] = deque()
        self.reached_ns = -1
        self.ended = False


class Merger(Generic[_E]):
    """Merges the events of several channels. One thread; the time is passed in.

    The order of each channel is kept. ``disorder`` is the account of frames that came too late.
    """

    def __init__(
        self,
        channels: int,
        frames_of: Callable[[_E], list[EchoFrame]],
        with_frames: Callable[[_E, list[EchoFrame]], _E],
    ) -> None:
        """
        :param frames_of: the frames of an event, none if it is another one.
        :param with_frames: such an event with other frames of its channel.
        """
        self.disorder = Disorder()
        self.held = 0  # frames
        self._channels: list[_Channel[_E]] = [_Channel() for _ in range(channels)]
        self._is_alone = channels == 1  # in order already, so its frames are not looked at
        self._frames_of = frames_of
        self._with_frames = with_frames
        self._told_ns = 0
        self._was_set = False  # a clock, so that what is held back is of another time

    def add(self, index: int, events: Sequence[_E], now_ns: int) -> None:
        """Adds events of a channel, in their order."""
        channel = self._channels[index]
        for event in events:
            frames = self._frames_of(event)
            if not self._is_alone:
                self._follow(channel, frames)
            self.held += len(frames)
            channel.held.append(_Held(channel.reached_ns, now_ns, event))

    def end(self, index: int) -> None:
        """No more events of a channel will come."""
        self._channels[index].ended = True

    def due_ns(self) -> int | None:
        """When to :meth:`take` at the latest; ``None``: nothing is held back."""
        heads = [channel.held[0].arrived_ns for channel in self._channels if channel.held]
        return min(heads) + HOLD_NS if heads else None

    def take(self, now_ns: int) -> list[_E]:
        """The events whose turn it is."""
        if self._is_alone or self.held > MAX_HELD or self._was_set:
            return self.rest()
        horizon_ns = self._horizon(now_ns)
        return self._merged([self._until(horizon_ns, channel) for channel in self._channels])

    def rest(self) -> list[_E]:
        """All events that are held back."""
        parts = [[held.event for held in channel.held] for channel in self._channels]
        self.held = 0
        self._was_set = False
        for channel in self._channels:
            channel.held.clear()
        return self._merged(parts)

    def _follow(self, channel: _Channel[_E], frames: list[EchoFrame]) -> None:
        """Notes what time a channel has reached, and whether its clock was set back."""
        reached_ns = channel.reached_ns
        for frame in frames:
            before_ns, reached_ns = reached_ns, _later(frame.timestamp_ns, reached_ns)
            if reached_ns < before_ns:
                self._was_set = True
        channel.reached_ns = reached_ns

    def _horizon(self, now_ns: int) -> int:
        """The time up to which all events have come, or were waited for long enough."""
        live = [channel.reached_ns for channel in self._channels if not channel.ended]
        if not live:
            return max((channel.reached_ns for channel in self._channels), default=0)
        horizon_ns = min(live)
        for channel in self._channels:
            for held in channel.held:
                if now_ns - held.arrived_ns < HOLD_NS:
                    break
                horizon_ns = max(horizon_ns, held.reached_ns)
        return horizon_ns

    def _until(self, horizon_ns: int, channel: _Channel[_E]) -> list[_E]:
        events: list[_E] = []
        while channel.held and channel.held[0].reached_ns <= horizon_ns:
            event = channel.held.popleft().event
            self.held -= len(self._frames_of(event))
            events.append(event)
        if channel.held:
            reached_ns, arrived_ns, event = channel.held[0]
            frames = self._frames_of(event)
            count = next(
                (at for at, frame in enumerate(frames) if frame.timestamp_ns > horizon_ns),
                0,
            )
            if count:
                events.append(self._with_frames(event, frames[:count]))
                self.held -= count
                rest = self._with_frames(event, frames[count:])
                channel.held[0] = _Held(reached_ns, arrived_ns, rest)
        return events

    def _merged(self, parts: list[list[_E]]) -> list[_E]:
        filled = [part for part in parts if part]
        merged = self._by_time(filled) if len(filled) > 1 else filled[0] if filled else []
        if not self._is_alone:
            for event in merged:
                self._account(self._frames_of(event))
        return merged

    def _by_time(self, parts: list[list[_E]]) -> list[_E]:
        merged: list[_E] = []
        streams = [self._timed(index, part) for index, part in enumerate(parts)]
        items = heapq.merge(*streams, key=itemgetter(0))
        for index, group in groupby(items, itemgetter(1)):
            same = list(group)
            if index is None:
                merged += (event for _, _, event, _ in same)
            else:
                merged.append(self._with_frames(same[0][2], [frame for *_, frame in same if frame]))
        return merged

    def _timed(
        self, index: int, events: list[_E]
    ) -> Iterator[tuple[int, int | None, _E, EchoFrame | None]]:
        """Each frame with its time and its channel; another event follows the frame before it."""
        at_ns = 0
        for event in events:
            frames = self._frames_of(event)
            for frame in frames:
                at_ns = _later(frame.timestamp_ns, at_ns)
                yield at_ns, index, event, frame
            if not frames:
                yield at_ns, None, event, None

    def _account(self, frames: list[EchoFrame]) -> None:
        """Counts frames that are earlier than one that was handed over before them."""
        late, worst_ns = 0, 0
        for frame in frames:
            late_ns = self._told_ns - frame.timestamp_ns
            self._told_ns = _later(frame.timestamp_ns, self._told_ns)
            if 0 < late_ns <= _SET_NS:
                late += 1
                worst_ns = max(worst_ns, late_ns)
        if late:
            before = self.disorder
            self.disorder = Disorder(before.frames + late, max(before.worst_ns, worst_ns))


def _later(time_ns: int, than_ns: int) -> int:
    """The later one of a time and the time before it, unless a clock was set back."""
    return than_ns if than_ns - _SET_NS <= time_ns < than_ns else time_ns
