"""A channel's ring: which frames it has, under which numbers, and what of a predecessor's."""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from canbroker.delivery import replayer
from canbroker.delivery import ring as module
from canbroker.delivery.replayer import Replayer
from canbroker.delivery.ring import Position, Ring, anonymous
from canbroker.delivery.routes import RouteTable, key_of, kind_of
from canbroker.model import filters
from canbroker.model.filters import FilterSet
from canbroker.model.frame import FD, HARDWARE_TIMESTAMP, Frame
from canbroker.system import clock
from canbroker.system.shared_memory import SharedMemory, mapped
from canbroker.wire import stream
from canbroker.wire.control import ErrorResult
from canbroker.wire.replay import MAX_REPLAYED, History, Past, Replay, Replayed, decode_frames

CHANNEL = "can0"
SECONDS = 60.0

#: Sizes that come to their limits soon.
SLOT, MARKS, ANSWER = 2048, 8, 20

#: More than there is room for marks of.
FILTERS = ["", "000:001", "001:001", "000:003", "001:003", "002:003", "003:003", "000:7ff", "-"]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SLOT_BYTES", SLOT)
    monkeypatch.setattr(module, "MAX_MARKS", MARKS)
    monkeypatch.setattr(module, "_STEP", 7)
    monkeypatch.setattr(replayer, "MAX_REPLAYED", ANSWER)
    monkeypatch.setattr(replayer, "_LOOKED_AT", 30)
    monkeypatch.setattr(replayer, "_APART", 10)


def topic_of(text: str) -> str:
    return f"{CHANNEL}/rx{'?' if text else ''}{text};"


class Actor:
    """What publishes on a ring, and answers from it."""

    def __init__(self, memory: mmap.mmap, epoch: int = 1, seconds: float = SECONDS) -> None:
        self.epoch = epoch
        self.ring = Ring(memory, epoch, seconds)
        self.table = RouteTable()
        self.replayer = Replayer(self.ring, CHANNEL, epoch, self.table.get)
        self.keeps_all = self.ring.inherits
        self.turns = 0  # that the last answer took

    @property
    def counts_all(self) -> bool:
        return self.keeps_all and self.ring.is_whole

    def open(self, text: str = "") -> None:
        topic = topic_of(text).encode()
        if topic not in self.table:
            route = self.table.open(topic, filters.parse(text))
            (self.ring.count_all if self.counts_all else self.ring.forget)(route)

    def close(self, text: str) -> None:
        self.table.drop(topic_of(text).encode())

    def publish(self, frames: Sequence[Frame]) -> None:
        kept = [frame for frame in frames if self.keeps_all or self.table.matching(frame)]
        touched = {route.key: route for frame in kept for route in self.table.matching(frame)}
        if kept:
            packed = [stream.pack_frame(frame) for frame in kept]
            kinds = map(kind_of, kept) if self.keeps_all else ()
            self.ring.append(packed, list(touched.values()), kinds)
        for frame in kept:
            for route in self.table.matching(frame):
                route.next_seq += 1

    def replay(
        self, text: str, first: int, end: int | None = None, epoch: int | None = None
    ) -> tuple[int, list[Frame]] | ErrorResult:
        """All answers together: from which number on, and the frames."""
        found: list[Frame] = []
        begin = None
        while True:
            at = first + len(found) if begin is None else begin + len(found)
            wanted = Replay(
                topic=topic_of(text), epoch=epoch or self.epoch, first_seq=at, end_seq=end
            )
            answer = self.answer(wanted)
            if isinstance(answer, ErrorResult):
                return answer
            assert isinstance(answer, Replayed)
            assert begin is None or answer.first_seq == at
            begin = answer.first_seq if begin is None else begin
            frames = decode_frames(answer.frames)
            assert len(frames) <= MAX_REPLAYED
            assert frames or answer.complete
            found += frames
            if answer.complete:
                return begin, plain(found)

    def answer(self, wanted: Replay) -> msgspec.Struct:
        """The next one: an actor goes on until there is one."""
        turns = 1
        while (answer := self.replayer.replay(wanted)) is None:
            turns += 1
            assert turns < 1000
        self.turns = turns
        return answer

    def history(self, text: str = "", seconds: float = 1e6) -> list[Frame]:
        """All answers together."""
        found: list[Frame] = []
        params = History(topic=topic_of(text), seconds=seconds)
        while True:
            past = self.replayer.history(params)
            assert isinstance(past, Past)
            frames = decode_frames(past.frames)
            assert len(frames) <= MAX_REPLAYED
            found += frames
            if past.after == past.until:
                return plain(found)
            assert past.after != params.after, "it comes on"
            params.after, params.until = past.after, past.until


