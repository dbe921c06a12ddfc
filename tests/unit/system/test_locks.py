"""The order of locks: what is allowed, what is found, and that it costs nothing."""

from __future__ import annotations

import threading

import pytest

from canbroker.system import locks
from canbroker.system.locks import Rank
from tests.support.lock_order import Order, checked_locks


@pytest.fixture
def order(monkeypatch: pytest.MonkeyPatch) -> Order:
    order = Order()
    monkeypatch.setattr(locks, "maker", order.make)
    return order


def test_programs_have_plain_locks() -> None:
    assert type(locks.make(Rank.TURN)) is type(threading.RLock())


def test_the_docstring_names_every_rank_in_its_order() -> None:
    text = str(locks.__doc__)
    assert sorted(Rank, key=lambda rank: text.index(f"``{rank.name}``")) == list(Rank)
    assert len({rank // 10 for rank in Rank}) == 4, "kinds"


def test_locks_in_their_order_are_no_fault(order: Order) -> None:
    outer, inner = locks.make(Rank.TURN), locks.make(Rank.WAKE)
    with outer, inner, outer, inner:
        assert locks.is_held(outer)
    assert not locks.is_held(outer)
    assert order.faults == []


def test_a_lock_out_of_order_is_found(order: Order) -> None:
    with locks.make(Rank.LIFE), locks.make(Rank.TURN):
        pass
    (fault,) = order.faults
    assert fault.startswith("TURN while holding LIFE")
    assert "test_a_lock_out_of_order_is_found" in fault


def test_two_locks_of_one_rank_are_out_of_order(order: Order) -> None:
    with locks.make(Rank.TURN), locks.make(Rank.TURN):
        pass
    assert len(order.faults) == 1


def test_what_does_not_wait_is_in_order(order: Order) -> None:
    lock = locks.make(Rank.TURN)
    with locks.make(Rank.LIFE):
        assert lock.acquire(timeout=0)
        lock.release()
    assert order.faults == []


def test_a_fault_fails_the_test_that_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        pytest.raises(AssertionError, match="1 locks out of order; the first: TURN"),
        checked_locks(monkeypatch),
        locks.make(Rank.PROCESS),
        locks.make(Rank.TURN),
    ):
        pass
