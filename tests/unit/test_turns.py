"""Turns: one holder at a time, and short jobs never wait for a long one."""

from __future__ import annotations

import select
import threading
from collections.abc import Iterator

import pytest

from canbroker import clock
from canbroker.link.turns import Turns
from canbroker.wake import Wake

DEADLINE_S = 20.0


class Holder:
    """A thread with a long turn that waits on ``wake``, as a receiver does."""

    def __init__(self, turns: Turns, wake: Wake, inside: list[str]) -> None:
        self.holding = threading.Event()
        self.stop = threading.Event()
        self.rounds = 0
        self._turns, self._wake, self._inside = turns, wake, inside
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Holder:
        self._thread.start()
        assert self.holding.wait(DEADLINE_S)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        with self._turns.take_soon():
            pass
        self._thread.join()

    def _run(self) -> None:
        while not self.stop.is_set():
            with self._turns.take(None) as mine:
                assert mine
                self._inside.append("long")
                self.rounds += 1
                self.holding.set()
                while not self._turns.wanted():
                    select.select([self._wake], [], [], DEADLINE_S)
                self.holding.clear()
                self._inside.remove("long")


@pytest.fixture
def wake() -> Iterator[Wake]:
    wake = Wake()
    yield wake
    wake.close()


def test_a_free_turn_is_had_at_once(wake: Wake) -> None:
    turns = Turns(wake)
    with turns.take(clock.deadline_after(0)) as mine:
        assert mine
        assert not turns.wanted()
    with turns.take_soon():
        assert turns.wanted()
    assert not turns.wanted()
    with turns.peek() as free:
        assert free


def test_a_long_holder_steps_aside_and_comes_back(wake: Wake) -> None:
    turns, inside = Turns(wake), list[str]()
    with Holder(turns, wake, inside) as holder:
        for _ in range(50):
            assert holder.holding.wait(DEADLINE_S)
            with turns.take_soon():
                assert inside == []
        assert holder.holding.wait(DEADLINE_S)
        assert holder.rounds > 50
    assert not select.select([wake], [], [], 0)[0]  # nobody is left to be woken


def test_short_jobs_of_many_threads_come_one_at_a_time(wake: Wake) -> None:
    turns, inside = Turns(wake), list[str]()
    faults: list[str] = []

    def short() -> None:
        for _ in range(200):
            with turns.take_soon():
                faults.extend(inside)
                inside.append("short")
                inside.remove("short")

    with Holder(turns, wake, inside) as holder:
        threads = [threading.Thread(target=short) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert holder.holding.wait(DEADLINE_S)
    assert faults == []


def test_a_second_long_turn_waits_no_longer_than_its_deadline(wake: Wake) -> None:
    turns = Turns(wake)
    with Holder(turns, wake, []):
        with turns.take(clock.deadline_after(0.01)) as mine:
            assert not mine
        with turns.take(clock.deadline_after(0)) as mine:
            assert not mine
        with turns.peek() as free:
            assert not free
    with turns.take(clock.deadline_after(0)) as mine:
        assert mine


def test_an_error_in_a_turn_gives_it_back(wake: Wake) -> None:
    turns = Turns(wake)

    def fail() -> None:
        raise KeyError("inside")

    with pytest.raises(KeyError), turns.take(None):
        fail()
    with pytest.raises(KeyError), turns.take_soon():
        fail()
    with pytest.raises(KeyError), turns.peek():
        fail()
    assert not turns.wanted()
    with turns.take(clock.deadline_after(0)) as mine:
        assert mine
