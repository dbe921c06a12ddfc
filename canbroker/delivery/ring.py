"""The recent frames of a channel, for subscribers that have missed some, and for recorders.

The ring is a file in memory that the broker keeps. It outlives the process that writes it: an actor
that replaces a killed one still has the frames of its predecessor.

It has slots of equal size, used in turn. A slot begins with a header, followed by packed frames;
each frame is stored once, however many routes carry it. From the slot's end downwards there is a
mark for each route: the frame from which on the route is open, and the number of its first frame
that passes the route's filters. The filters are applied again when the ring is read.
"""

from __future__ import annotations

import itertools
import mmap
import struct
import sys
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from functools import cache, partial
from typing import Final, NamedTuple

import msgspec

from canbroker.delivery.routes import Route, passes
from canbroker.model.filters import EVERYTHING, FilterSet
from canbroker.model.frame import Frame
from canbroker.system import clock
from canbroker.wire import DECODE_ERRORS

#: Holds a whole batch of the largest frames, and a mark of each route.
SLOT_BYTES: Final = 1 << 18
MIN_BYTES: Final = 4 * SLOT_BYTES

#: epoch, number, monotonic time of the first frame; bytes and number of the frames, marks.
_HEADER: Final = struct.Struct("<QQQIII")
#: key of the route, number, index of the frame.
_MARK: Final = struct.Struct("<QQI")

#: The least number of frames unpacked at once if only a part of a segment is read.
_STEP: Final = 256

#: The most routes of a channel; each may have a mark in a slot.
MAX_MARKS: Final = 1024

#: Numbers in a ring never come near this limit; larger ones still fit into their field.
_NUMBERS_END: Final = 1 << 62

_frames_decoder = msgspec.msgpack.Decoder(list[Frame])
_raw_decoder = msgspec.msgpack.Decoder(list[msgspec.Raw])


class Position(NamedTuple):
    """A place between frames: the segment's number, and the number of frames before it there."""

    segment: int
    offset: int


class Mark(NamedTuple):
    """Where a route begins in a segment: at frame index ``at``, with number ``seq``."""

    seq: int
    at: int


class Segment:
    """The content of one slot.

    ``marks``: the latest mark of each route, by its key; ``marked``: number of all marks, including
    replaced ones; ``kinds``: number of frames of each kind, if they were counted; ``steps``: some
    places in it, as counts of frames and bytes.
    """

    __slots__ = (
        *("count", "epoch", "kinds", "marked", "marks", "number", "start", "steps"),
        *("time_ns", "used"),
    )

    def __init__(self, number: int, epoch: int, start: int, time_ns: int) -> None:
        self.number = number
        self.epoch = epoch
        self.start = start
        self.time_ns = time_ns
        self.used = 0
        self.count = 0
        self.marks: dict[int, Mark] = {}
        self.marked = 0
        self.kinds: Counter[int] = Counter()
        self.steps: list[tuple[int, int]] = [(0, 0)]

    def __repr__(self) -> str:
        return f"<Segment {self.number} frames={self.count} routes={len(self.marks)}>"


def anonymous(size: int = MIN_BYTES) -> mmap.mmap:
    """Memory for a ring that ends with its process."""
    return mmap.mmap(-1, size)


