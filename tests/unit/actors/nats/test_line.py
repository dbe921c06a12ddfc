"""A line by scripts: where it goes on, which messages it makes, what it counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import pytest

from canbroker.actors.nats.line import Last, Line
from canbroker.delivery.order import Loss, Place
from canbroker.delivery.tap import Dropped, Ended, Event, Frames, Interrupted, Missed, Restarted
from canbroker.jetstream.heads import Gap, Head
from canbroker.model.frame import EchoFrame
from canbroker.wire.replay import Held
from canbroker.wire.stream import StateEvent, decode_batch

EPOCH: Final = 1000


class Feed:
    """A feed that has what the test gives it."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.state: StateEvent | None = None
        self.dropped = 0
        self.is_repairing = False

    def read(self) -> list[Event]:
        events, self.events = self.events, []
        return events


class Tapped:
    """A tapped bus, which remembers where it was sent."""

    def __init__(self, place: Place, kept: Sequence[int]) -> None:
        self.feed = Feed()
        self.place = place
        self.went: list[Place] = []
        self._kept = kept

    def go_back(self, place: Place) -> None:
        self.went.append(place)

    def hold(self, _: str, __: float, epoch: int, **___: float) -> Held:
        return Held(EPOCH, self.place.number, 0, epoch in self._kept)

    def close(self) -> None: ...


class Channel:
    """A channel that is opened when the line looks."""

    def __init__(self, tapped: Tapped, held: Held) -> None:
        self.tapped: Tapped | None = tapped
        self.problem = ""
        self._held: Held | None = held

    def opened(self, _: int, __: int | None) -> Held | None:
        held, self._held = self._held, None
        return held

    def end(self, _: int) -> None:
        self.tapped = None


def line(
    number: int = 50,
    *,
    since: int = 50,
    continues: bool = False,
    kept: Sequence[int] = (),
    oldest: int = 0,
) -> tuple[Line, Tapped]:
    """A line of a channel that is at frame ``number``, and held since frame ``since``."""
    made = Line("lab", "bench", "can0", "ipc:///nowhere")
    tapped = Tapped(Place(EPOCH, number), kept)
    stand_in: Any = Channel(tapped, Held(EPOCH, number, since, continues, oldest))
    made._channel = stand_in
    made.most = 4
    made.poll(0)
    return made, tapped


def last(first: int, count: int, epoch: int = EPOCH, offset: int = 0) -> Last:
    return Last(Head(epoch, "can0", first, count, 0, None, offset, ("lab", "bench")), 7)


def frames(*numbers: int) -> Frames:
    return Frames("can0", [EchoFrame(number + 1, number, 0, b"") for number in numbers])


def parts(made: Line) -> list[tuple[int, int, int]]:
    return [(m.head.epoch, m.head.first_seq, m.head.frames) for m in made.queue]


def test_the_first_bridge_begins_where_it_holds_the_channel_from() -> None:
    made, tapped = line(50, since=30)
    assert not made.begin()  # where the stream is was not told yet
    made.resume(Last(None, 0))
    assert made.begin()
    assert tapped.went == [Place(EPOCH, 30)]


def test_the_first_message_is_of_the_oldest_life_that_was_kept() -> None:
    """Bridge and channel were killed before the stream had taken anything."""
    made, tapped = line(50, since=30, oldest=900)
    made.resume(Last(None, 0))
    assert made.begin()
    assert tapped.went == [Place(900, 0)]
    made, tapped = line(50, since=0, continues=True, oldest=900)
    made.resume(last(30, 5))
    assert made.begin()
    assert tapped.went == [Place(EPOCH, 35)]


def test_a_successor_goes_on_behind_the_last_message() -> None:
    made, tapped = line(50, since=0, continues=True)
    made.resume(last(30, 5))
    assert made.begin()
    assert (tapped.went, parts(made)) == ([Place(EPOCH, 35)], [])


def test_a_successor_goes_on_in_an_epoch_that_is_over_but_kept() -> None:
    made, tapped = line(50, since=0, continues=True, kept=[900])
    made.resume(last(30, 5, epoch=900))
    made.begin()
    assert (tapped.went, parts(made)) == ([Place(900, 35)], [])


def test_what_nothing_has_kept_is_a_gap_of_unknown_length() -> None:
    made, tapped = line(50, since=20)
    made.resume(last(30, 5, epoch=900))
    made.begin()
    assert tapped.went == [Place(EPOCH, 20)]
    (gap,) = made.queue
    assert (gap.head.epoch, gap.head.first_seq) == (900, 35)
    assert gap.head.gap == Gap("lost", None, "nothing has kept them")


def test_numbers_go_on_if_those_of_the_route_have_begun_again() -> None:
    """In the same life of the channel: nobody has held the route for an hour."""
    made, tapped = line(3, since=0, continues=False)
    made.resume(last(100, 5))
    made.begin()
    tapped.feed.events = [frames(0, 1)]
    made.read(64, 0)
    assert parts(made) == [(EPOCH, 105, 0), (EPOCH, 105, 2)]
    offset = made.queue[-1].head.offset
    assert offset == 105
    successor, tapped = line(10, since=0, continues=True)
    successor.resume(last(105, 2, offset=offset))
    successor.begin()
    assert tapped.went == [Place(EPOCH, 2)]


def begun() -> tuple[Line, Tapped]:
    made, tapped = line(0, since=0)
    made.resume(Last(None, 0))
    made.begin()
    return made, tapped