def plain(frames: Sequence[Frame]) -> list[Frame]:
    return [Frame(f.timestamp_ns, f.arbitration_id, f.flags, f.data) for f in frames]


def numbered(first: int, count: int) -> list[Frame]:
    return [
        Frame(clock.wall_ns(), number & 7, 0, number.to_bytes(4, "big"))
        for number in range(first, first + count)
    ]


class Rings(RuleBasedStateMachine):
    """Actors, one after the other, publish on one ring; routes come and go. The model keeps all
    that was ever published, and what numbers each route gave it."""

    @initialize()
    def begin(self) -> None:
        self.memory = anonymous(4 * SLOT)
        self.actor = Actor(self.memory)
        self.published: list[Frame] = []
        self.begun = 0  # in this epoch, a place in it
        #: Of each route, the last one with its filters in an epoch: places in what was published.
        self.routes: dict[tuple[int, str], list[int]] = {}
        self.closed: set[tuple[int, str]] = set()

    def open_texts(self) -> list[str]:
        return [text for text in FILTERS if topic_of(text).encode() in self.actor.table]

    def kept_from(self) -> int:
        """The place of the oldest frame that the ring still has."""
        return len(self.published) - sum(segment.count for segment in self.actor.ring.segments)

    @precondition(lambda self: len(self.open_texts()) < MARKS)
    @rule(text=st.sampled_from(FILTERS))
    def open(self, text: str) -> None:
        if self.actor.counts_all and not self.has_room_for(text):
            return
        if text not in self.open_texts():
            places = range(self.begun, len(self.published)) if self.actor.counts_all else ()
            self.routes[self.actor.epoch, text] = [
                place for place in places if passes(text, self.published[place])
            ]
            self.closed.discard((self.actor.epoch, text))
        self.actor.open(text)

    def has_room_for(self, text: str) -> bool:
        """Whether each segment of this epoch can have a mark of that route."""
        key = key_of(topic_of(text).encode())
        return all(
            key in segment.marks or segment.marked < MARKS
            for segment in self.actor.ring.segments
            if segment.epoch == self.actor.epoch
        )

    @precondition(lambda self: self.open_texts())
    @rule(data=st.data())
    def close(self, data: st.DataObject) -> None:
        text = data.draw(st.sampled_from(self.open_texts()))
        self.actor.close(text)
        self.closed.add((self.actor.epoch, text))

    @rule(identifiers=st.lists(st.integers(0, 3), min_size=1, max_size=40))
    def publish(self, identifiers: list[int]) -> None:
        """A round of frames; what passes no filter is kept by a new successor only."""
        begin = len(self.published)
        frames = [
            Frame(clock.wall_ns(), identifier, 0, (begin + at).to_bytes(4, "big"))
            for at, identifier in enumerate(identifiers)
        ]
        for frame in frames:
            texts = [t for t in self.open_texts() if passes(t, frame)]
            for text in texts:
                self.routes[self.actor.epoch, text].append(len(self.published))
            if texts or self.actor.keeps_all:
                self.published.append(frame)
        self.actor.publish(frames)

    @rule()
    def restart(self) -> None:
        """The actor is killed; another one takes its place, and keeps all frames for a time."""
        self.actor = Actor(self.memory, self.actor.epoch + 1)
        self.begun = len(self.published)

    @precondition(lambda self: self.actor.keeps_all)
    @rule()
    def settle(self) -> None:
        self.actor.keeps_all = False
        self.actor.ring.forget_kinds()

    @precondition(lambda self: self.routes)
    @rule(data=st.data(), whole=st.booleans())
    def replay(self, data: st.DataObject, whole: bool) -> None:
        epoch, text = data.draw(st.sampled_from(sorted(self.routes)))
        places = self.routes[epoch, text]
        first = data.draw(st.integers(0, len(places)))
        end: int | None = data.draw(st.integers(first, len(places) + 3))
        if (epoch, text) in self.closed:  # nobody knows of frames behind its end
            end = data.draw(st.integers(first, len(places)))
        elif whole:
            end = None
        kept = sum(place < self.kept_from() for place in places)  # the number of the first
        answer = self.actor.replay(text, first, end, epoch)
        is_open = epoch == self.actor.epoch and text in self.open_texts()
        if isinstance(answer, ErrorResult):
            assert answer.code == "gone"
            assert not is_open
            assert kept == len(places)
            return
        last = len(places) if end is None else min(end, len(places))
        begin = max(first, kept)
        if begin >= last:
            assert answer == (max(first, last), [])
        else:
            expected = [self.published[place] for place in places[begin:last]]
            assert answer == (begin, expected)

    @rule(text=st.sampled_from(FILTERS))
    def history(self, text: str) -> None:
        """Also for filters that nobody has."""
        kept = self.published[self.kept_from() :]
        assert self.actor.history(text) == [frame for frame in kept if passes(text, frame)]