class Ring:
    """Writes and reads a channel's ring. One thread.

    ``segments``: oldest first. If the memory contains segments of a predecessor, they are adopted,
    and ``inherits`` is true.
    """

    def __init__(self, memory: mmap.mmap, epoch: int, seconds: float) -> None:
        """``memory`` has at least :data:`MIN_BYTES`; frames older than ``seconds`` are not
        returned."""
        self._memory = memory
        self._epoch = epoch
        self._keep_ns = int(seconds * clock.SECOND)
        self._slots = len(memory) // SLOT_BYTES
        self._read: tuple[tuple[int, int, int], list[tuple[Frame, msgspec.Raw]]] = (0, 0, 0), []
        self.segments: deque[Segment] = deque(self._predecessors())
        self.inherits = bool(self.segments)
        self._number = self.segments[-1].number if self.segments else 0
        self._begin = self._number + 1  # of this epoch, a segment's
        self._current: Segment | None = None
        if not self.segments:
            self._roll()  # its header tells with which epoch the ring began

    def __repr__(self) -> str:
        return f"<Ring segments={len(self.segments)} of {self._slots}>"

    @property
    def is_whole(self) -> bool:
        """Whether it still has all frames of this epoch that were appended."""
        return self.segments[0].number <= self._begin

    def close(self) -> None:
        self._memory.close()

    # ------------------------------------------------------------------------------- writing

    def append(
        self, packed: Sequence[bytes], routes: Sequence[Route], kinds: Iterable[int] = ()
    ) -> None:
        """Keeps the frames of one round, at most a batch.

        :param routes: the routes that carry them, before they number these frames.
        :param kinds: of the frames, for :meth:`count_all`.
        """
        blob = b"".join(packed)
        segment = self._current
        if segment is None or len(blob) > self._room(segment):
            segment = self._roll()
        unmarked = [route for route in routes if route.segment != segment.number]
        if segment.marked + len(unmarked) > MAX_MARKS:
            segment, unmarked = self._roll(), list(routes)
        start = segment.start + _HEADER.size + segment.used
        self._memory[start : start + len(blob)] = blob
        for route in unmarked:
            self._mark(segment, route, segment.count)
        if segment.count - segment.steps[-1][0] >= _STEP:
            segment.steps.append((segment.count, segment.used))
        segment.used += len(blob)
        segment.count += len(packed)
        if kinds:  # an update with nothing costs a third of all this
            segment.kinds.update(kinds)
        self._write_header(segment)

    def forget(self, route: Route) -> None:
        """Starts the numbers of a topic's route again; its earlier frames are not part of it."""
        if self.route(self._epoch, route.key):
            segment = self._current
            if segment is None or segment.marked >= MAX_MARKS:
                segment = self._roll()
            self._mark(segment, route, segment.count)
            self._write_header(segment)

    def count_all(self, route: Route) -> None:
        """Numbers a new route as if it had been open since the epoch began.

        The ring must contain all frames of the epoch with their kinds, including frames that passed
        no filters. Then the numbers are the same, however often the route is opened.
        """
        is_passed = cache(partial(passes, route.filters))
        for segment in self.after(self._begin):
            count = sum(count for kind, count in segment.kinds.items() if is_passed(kind))
            if not count:
                continue
            if route.key in segment.marks:
                route.segment = segment.number
            elif segment.marked < MAX_MARKS:  # otherwise these frames are lost for the route
                self._mark(segment, route, 0)
                self._write_header(segment)
            route.next_seq += count

    def forget_kinds(self) -> None:
        """Frees the memory that :meth:`count_all` needs."""
        for segment in self.segments:
            segment.kinds.clear()

    def _room(self, segment: Segment) -> int:
        # Leaves space for a mark of every possible route, so that those of a round always fit.
        return SLOT_BYTES - _HEADER.size - segment.used - _MARK.size * MAX_MARKS

    def _roll(self) -> Segment:
        self._number += 1
        start = self._number % self._slots * SLOT_BYTES
        while self.segments and self.segments[0].number <= self._number - self._slots:
            self.segments.popleft()
        segment = Segment(self._number, self._epoch, start, clock.monotonic_ns())
        self._write_header(segment)
        self.segments.append(segment)
        self._current = segment
        return segment

    def _mark(self, segment: Segment, route: Route, at: int) -> None:
        route.segment = segment.number
        segment.marks[route.key] = Mark(route.next_seq, at)
        segment.marked += 1
        end = segment.start + SLOT_BYTES - _MARK.size * segment.marked
        _MARK.pack_into(self._memory, end, route.key, route.next_seq, at)

    def _write_header(self, segment: Segment) -> None:
        _HEADER.pack_into(
            self._memory,
            segment.start,
            segment.epoch,
            segment.number,
            segment.time_ns,
            segment.used,
            segment.count,
            segment.marked,
        )

    # ------------------------------------------------------------------------------- reading

    def route(self, epoch: int, key: int) -> list[Segment]:
        """The segments with frames of a route, oldest first."""
        found: deque[Segment] = deque()
        for segment in reversed(self.segments):
            if segment.epoch != epoch or key not in segment.marks:
                continue
            if self._is_old(segment):
                break
            found.appendleft(segment)
            if segment.marks[key].seq == 0:
                break  # older segments belong to a closed route with the same topic
        return list(found)

    def has(self, epoch: int | None) -> bool:
        """Whether frames of an epoch may still be there."""
        return any(segment.epoch == epoch for segment in self.segments)

    def oldest(self, key: int) -> int:
        """The first earlier epoch of which a route has frames; 0 if there is none."""
        earlier = (segment for segment in self.segments if segment.epoch != self._epoch)
        return next((s.epoch for s in earlier if key in s.marks and not self._is_old(s)), 0)

    def following(self, epoch: int, key: int) -> int:
        """The first epoch after another one in which a route has frames; 0 if there is none."""
        newer = [segment for segment in self.segments if segment.epoch > epoch]
        last = max((s.number for s in self.segments if s.epoch == epoch), default=None)
        if last is not None:  # the clock may have been set back
            newer = [segment for segment in self.segments if segment.number > last]
        return next((segment.epoch for segment in newer if key in segment.marks), 0)

    def shows_that_none(self, epoch: int, key: int) -> bool:
        """Whether a route is known to have had no frames in an epoch."""
        if any(segment.epoch == epoch and key in segment.marks for segment in self.segments):
            return False
        first = self.segments[0]
        return first.epoch < epoch or (first.epoch == epoch and first.number == 1)

    def since(self, time_ns: int) -> Position:
        """The place before the first segment with frames of that monotonic time or later."""
        at = self.end()
        for segment in reversed(self.segments):
            if self._is_old(segment):
                break
            at = Position(segment.number, 0)
            if segment.time_ns <= time_ns:
                break
        return at

    def end(self) -> Position:
        """The place behind the last frame."""
        return Position(self.segments[-1].number, self.segments[-1].count)

    def after(self, number: int) -> list[Segment]:
        """The segment of that number and all later ones."""
        return [segment for segment in self.segments if segment.number >= number]

    def matching(
        self, segment: Segment, filters: FilterSet, begin: int = 0, end: int = sys.maxsize
    ) -> Iterator[tuple[int, Frame, msgspec.Raw]]:
        """The frames of a segment that pass ``filters``, as (index, frame, packed frame).

        Only frames from index ``begin`` up to, but not including, ``end``.
        """
        ends = [*segment.steps[1:], (segment.count, segment.used)]
        for first, last in zip(segment.steps, ends, strict=True):
            if last[0] <= begin or first[0] >= end:
                continue
            frames = self._frames(segment, first, last)
            for index in range(max(begin, first[0]), min(end, first[0] + len(frames))):
                frame, raw = frames[index - first[0]]
                if filters.matches(frame.arbitration_id, frame.flags):
                    yield index, frame, raw

    def _frames(
        self, segment: Segment, first: tuple[int, int], last: tuple[int, int]
    ) -> list[tuple[Frame, msgspec.Raw]]:
        """The frames between two steps, or none if they are damaged; the last result is cached."""
        which = segment.number, first[0], last[0]
        if which != self._read[0]:
            start = segment.start + _HEADER.size
            data = b"\xdd" + (last[0] - first[0]).to_bytes(4, "big")
            data += self._memory[start + first[1] : start + last[1]]
            try:
                frames, raws = _frames_decoder.decode(data), _raw_decoder.decode(data)
            except DECODE_ERRORS:  # damaged by the end of a predecessor
                frames, raws = [], []
            self._read = which, list(zip(frames, raws, strict=True))
            if len(raws) == segment.count > 2 * _STEP and len(segment.steps) == 1:
                segment.steps = _steps(raws)  # unknown in segments of a predecessor
        return self._read[1]

    def _is_old(self, segment: Segment) -> bool:
        following = segment.number + 1 - self.segments[0].number
        # A segment is as old as its last frame, which is older than the next segment's first.
        if following >= len(self.segments):
            return False
        return clock.monotonic_ns() - self.segments[following].time_ns > self._keep_ns

    def _predecessors(self) -> list[Segment]:
        """The segments that are there already; the one being written is valid up to its counts."""
        found = []
        for slot in range(self._slots):
            start = slot * SLOT_BYTES
            epoch, number, time_ns, used, count, marks = _HEADER.unpack_from(self._memory, start)
            room = SLOT_BYTES - _HEADER.size - _MARK.size * marks
            if not 0 < number < _NUMBERS_END or number % self._slots != slot:
                continue
            if not count <= used <= room:
                continue
            segment = Segment(number, epoch, start, time_ns)
            segment.used, segment.count, segment.marked = used, count, marks
            for at in range(1, marks + 1):
                end = start + SLOT_BYTES - _MARK.size * at
                key, seq, begin = _MARK.unpack_from(self._memory, end)
                segment.marks[key] = Mark(seq, begin)
            if all(mark.seq < _NUMBERS_END for mark in segment.marks.values()):
                found.append(segment)
        found.sort(key=lambda segment: segment.number)
        if found and not self._is_whole(found[-1]):  # the only segment that was being written
            found.pop()
        # Segments before a slot that cannot be read are useless.
        for at in range(len(found) - 1, 0, -1):
            if found[at - 1].number != found[at].number - 1:
                return found[at:]
        return found

    def _is_whole(self, segment: Segment) -> bool:
        return sum(1 for _ in self.matching(segment, EVERYTHING)) == segment.count


def _steps(raws: Sequence[msgspec.Raw]) -> list[tuple[int, int]]:
    used = list(itertools.accumulate(map(len, map(bytes, raws)), initial=0))
    return [(count, used[count]) for count in range(0, len(raws), _STEP)]
