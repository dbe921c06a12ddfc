"""Answers subscribers' requests for past frames, from the ring of their channel."""

from __future__ import annotations

import bisect
import operator
from collections.abc import Callable
from typing import Final, Generic, NamedTuple, TypeAlias, TypeVar

import msgspec

from canbroker.delivery.ring import Mark, Position, Ring, Segment
from canbroker.delivery.routes import Route, key_of
from canbroker.model.filters import FilterSet
from canbroker.model.frame import HARDWARE_TIMESTAMP, Frame
from canbroker.system import clock
from canbroker.wire import WireError, control, topics
from canbroker.wire.replay import (
    MAX_REPLAYED,
    History,
    Past,
    Replay,
    Replayed,
    encode_frames,
)

#: Frames that are examined for one answer, whether they pass the filters or not; this takes less
#: than a millisecond.
_LOOKED_AT: Final = 1024

#: A route's part of a segment: its key, the segment's number, and the mark, because the numbers of
#: a topic may start again there.
_Stretch: TypeAlias = tuple[int, int, Mark]

#: The most stretches that are remembered; the least recently stored is forgotten first.
_REMEMBERED: Final = 1024

#: Frames between two places that are remembered.
_APART: Final = 256

_T = TypeVar("_T")

_number = operator.attrgetter("seq")


class Served(NamedTuple):
    """Counts of the frames that a client has requested: frames it received, and frames gone."""

    replayed: int = 0
    gone: int = 0


