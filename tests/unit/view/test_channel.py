"""A channel for a display: its events are counted and said, its loads kept."""

from __future__ import annotations

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
from canbroker.model.frame import EchoFrame
from canbroker.view.channel import ChannelView, LoadHistory, Sample
from canbroker.wire.stream import StateEvent


def test_frames_go_into_the_table_and_the_rest_is_counted() -> None:
    view = ChannelView("x")
    frames = [EchoFrame(1, 0x100, 0, b"", None), EchoFrame(2, 0x100, 0, b"", None)]
    events: list[Event] = [
        Frames("x", frames),
        Missed("x", Loss(1, 10, 3, "too slow")),
        Missed("x", Loss(1, 20, None, "gone")),
        Dropped("x", 4),
        Restarted("x", Place(2, 0)),
        Frames("x", frames[:1]),
    ]
    view.apply(events, 5)
    assert [row.count for row in view.table.rows.values()] == [3]
    assert (view.missed, view.dropped, view.restarts) == (3, 4, 1)
    assert [note.text for note in view.notes] == [
        "3 frames lost (numbers 10 to 12 of epoch 1): too slow",
        "frames from number 20 of epoch 1 on lost: gone",
        "the adapter lost 4 frames",
        "the channel was restarted; frames may have been missed",
    ]
    assert view.problem == ""


def test_a_problem_lasts_until_the_channel_resumes() -> None:
    view = ChannelView("x")
    view.apply([Interrupted("x", "unplugged")], 1)
    assert (view.problem, view.interruptions) == ("unplugged", 1)
    view.apply([Resumed("x")], 2)
    assert view.problem == ""
    view.apply([Silent("x", "nothing is heard")], 3)
    assert view.problem == "nothing is heard"
    assert not view.ended
    view.apply([Resumed("x"), Ended("x", "the broker was stopped")], 4)
    assert view.problem == "the broker was stopped"
    assert view.ended


def test_notes_are_bounded() -> None:
    view = ChannelView("x")
    for number in range(1000):
        view.apply([Dropped("x", number)], number)
    assert len(view.notes) == 100
    assert view.notes[-1].text == "the adapter lost 999 frames"
    assert view.dropped == sum(range(1000))


def test_each_state_is_one_sample_and_the_history_is_bounded() -> None:
    history = LoadHistory()
    state = StateEvent(state="active", monotonic_ns=1, wall_ns=7, load=0.5, received_rate=10.0)
    history.note(state)
    history.note(state)
    assert list(history.samples) == [Sample(7, 0.5, 10.0, 0.0)]
    for number in range(5000):
        history.note(StateEvent(state="active", monotonic_ns=2 + number))
    assert len(history.samples) == 1200
    assert history.samples[-1].load is None