def passes(text: str, frame: Frame) -> bool:
    return filters.parse(text).matches(frame.arbitration_id, frame.flags)


@pytest.mark.usefixtures("small")
def test_it_has_the_last_frames_under_their_numbers() -> None:
    run_state_machine_as_test(Rings, settings=settings(max_examples=100, stateful_step_count=40))


@pytest.fixture
def memory() -> Iterator[mmap.mmap]:
    memory = anonymous()
    yield memory
    memory.close()


def numbers(frames: Sequence[Frame]) -> list[int]:
    return [int.from_bytes(f.data, "big") for f in frames if isinstance(f.data, bytes)]


def test_a_route_does_not_get_what_was_there_before_it(memory: mmap.mmap) -> None:
    actor = Actor(memory)
    actor.open("")
    actor.publish(numbered(0, 8))
    actor.open("000:001")
    actor.publish(numbered(8, 8))
    answer = actor.replay("000:001", 0)
    assert not isinstance(answer, ErrorResult)
    assert (answer[0], numbers(answer[1])) == (0, [8, 10, 12, 14])
    successor = Actor(memory, 2)
    assert successor.replay("000:001", 0, epoch=1) == answer


def test_a_route_that_is_opened_again_takes_no_room(memory: mmap.mmap) -> None:
    """Who opens a bus a hundred times does not cost others the past."""
    actor = Actor(memory)
    for number in range(200):
        actor.open("")
        actor.publish(numbered(number, 1))
        actor.close("")
    assert len(actor.history()) == 200
    actor.open("")
    assert Actor(memory, 2).replay("", 0, epoch=1) == (0, []), "nothing since it was opened"


def test_the_marks_of_many_routes_leave_the_frames_alone(memory: mmap.mmap) -> None:
    actor = Actor(memory)
    rounds = 3 * module.MAX_MARKS
    frame = Frame(clock.wall_ns(), 1, FD, bytes(64))
    for number in range(rounds):  # with 3 frames each, a slot is full of them, too
        text = f"001:{number % 2000:03x}"
        actor.open(text)
        actor.publish([frame] * 3 if number % 2000 & 1 else [])
        actor.close(text)
    assert actor.ring.segments
    for segment in actor.ring.segments:
        assert len(list(actor.ring.matching(segment, filters.EVERYTHING))) == segment.count


def test_a_round_of_the_largest_frames_on_all_routes_fits(memory: mmap.mmap) -> None:
    actor = Actor(memory)
    texts = [f"{mask:03x}:{mask:03x}" for mask in range(module.MAX_MARKS)]
    for text in texts:
        actor.open(text)
    largest = Frame(2**63 - 1, 0x7FF, FD, bytes(64))
    actor.publish([largest] * stream.MAX_BATCH)
    for text in (texts[0], texts[-1]):
        assert actor.replay(text, 0) == (0, [largest] * stream.MAX_BATCH)