class Replayer:
    """The replay methods of a channel. One thread, that of the ring.

    ``served``: by client; its users remove the entries. ``gone``: of all clients, those that have
    left included.
    """

    def __init__(
        self, ring: Ring, channel: str, epoch: int, route: Callable[[bytes], Route | None]
    ) -> None:
        """``route`` finds an open route by its topic."""
        self._ring = ring
        self._channel = channel
        self._epoch = epoch
        self._route = route
        self._places: _Recent[list[Mark]] = _Recent()  # on the way, in order
        self._lasts: _Recent[int] = _Recent()
        self.served: dict[str, Served] = {}
        self.gone = 0

    def replay(self, params: Replay) -> msgspec.Struct | None:
        """The frames of a range of numbers, or the first of them.

        ``None``: they were not reached yet, because they are far from a known place. Ask again to
        continue.
        """
        topic = params.topic.encode()
        try:
            filters = self._filters(topic)
        except WireError as error:
            return control.ErrorResult("malformed", str(error))
        segments = self._ring.route(params.epoch, key_of(topic))
        route = self._route(topic)
        if params.epoch == self._epoch and route is not None:
            last = route.next_seq
        elif segments:
            last = self._last(segments[-1], key_of(topic), filters)
        elif self._ring.shows_that_none(params.epoch, key_of(topic)):
            then = self._then(params, is_complete=True)
            return Replayed(params.first_seq, True, encode_frames([]), then)
        else:
            return control.ErrorResult("gone", f"nothing is left of epoch {params.epoch}")
        end = last if params.end_seq is None else min(params.end_seq, last)
        found = self._range(segments, key_of(topic), filters, params.first_seq, end)
        if found is None:
            return None
        begin, complete, frames = found
        gone = begin - params.first_seq
        self.gone += gone
        before = self.served.get(params.client_id, Served())
        self.served[params.client_id] = Served(before.replayed + len(frames), before.gone + gone)
        then = self._then(params, is_complete=complete)
        return Replayed(begin, complete, encode_frames(frames), then)

    def _then(self, params: Replay, *, is_complete: bool) -> int:
        """Which epoch follows, when the end of one is told: several may have passed unnoticed."""
        if not is_complete or params.end_seq is not None or params.epoch == self._epoch:
            return 0
        return self._ring.following(params.epoch, key_of(params.topic.encode()))

    def history(self, params: History) -> msgspec.Struct:
        """The frames since a time, or the first of them."""
        topic = params.topic.encode()
        try:
            filters = self._filters(topic)
        except WireError as error:
            return control.ErrorResult("malformed", str(error))
        since_ns = int(params.seconds * clock.SECOND)
        until = Position(*params.until) if params.until else self._ring.end()
        after = (
            Position(*params.after)
            if params.after
            else self._ring.since(clock.monotonic_ns() - since_ns)
        )
        answer = _Answer()
        for segment in self._ring.after(after.segment):
            if segment.number > until.segment or answer.full:
                break
            oldest_ns = clock.wall_ns() - since_ns
            after = self._past(segment, filters, after, until, oldest_ns, answer)
        if not answer.full:
            after = until
        route = self._route(topic)
        next_seq = route.next_seq if route else 0
        return Past(self._epoch, next_seq, after, until, answer.encoded())

    def _past(
        self,
        segment: Segment,
        filters: FilterSet,
        after: Position,
        until: Position,
        oldest_ns: int,
        answer: _Answer,
    ) -> Position:
        """Adds the requested frames of one segment; returns the place that it has reached."""
        begin = after.offset if after.segment == segment.number else 0
        last = until.offset if until.segment == segment.number else segment.count
        end = answer.look_at(begin, last)
        for index, frame, raw in self._ring.matching(segment, filters, begin, end):
            if frame.timestamp_ns < oldest_ns and not _by_adapter(frame):
                continue
            if not answer.add(raw):
                return Position(segment.number, index)
        return Position(segment.number, end)

    def _range(
        self, segments: list[Segment], key: int, filters: FilterSet, first: int, end: int
    ) -> tuple[int, bool, list[msgspec.Raw]] | None:
        """The first number, whether it is complete, and the frames; ``None``: not reached yet."""
        if first >= end:
            return first, True, []
        known = [at for at, segment in enumerate(segments) if segment.marks[key].seq <= first]
        answer = _Answer()
        number = begin = first
        for segment in segments[known[-1] if known else 0 :]:
            mark = segment.marks[key]
            if mark.seq >= end or answer.full:
                break
            if answer.frames and mark.seq != number:
                break  # the next answer begins behind the gap
            begin = max(first, mark.seq) if not answer.frames else begin
            number = self._numbered(segment, key, filters, (begin, end), answer)
        if not answer.frames:
            # If everything was examined, none of the frames are left.
            return None if answer.full else (end, True, [])
        return begin, number >= end, answer.frames

    def _numbered(
        self,
        segment: Segment,
        key: int,
        filters: FilterSet,
        wanted: tuple[int, int],
        answer: _Answer,
    ) -> int:
        """Adds the frames of one segment with numbers in ``wanted``; returns the next number.

        Numbers are found by counting, so some places on the way are remembered.
        """
        mark = segment.marks[key]
        stretch = key, segment.number, mark
        places = self._places.get(stretch) or [mark]
        first, end = wanted
        nearest = bisect.bisect_right(places, first, key=_number) - 1
        number, at = places[max(0, nearest)]
        stop = answer.look_at(at, segment.count)
        for index, _, raw in self._ring.matching(segment, filters, at, stop):
            if number >= end:
                stop = index
                break
            if number >= first and not answer.add(raw):
                stop = index
                break
            number += 1
        if nearest == len(places) - 1 and stop - at >= _APART:
            places.append(Mark(number, stop))
        self._places.put(stretch, places)
        return number

    def _last(self, segment: Segment, key: int, filters: FilterSet) -> int:
        """The number after the last frame of a route that ended with ``segment``."""
        mark = segment.marks[key]
        stretch = key, segment.number, mark
        if (last := self._lasts.get(stretch)) is None:
            last = mark.seq + sum(1 for _ in self._ring.matching(segment, filters, mark.at))
            self._lasts.put(stretch, last)
        return last

    def _filters(self, topic: bytes) -> FilterSet:
        asked = topics.parse(topic, self._channel)
        if not isinstance(asked, topics.RouteTopic):
            raise WireError(f"topic {topic.decode()!r} is not that of a route")
        return asked.filters


def _by_adapter(frame: Frame) -> bool:
    """Whether the timestamp is from the adapter's own clock."""
    return bool(frame.flags & HARDWARE_TIMESTAMP)


class _Answer:
    """Packed frames for one answer, with a limit on the frames examined for it."""

    def __init__(self) -> None:
        self.frames: list[msgspec.Raw] = []
        self.full = False
        self._left = _LOOKED_AT

    def look_at(self, begin: int, end: int) -> int:
        """The place up to which frames may be examined from ``begin`` on; at most ``end``."""
        stop = max(begin, min(end, begin + self._left))
        self._left -= stop - begin
        self.full = stop < end
        return stop

    def add(self, raw: msgspec.Raw) -> bool:
        if len(self.frames) >= MAX_REPLAYED:
            self.full = True
            return False
        self.frames.append(raw)
        return True

    def encoded(self) -> msgspec.Raw:
        return encode_frames(self.frames)


class _Recent(Generic[_T]):
    """A value for each stretch; the least recently stored one is forgotten first."""

    def __init__(self) -> None:
        self._known: dict[_Stretch, _T] = {}

    def get(self, stretch: _Stretch) -> _T | None:
        return self._known.get(stretch)

    def put(self, stretch: _Stretch, value: _T) -> None:
        self._known.pop(stretch, None)
        self._known[stretch] = value
        if len(self._known) > _REMEMBERED:
            del self._known[next(iter(self._known))]
