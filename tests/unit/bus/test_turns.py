"""Turns: one holder at a time, short jobs never wait for a long one, no exception keeps a turn."""

from __future__ import annotations

import select
import threading
from collections.abc import Iterator

import pytest

from canbroker.bus.turns import Turn, Turns
from canbroker.errors import CanOperationError, CanTimeoutError
from canbroker.system import clock
from canbroker.system.wake import Wake
from tests.support.strikes import strikes
from tests.support.systems import signals

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
        self._turns.run_soon(nothing)
        self._thread.join()

    def _run(self) -> None:
        while not self.stop.is_set():
            self._turns.run(None, self._hold)

    def _hold(self) -> None:
        self._inside.append("long")
        self.rounds += 1
        self.holding.set()
        while not self._turns.wanted():
            select.select([self._wake], [], [], DEADLINE_S)
        self.holding.clear()
        self._inside.remove("long")


def nothing() -> None:
    """A short job."""


@pytest.fixture
def wake() -> Iterator[Wake]:
    wake = Wake()
    yield wake
    wake.close()


def free(turns: Turns) -> bool:
    """Whether another thread may have both kinds of turn at once."""
    had: list[str] = []

    def ask() -> None:
        turns.run(clock.deadline_after(DEADLINE_S), lambda: had.append("long"))
        turns.run_soon(lambda: had.append("short"))
        turns.if_free(lambda: had.append("if free"))

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(2 * DEADLINE_S)
    return had == ["long", "short", "if free"]


def test_a_free_turn_is_had_at_once(wake: Wake) -> None:
    turns = Turns(wake)
    assert not turns.run(clock.deadline_after(0), turns.wanted)
    assert turns.run_soon(turns.wanted)
    assert not turns.wanted()
    assert free(turns)


def test_a_turn_is_mine_while_it_lasts(wake: Wake) -> None:
    turns = Turns(wake)
    assert turns.run(None, turns.mine)
    assert turns.run_soon(turns.mine)
    assert not turns.mine()
    with Holder(turns, wake, []):
        assert not turns.mine()


def test_a_long_holder_steps_aside_and_comes_back(wake: Wake) -> None:
    turns, inside = Turns(wake), list[str]()
    with Holder(turns, wake, inside) as holder:
        for _ in range(50):
            assert holder.holding.wait(DEADLINE_S)
            assert turns.run_soon(inside.copy) == []
        assert holder.holding.wait(DEADLINE_S)
        assert holder.rounds > 50
    assert not turns.wanted()
    assert not select.select([wake], [], [], 0)[0]  # nobody is left to be woken


def test_short_jobs_of_many_threads_come_one_at_a_time(wake: Wake) -> None:
    turns, inside = Turns(wake), list[str]()
    faults: list[str] = []

    def job() -> None:
        faults.extend(inside)
        inside.append("short")
        inside.remove("short")

    def short() -> None:
        for _ in range(200):
            turns.run_soon(job)

    with Holder(turns, wake, inside) as holder:
        threads = [threading.Thread(target=short) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert holder.holding.wait(DEADLINE_S)
    assert faults == []


def test_a_second_long_turn_waits_no_longer_than_its_deadline(wake: Wake) -> None:
    turns, done = Turns(wake), list[str]()
    with Holder(turns, wake, []):
        for timeout in (0.01, 0):
            with pytest.raises(CanTimeoutError, match="another thread is receiving"):
                turns.run(clock.deadline_after(timeout), lambda: done.append("long"))
        turns.if_free(lambda: done.append("free"))
    assert done == []
    assert free(turns)


def test_an_error_in_a_turn_gives_it_back(wake: Wake) -> None:
    turns = Turns(wake)

    def fail() -> None:
        raise KeyError("inside")

    with pytest.raises(KeyError):
        turns.run(None, fail)
    with pytest.raises(KeyError):
        turns.run_soon(fail)
    with pytest.raises(KeyError):
        turns.if_free(fail)
    assert not turns.wanted()
    assert free(turns)


def test_a_turn_within_a_turn_is_refused() -> None:
    """A signal handler would wait for what it has interrupted, for ever."""
    turn = Turn("sending")
    with pytest.raises(CanOperationError, match="interrupted sending"):
        turn.run(None, lambda: turn.run(None, nothing))
    assert turn.run(0, lambda: "free") == "free"


def every_kind(turns: Turns) -> None:
    for _ in range(100):
        turns.run(clock.deadline_after(1), turns.wanted)
        turns.run_soon(nothing)
        turns.if_free(nothing)


def test_no_exception_of_a_signal_handler_keeps_a_turn(wake: Wake) -> None:
    turns = Turns(wake)
    with strikes() as struck:
        while struck.count < 2_000:
            struck.run(lambda: every_kind(turns))
            assert not turns.mine()
    assert not turns.wanted()
    assert free(turns)


@signals
def test_an_exception_while_waiting_for_a_turn_takes_none() -> None:
    turn = Turn("sending")
    entered, leave = threading.Event(), threading.Event()

    def hold() -> None:
        entered.set()
        leave.wait(DEADLINE_S)

    thread = threading.Thread(target=lambda: turn.run(None, hold))
    thread.start()
    assert entered.wait(DEADLINE_S)
    with strikes() as struck:
        while struck.count < 200:
            struck.run(lambda: turn.run(None, nothing))
    leave.set()
    thread.join()
    assert turn.run(0, lambda: "free") == "free"
