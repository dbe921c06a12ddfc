"""Answers subscribers who ask for frames of the past, from the ring of their channel."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import msgspec

from canbroker import clock
from canbroker.fabric.ring import Position, Ring, Segment
from canbroker.fabric.routes import Route, key_of
from canbroker.filters import FilterSet
from canbroker.frame import HARDWARE_TIMESTAMP, Frame
from canbroker.wire import WireError, control, topics
from canbroker.wire.replay import (
    MAX_REPLAYED,
    History,
    Past,
    Replay,
    Replayed,
    encode_frames,
)


class Served(NamedTuple):
    """Frames that a client has asked for: those that it was given, and those that were gone."""

    replayed: int = 0
    gone: int = 0


class Replayer:
    """The replay methods of a channel. One thread, that of the ring.

    ``served``: by client, for as long as nobody takes it out.
    """

    def __init__(
        self, ring: Ring, channel: str, epoch: int, route: Callable[[bytes], Route | None]
    ) -> None:
        """``route`` finds an open one by its topic."""
        self._ring = ring
        self._channel = channel
        self._epoch = epoch
        self._route = route
        self.served: dict[str, Served] = {}

    def replay(self, params: Replay) -> msgspec.Struct:
        """The frames of a range of numbers, or the first of them."""
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
            return Replayed(params.first_seq, True, encode_frames([]))
        else:
            return control.ErrorResult("gone", f"nothing is left of epoch {params.epoch}")
        end = last if params.end_seq is None else min(params.end_seq, last)
        begin, complete, frames = self._range(
            segments, key_of(topic), filters, params.first_seq, end
        )
        before = self.served.get(params.client_id, Served())
        self.served[params.client_id] = Served(
            before.replayed + len(frames), before.gone + begin - params.first_seq
        )
        return Replayed(begin, complete, encode_frames(frames))

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
        """Adds those of one segment that are asked for; returns how far it came."""
        begin = after.offset if after.segment == segment.number else 0
        end = until.offset if until.segment == segment.number else segment.count
        for index, frame, raw in self._ring.matching(segment, filters, begin):
            if frame.timestamp_ns < oldest_ns and not _by_adapter(frame):
                continue
            if index >= end:
                break
            if not answer.add(raw):
                return Position(segment.number, index)
        return Position(segment.number, end)

    def _range(
        self, segments: list[Segment], key: int, filters: FilterSet, first: int, end: int
    ) -> tuple[int, bool, list[msgspec.Raw]]:
        """The first number, whether that is all, and the frames."""
        known = [at for at, segment in enumerate(segments) if segment.marks[key].seq <= first]
        answer = _Answer()
        number = begin = first
        for segment in segments[known[-1] if known else 0 :]:
            mark = segment.marks[key]
            if mark.seq >= end or answer.full:
                break
            if answer.frames and mark.seq != number:
                break  # the next answer begins behind the hole
            number = mark.seq
            begin = max(first, number) if not answer.frames else begin
            for _, _, raw in self._ring.matching(segment, filters, mark.at):
                if number >= end or (number >= first and not answer.add(raw)):
                    break
                number += 1
        if not answer.frames:  # nothing of it is left
            return max(first, end), True, []
        return begin, number >= end, answer.frames

    def _last(self, segment: Segment, key: int, filters: FilterSet) -> int:
        """The number after the last of a route that ended with ``segment``."""
        mark = segment.marks[key]
        return mark.seq + sum(1 for _ in self._ring.matching(segment, filters, mark.at))

    def _filters(self, topic: bytes) -> FilterSet:
        asked = topics.parse(topic, self._channel)
        if not isinstance(asked, topics.RouteTopic):
            raise WireError(f"topic {topic.decode()!r} is not that of a route")
        return asked.filters


def _by_adapter(frame: Frame) -> bool:
    """Whether its time is the adapter's own."""
    return bool(frame.flags & HARDWARE_TIMESTAMP)


class _Answer:
    """Packed frames, as many as an answer may have."""

    def __init__(self) -> None:
        self.frames: list[msgspec.Raw] = []
        self.full = False

    def add(self, raw: msgspec.Raw) -> bool:
        if len(self.frames) >= MAX_REPLAYED:
            self.full = True
            return False
        self.frames.append(raw)
        return True

    def encoded(self) -> msgspec.Raw:
        return encode_frames(self.frames)
