"""A reader takes each frame once, and knows what is missing."""

from __future__ import annotations

from canbroker.jetstream.heads import Gap, Head
from canbroker.jetstream.places import Follower, Place, Step


def frames(epoch: int, first: int, count: int) -> Head:
    return Head(epoch, "can0", first, count, 0)


def lost(epoch: int, first: int, count: int | None) -> Head:
    return Head(epoch, "can0", first, 0, 0, Gap("lost", count, ""))


def test_frames_in_order_are_all_new() -> None:
    follower = Follower()
    assert follower.follow(frames(1, 7, 3)) == Step(0, 0, is_new=True)
    assert follower.follow(frames(1, 10, 2)) == Step(0, 0, is_new=True)
    assert follower.place == Place(1, 12)


def test_what_was_there_before_is_skipped() -> None:
    follower = Follower(Place(1, 10))
    assert follower.follow(frames(1, 7, 3)) == Step(3, 0, is_new=False)
    assert follower.follow(frames(1, 8, 4)) == Step(2, 0, is_new=True)
    assert follower.place == Place(1, 12)


def test_what_the_stream_does_not_have_is_counted() -> None:
    follower = Follower(Place(1, 10))
    assert follower.follow(frames(1, 15, 1)) == Step(0, 5, is_new=True)


def test_a_gap_moves_the_place() -> None:
    follower = Follower(Place(1, 10))
    assert follower.follow(lost(1, 10, 5)) == Step(0, 0, is_new=True)
    assert follower.follow(lost(1, 10, 5)).is_new is False
    assert follower.follow(lost(1, 15, None)).is_new is True
    assert follower.follow(frames(1, 15, 1)) == Step(0, 0, is_new=True)


def test_another_epoch_begins_anywhere_also_an_earlier_one() -> None:
    follower = Follower(Place(100, 10))
    assert follower.follow(frames(50, 0, 2)) == Step(0, 0, is_new=True)
    assert follower.place == Place(50, 2)


def test_a_late_message_of_an_epoch_before_is_known() -> None:
    follower = Follower()
    follower.follow(frames(1, 0, 5))
    follower.follow(frames(2, 0, 5))
    assert follower.follow(frames(1, 3, 2)) == Step(2, 0, is_new=False)
    assert follower.place == Place(2, 5)


def test_few_epochs_are_remembered() -> None:
    follower = Follower()
    for epoch in range(1, 101):
        follower.follow(frames(epoch, 0, 5))
    assert len(follower._places) == 8
