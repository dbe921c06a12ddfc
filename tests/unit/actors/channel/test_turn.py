"""Who works: both threads, alternately."""

from __future__ import annotations

import threading

from canbroker.actors.channel.turn import Turn


def test_one_at_a_time_and_alternately() -> None:
    """Also when one of them wants it again at once."""
    turn, worked = Turn(), []
    at_work = threading.Event()

    def work(name: str, times: int) -> None:
        for _ in range(times):
            with turn:
                worked.append(name)
                at_work.wait(10)

    greedy = threading.Thread(target=work, args=("greedy", 50))
    greedy.start()
    while not worked:
        at_work.wait(0.001)
    other = threading.Thread(target=work, args=("other", 10))
    other.start()
    while not turn.is_wanted:
        at_work.wait(0.001)
    at_work.set()
    greedy.join(10)
    other.join(10)
    assert len(worked) == 60
    assert worked[:2] == ["greedy", "other"]


def test_between_two_pieces_of_work_the_other_one_works_if_it_wants_to() -> None:
    turn, worked = Turn(), threading.Event()

    def work() -> None:
        with turn:
            worked.set()

    with turn:
        turn.give_way()  # nobody wants it
        other = threading.Thread(target=work)
        other.start()
        while not turn.is_wanted:
            worked.wait(0.001)
        assert not worked.is_set()
        turn.give_way()
        assert worked.is_set()
    other.join(10)