def test_it_keeps_what_fits(memory: mmap.mmap) -> None:
    actor = Actor(memory)
    actor.open()
    frames = numbered(0, 1000)
    rounds = 200
    for _ in range(rounds):
        actor.publish(frames)
    size = sum(len(stream.pack_frame(frame)) for frame in frames)
    kept = actor.history()
    # Of four slots the oldest is given up as a whole; each has room for marks, and for a round.
    room = module.SLOT_BYTES - 20 * module.MAX_MARKS - size - 100
    assert 3 * room // size * 1000 <= len(kept) < rounds * 1000
    answer = actor.replay("", 0)
    assert not isinstance(answer, ErrorResult)
    assert (answer[0], answer[1]) == (rounds * 1000 - len(kept), kept)


def test_an_answer_has_its_limit_and_the_next_one_the_rest(memory: mmap.mmap) -> None:
    actor = Actor(memory)
    actor.open()
    frames = numbered(0, 5000)
    for at in range(0, 5000, 1000):
        actor.publish(frames[at : at + 1000])
    wanted = Replay(topic=topic_of(""), epoch=1, first_seq=10, end_seq=None)
    answer = actor.replayer.replay(wanted)
    assert isinstance(answer, Replayed)
    assert (answer.first_seq, answer.complete) == (10, False)
    assert plain(decode_frames(answer.frames)) == frames[10 : 10 + MAX_REPLAYED]
    assert actor.replay("", 10) == (10, frames[10:])
    assert actor.history() == frames


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many frames were, in each turn."""
    counts = [0]
    matches, replay, history = FilterSet.matches, Replayer.replay, Replayer.history

    def counted(asked: FilterSet, arbitration_id: int, flags: int) -> bool:
        counts[-1] += 1
        return matches(asked, arbitration_id, flags)

    def replayed(replayer: Replayer, params: Replay) -> msgspec.Struct | None:
        counts.append(0)
        return replay(replayer, params)

    def past(replayer: Replayer, params: History) -> msgspec.Struct:
        counts.append(0)
        return history(replayer, params)

    monkeypatch.setattr(FilterSet, "matches", counted)
    monkeypatch.setattr(Replayer, "replay", replayed)
    monkeypatch.setattr(Replayer, "history", past)
    return counts


def test_a_turn_takes_no_longer_far_from_the_begin(memory: mmap.mmap, looked_at: list[int]) -> None:
    """Nothing is published meanwhile; and a repair is not slower the more there is of it."""
    actor = Actor(memory)
    actor.open()
    actor.open("001:001")
    frames = numbered(0, 5_000)
    for at in range(0, 5_000, 50):
        actor.publish(frames[at : at + 50])
    looked_at.clear()
    odd = [frame for frame in frames if frame.arbitration_id & 1]
    assert actor.replay("", 10) == (10, frames[10:])
    assert len(looked_at) <= 2 + 5_000 // MAX_REPLAYED
    assert actor.replay("001:001", 0) == (0, plain(odd))
    assert actor.replay("", 4_900) == (4_900, frames[4_900:])
    assert actor.turns == 1, "they were passed before"
    assert actor.replay("001:001", 2_400) == (2_400, plain(odd[2_400:]))
    assert actor.replay("", 4_000, 10) == (4_000, [])
    assert max(looked_at) <= 1024
    assert sum(looked_at) < 4 * 5_000


def test_what_nobody_finds_takes_many_turns(memory: mmap.mmap, looked_at: list[int]) -> None:
    actor = Actor(memory)
    actor.open()
    frames = numbered(0, 5_000)
    for at in range(0, 5_000, 50):
        actor.publish(frames[at : at + 50])
    looked_at.clear()
    assert actor.history("7ff:7ff") == []
    assert len(looked_at) >= 5_000 // 1024
    assert max(looked_at) <= 1024
    looked_at.clear()
    assert actor.replay("", 4_990) == (4_990, frames[4_990:])
    assert actor.turns >= 5_000 // 1024, "nobody was here before"
    assert max(looked_at) <= 1024


def test_what_a_predecessor_left_is_not_unpacked_as_a_whole(memory: mmap.mmap) -> None:
    actor = Actor(memory)
    actor.open()
    for at in range(0, 3_000, 50):
        actor.publish(numbered(at, 50))
    successor = Actor(memory, 2)
    successor.replay("", 0, epoch=1)
    steps = [len(segment.steps) for segment in successor.ring.segments if segment.count > 1000]
    assert steps
    assert min(steps) > 3
    assert plain(successor.history()) == plain(actor.history())


def test_it_keeps_an_account_of_whom_it_has_served(memory: mmap.mmap) -> None:
    actor = Actor(memory)
    actor.open()
    frame = Frame(clock.wall_ns(), 1, FD, bytes(64))
    for _ in range(60):
        actor.publish([frame] * 1000)
    kept = len(actor.history())
    for first, end, client_id in ((59_000, 59_010, "a"), (0, 60_000, "b"), (59_990, 60_005, "a")):
        wanted = Replay(
            topic=topic_of(""), epoch=1, first_seq=first, end_seq=end, client_id=client_id
        )
        assert isinstance(actor.answer(wanted), Replayed)
    assert actor.replayer.served == {"a": (20, 0), "b": (MAX_REPLAYED, 60_000 - kept)}
    del actor.replayer.served["b"]
    assert actor.replayer.gone == 60_000 - kept, "also when the client has left"


def test_a_history_is_that_of_its_first_answer(memory: mmap.mmap) -> None:
    """What is published while somebody reads it belongs to the route, by its number."""
    actor = Actor(memory)
    actor.open()
    frames = numbered(0, MAX_REPLAYED + 100)
    actor.publish(frames[:100])
    actor.publish(frames[100:])
    first = actor.replayer.history(History(topic=topic_of(""), seconds=100))
    assert isinstance(first, Past)
    actor.publish(numbered(len(frames), 10))
    rest = actor.replayer.history(
        History(topic=topic_of(""), seconds=100, after=first.after, until=first.until)
    )
    assert isinstance(rest, Past)
    assert (first.next_seq, rest.after) == (len(frames), rest.until)
    assert plain(decode_frames(first.frames) + decode_frames(rest.frames)) == frames


def test_frames_are_as_old_as_they_may_be(
    memory: mmap.mmap, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = clock.monotonic_ns()
    monkeypatch.setattr(clock, "monotonic_ns", lambda: now)
    actor = Actor(memory, seconds=10)
    actor.open()
    old, young = numbered(0, 3000), numbered(3000, 3000)
    for frames in (old, young):
        now += 9 * clock.SECOND
        for at in range(0, 3000, 1000):
            actor.publish(frames[at : at + 1000] * 6)
    assert numbers(actor.history())[0] == 0
    now += 9 * clock.SECOND
    left = numbers(actor.history())
    assert left[-1] == 5999
    assert 3000 in left, "the young ones, and what shares a segment with them"
    assert 0 not in left
    answer = actor.replay("", 0)
    assert not isinstance(answer, ErrorResult)
    assert numbers(answer[1]) == left


def test_a_history_begins_with_its_time(memory: mmap.mmap) -> None:
    actor = Actor(memory)
    actor.open()
    now = clock.wall_ns()
    ages = [30, 20, 10, 5, 0]
    actor.publish([Frame(now - age * clock.SECOND, age, 0, b"") for age in ages])
    # The time of an adapter is its own.
    actor.publish([Frame(1, 31, HARDWARE_TIMESTAMP, b"")])
    assert [frame.arbitration_id for frame in actor.history(seconds=15)] == [10, 5, 0, 31]


def test_what_cannot_be_answered(memory: mmap.mmap) -> None:
    actor = Actor(memory, 5)
    actor.open()
    gone = actor.replay("", 0, epoch=4)  # an actor of another broker, which had another memory
    assert isinstance(gone, ErrorResult)
    assert (gone.code, gone.message) == ("gone", "nothing is left of epoch 4")
    for topic in ("can0/state;", "can1/rx;", "can0/rx?zz;", ""):
        for answer in (
            actor.replayer.replay(Replay(topic=topic, epoch=1, first_seq=0)),
            actor.replayer.history(History(topic=topic, seconds=1)),
        ):
            assert isinstance(answer, ErrorResult)
            assert answer.code == "malformed"


# ---------------------------------------------------------------------------- a predecessor's


HEADER = struct.Struct("<QQQIII")

HEADERS = st.tuples(
    st.integers(0, 3),
    st.integers(0, 12) | st.integers(0, 2**64 - 1),
    st.integers(0, 2**64 - 1),
    st.integers(0, 80) | st.integers(0, 2**32 - 1),
    st.integers(0, 4) | st.integers(0, 2**32 - 1),
    st.integers(0, MARKS) | st.integers(0, 2**32 - 1),
)
CONTENTS = st.binary(max_size=60) | st.lists(
    st.builds(Frame, st.integers(0, 9), st.integers(0, 7), st.just(0), st.binary(max_size=8)),
    max_size=4,
).map(lambda frames: b"".join(map(stream.pack_frame, frames)))


@pytest.mark.usefixtures("small")
@settings(max_examples=60)
@given(slots=st.lists(st.tuples(HEADERS, CONTENTS, st.binary(max_size=60)), max_size=4))
def test_whatever_the_memory_holds_it_is_taken_over(
    slots: list[tuple[tuple[int, ...], bytes, bytes]],
) -> None:
    memory = anonymous(4 * SLOT)
    for at, (header, content, marks) in enumerate(slots):
        HEADER.pack_into(memory, at * SLOT, *header)
        begin = at * SLOT + HEADER.size
        memory[begin : begin + len(content)] = content
        memory[(at + 1) * SLOT - len(marks) : (at + 1) * SLOT] = marks
    actor = Actor(memory, 9)
    actor.open()
    for epoch in range(4):
        if epoch:
            actor.replay("", 0, epoch=epoch)
    left = actor.history()
    for number in range(0, 600, 40):
        actor.publish(numbered(number, 40))
    assert actor.replay("", 590) == (590, actor.history()[-10:])
    assert numbers(actor.history()[-10:]) == list(range(590, 600))
    assert len(left) < 4 * SLOT
    memory.close()


def test_a_kill_at_any_time_takes_no_frame_that_was_kept() -> None:
    """Memory is written frames first, then marks, then counts: a byte of it after the other."""
    memory = anonymous()
    actor = Actor(memory)
    actor.open()
    actor.open("001:001")
    actor.publish(numbered(0, 10))
    before = memory[:]
    actor.open("000:001")
    actor.publish(numbered(10, 3))
    after = memory[:]
    changed = [at for at in range(len(after)) if before[at] != after[at]]
    header = [at for at in changed if at % module.SLOT_BYTES < HEADER.size]
    content = [at for at in changed if at not in header]
    torn = anonymous()
    torn[:] = before
    for at in content:
        torn[at] = after[at]
        successor = Actor(torn, 2)
        assert numbers(successor.history()) == list(range(10))
        assert successor.replay("001:001", 0, epoch=1) == (0, plain(numbered_of(actor, 1, 10)))
    for at in header:
        torn[at] = after[at]
        copy = anonymous()
        copy[:] = torn[:]
        left = numbers(Actor(copy, 2).history())
        assert left in ([], list(range(10)), list(range(13))), "all of a segment, or none"
    assert left == list(range(13))
    for closing in (memory, torn):
        closing.close()


def numbered_of(actor: Actor, step: int, end: int) -> list[Frame]:
    return [frame for frame in actor.history() if numbers([frame])[0] in range(step, end, 2)]


def test_a_successor_goes_on_behind_it(memory: mmap.mmap) -> None:
    first = Actor(memory, 1)
    first.open()
    first.publish(numbered(0, 5))
    second = Actor(memory, 2)
    assert second.ring.end() == Position(1, 5)
    second.open()
    second.publish(numbered(5, 5))
    assert second.replay("", 2, epoch=1) == (2, second.history()[2:5])
    assert second.replay("", 0) == (0, second.history()[5:])
    assert numbers(second.history()) == list(range(10))


@pytest.mark.parametrize("epochs", [(1, 2, 3, 4), (4, 3, 2, 1)], ids=["", "clock set back"])
def test_an_epoch_that_is_over_tells_which_one_follows(
    memory: mmap.mmap, epochs: tuple[int, ...]
) -> None:
    def following(actor: Actor, epoch: int, end: int | None = None) -> int:
        wanted = Replay(topic=topic_of(""), epoch=epoch, first_seq=0, end_seq=end)
        answer = actor.answer(wanted)
        assert isinstance(answer, Replayed)
        return answer.then

    for epoch in epochs:
        actor = Actor(memory, epoch)
        actor.open("001:001" if epoch == epochs[1] else "")  # not our route
        actor.publish(numbered(0, 5))
    asked = epochs[0], epochs[2], epochs[3]
    assert [following(actor, epoch) for epoch in asked] == [epochs[2], epochs[3], 0]
    assert following(actor, epochs[0], 5) == 0


@pytest.mark.parametrize("epochs", [(1, 2, 3), (3, 2, 1)], ids=["", "clock set back"])
def test_the_oldest_epoch_is_the_first_with_frames_of_the_route(
    memory: mmap.mmap, epochs: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    key = key_of(topic_of("").encode())
    for epoch in epochs:
        actor = Actor(memory, epoch)
        assert actor.ring.oldest(key) == (epochs[1] if epoch == epochs[2] else 0)
        actor.open("001:001" if epoch == epochs[0] else "")  # not our route
        actor.publish(numbered(0, 5))
    monkeypatch.setattr(clock, "monotonic_ns", lambda: 1 << 62)
    assert actor.ring.oldest(key) == 0  # too old


def test_a_predecessor_that_had_nothing_has_lost_nothing(memory: mmap.mmap) -> None:
    Actor(memory, 1)
    Actor(memory, 2).open()
    third = Actor(memory, 3)
    for epoch in (1, 2):
        assert third.replay("", 0, epoch=epoch) == (0, [])


def test_what_is_gone_altogether_is_not_taken_for_nothing(memory: mmap.mmap) -> None:
    actor = Actor(memory, 1)
    actor.open("001:001")
    actor.publish(numbered(0, 8))
    actor.open()
    for _ in range(30):
        actor.publish([Frame(1, 0, 0, bytes(64))] * 1000)
    gone = Actor(memory, 2).replay("001:001", 0, epoch=1)
    assert isinstance(gone, ErrorResult)
    assert gone.code == "gone"


def test_an_empty_ring_has_nothing(memory: mmap.mmap) -> None:
    actor = Actor(memory)
    assert actor.history() == []
    assert actor.ring.end() == Position(1, 0)
    actor.open()
    assert actor.replay("", 0) == (0, [])


def test_shared_memory_is_the_same_for_all_and_ends_with_its_object(tmp_path: Path) -> None:
    path = tmp_path / "a.ring"
    shared = SharedMemory(module.MIN_BYTES, path)
    # As a child inherits it; the file, if there is one, is opened.
    one, other = (
        mapped(None if shared.descriptor is None else os.dup(shared.descriptor), str(path))
        for _ in range(2)
    )
    assert one is not None
    assert other is not None
    assert path.exists() == (shared.path is not None)
    actor = Actor(one)
    actor.open()
    actor.publish(numbered(0, 3))
    one.close()  # as when its process ends
    assert numbers(Actor(other, 2).history()) == [0, 1, 2]
    other.close()
    del shared
    assert mapped(None, str(path)) is None


def test_frames_are_handed_out_as_they_were_packed(memory: mmap.mmap) -> None:
    """Nothing is decoded and encoded on the way but to look at filters."""
    actor = Actor(memory)
    actor.open()
    echo = stream.echo(Frame(0, 5, 0, b"\x01"), 7, "c1")
    actor.publish([echo, Frame(8, 6, 2, 4)])
    answer = actor.replayer.replay(Replay(topic=topic_of(""), epoch=1, first_seq=0))
    assert isinstance(answer, Replayed)
    rows = msgspec.msgpack.decode(answer.frames)
    assert rows == [[7, 5, 0, b"\x01", "c1"], [8, 6, 2, 4]]