def test_messages_have_so_many_frames_at_most() -> None:
    made, tapped = begun()
    tapped.feed.events = [frames(*range(6)), frames(*range(6, 10))]
    made.read(64, 0)
    assert parts(made) == [(EPOCH, 0, 4), (EPOCH, 4, 4), (EPOCH, 8, 2)]
    bodies = [decode_batch(message.body) for message in made.queue]
    assert [body.first_seq for body in bodies] == [0, 4, 8]
    assert [frame.arbitration_id for frame in bodies[2].payload] == [8, 9]  # type: ignore[union-attr]
    assert made.unacknowledged == 10


def test_gaps_are_in_their_places_and_numbers_go_on() -> None:
    made, tapped = begun()
    loss = Loss(EPOCH, 2, 7, "the ring")
    tapped.feed.events = [
        frames(0, 1),
        Missed("can0", loss),
        frames(9),
        Dropped("can0", 3),
        Interrupted("can0", "unplugged"),
        Missed("can0", Loss(EPOCH, 10, None, "replaced")),
        Restarted("can0", Place(2000, 0)),
        frames(0),
    ]
    made.read(64, 0)
    assert parts(made) == [
        *((EPOCH, 0, 2), (EPOCH, 2, 0), (EPOCH, 9, 1), (EPOCH, 10, 0), (EPOCH, 10, 0)),
        *((2000, 0, 0), (2000, 0, 1)),
    ]
    gaps = [message.head.gap and message.head.gap[:2] for message in made.queue]
    assert gaps == [
        *(None, ("lost", 7), None, ("interrupted", None), ("lost", None), ("restarted", None)),
        None,
    ]
    dropped = [decode_batch(message.body).dropped_upstream for message in made.queue]
    assert dropped == [0, 0, 0, 3, 3, 0, 0]
    for number, message in enumerate([*made.queue]):
        made.stored(message, number)
    assert (made.totals.frames, made.totals.lost, made.totals.gaps) == (4, 7, 1)


def test_a_full_window_is_not_read_on() -> None:
    made, tapped = begun()
    tapped.feed.events = [frames(*range(8))]
    made.read(2, 0)
    tapped.feed.events = [frames(8)]
    made.read(2, 0)
    assert len(made.queue) == 2
    assert made.is_behind
    made.stored(made.queue[1], 2)  # not in order: the first is not there yet
    assert len(made.queue) == 2
    made.stored(made.queue[0], 1)
    assert (len(made.queue), made.sequence) == (0, 2)
    made.read(2, 0)
    assert parts(made) == [(EPOCH, 8, 1)]


def test_after_a_new_connection_what_is_stored_is_not_sent_again() -> None:
    made, tapped = begun()
    tapped.feed.events = [frames(*range(12))]
    made.read(64, 0)
    for message in made.queue:
        message.sent_ns = 1
    made.resume(last(4, 4))
    assert parts(made) == [(EPOCH, 8, 4)]
    assert made.queue[0].sent_ns == 0
    assert tapped.went == [Place(EPOCH, 0)]
    assert made.totals.frames == 8


def test_a_stream_that_has_lost_the_end_gets_it_again() -> None:
    """Power was lost, and the server had not synced: the channel's ring still has the frames."""
    made, tapped = line(0, since=0, continues=True)
    made.resume(Last(None, 0))
    made.begin()
    tapped.feed.events = [frames(*range(12))]
    made.read(64, 0)
    for message in [*made.queue]:
        made.stored(message, 1)
    made.resume(last(0, 4))
    assert made.begin()
    assert tapped.went[-1] == Place(EPOCH, 4)


def test_a_shorter_message_of_the_same_id_is_gone_on_behind() -> None:
    """One of a bridge that was killed, and which the server had not stored yet when we looked."""
    made, tapped = line(0, since=0, continues=True)
    made.resume(Last(None, 0))
    made.begin()
    tapped.feed.events = [frames(*range(4))]
    made.read(64, 0)
    made.resume(last(0, 3))
    assert made.begin()
    assert (tapped.went[-1], parts(made)) == (Place(EPOCH, 3), [])


def test_a_message_of_somebody_else_tells_nothing_of_our_place() -> None:
    made, tapped = begun()
    tapped.feed.events = [frames(*range(4))]
    made.read(64, 0)
    made.resume(last(70, 5, epoch=3)._replace(sequence=99))
    assert (parts(made), made.sequence) == ([(EPOCH, 0, 4)], 99)
    assert tapped.went == [Place(EPOCH, 0)]


def test_a_stream_that_was_emptied_goes_on() -> None:
    made, tapped = begun()
    tapped.feed.events = [frames(*range(4))]
    made.read(64, 0)
    made.stored(made.queue[0], 1)
    made.resume(Last(None, 0))
    assert made.begin()
    tapped.feed.events = [frames(4)]
    made.read(64, 0)
    assert parts(made) == [(EPOCH, 4, 1)]


def test_a_channel_that_has_ended_goes_on_when_it_is_back() -> None:
    made, tapped = begun()
    tapped.feed.events = [frames(0, 1), Ended("can0", "closed")]
    made.read(64, 0)
    assert made.problem == "closed"
    assert not made.begin()
    stand_in: Any = Channel(tapped := Tapped(Place(EPOCH, 5), []), Held(EPOCH, 5, 0, True))
    made._channel = stand_in
    made.poll(0)
    assert made.begin()
    assert tapped.went == [Place(EPOCH, 2)]


@pytest.mark.parametrize("seconds", [0, 5])
def test_lag_is_the_time_since_all_was_acknowledged(seconds: int) -> None:
    made, tapped = begun()
    made.read(64, 10**9)
    tapped.feed.events = [frames(0)]
    made.read(64, 2 * 10**9)
    assert made.lag_s((2 + seconds) * 10**9) == seconds
