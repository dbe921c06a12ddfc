"""The loop of an actor's thread: what it hands to its worker, and how it ends."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence, Set

import pytest

from canbroker.actors.channel.turn import Turn
from canbroker.actors.channel.worker import start
from canbroker.actors.mailbox import Mailbox
from canbroker.system import clock
from canbroker.system.wake import Wake
from canbroker.transport.waiter import SharedWaiter


class Recorder:
    """Stops when it gets a negative number; crashes when it gets a zero."""

    def __init__(self) -> None:
        self.waiter = SharedWaiter()
        self.thread = threading.current_thread()
        self.steps: list[tuple[int, list[int]]] = []
        self.woken_by = Wake()
        self.was_woken = threading.Event()
        self.is_closed = False
        self.waiter.add(self.woken_by)

    def due_ns(self) -> int | None:
        return None

    def step(self, now_ns: int, messages: Sequence[int], ready: Set[object]) -> bool:
        self.steps.append((now_ns, list(messages)))
        if self.woken_by in ready:
            self.woken_by.clear()
            self.was_woken.set()
        if 0 in messages:
            raise ZeroDivisionError
        return all(number > 0 for number in messages)

    def close(self) -> None:
        self.woken_by.close()
        self.is_closed = True


@pytest.fixture
def inbox() -> Iterator[Mailbox[int]]:
    inbox: Mailbox[int] = Mailbox()
    yield inbox
    inbox.close()


def crashed(name: str, error: Exception) -> None:
    raise AssertionError(name) from error


def test_messages_come_in_order_and_before_their_step(inbox: Mailbox[int]) -> None:
    thread, worker = start("send", Recorder, inbox, Turn(), crashed)
    assert worker.thread is thread, "its sockets belong to that one"
    put_ns = []
    for number in (1, 2, 3, -1):
        put_ns.append(clock.monotonic_ns())
        inbox.put(number)
    thread.join(10)
    assert worker.is_closed
    taken = [(now_ns, number) for now_ns, messages in worker.steps for number in messages]
    assert [number for _, number in taken] == [1, 2, 3, -1]
    assert all(at_ns >= put for (at_ns, _), put in zip(taken, put_ns, strict=True))


def test_it_steps_when_that_is_due(inbox: Mailbox[int]) -> None:
    due_ns = clock.monotonic_ns() + 30 * clock.MILLISECOND

    class Punctual(Recorder):
        def due_ns(self) -> int:
            return due_ns

        def step(self, now_ns: int, messages: Sequence[int], ready: Set[object]) -> bool:
            super().step(now_ns, messages, ready)
            return now_ns < due_ns

    thread, worker = start("recv", Punctual, inbox, Turn(), crashed)
    thread.join(10)
    assert worker.steps[-1][0] >= due_ns


def test_it_steps_when_something_is_readable(inbox: Mailbox[int]) -> None:
    thread, worker = start("recv", Recorder, inbox, Turn(), crashed)
    worker.woken_by.set()
    assert worker.was_woken.wait(10)
    inbox.put(-1)
    thread.join(10)


def test_a_worker_that_cannot_be_made(inbox: Mailbox[int]) -> None:
    def make() -> Recorder:
        raise OSError("no room")

    with pytest.raises(OSError, match="no room"):
        start("send", make, inbox, Turn(), crashed)


def test_a_worker_that_crashes_is_reported_and_closed(inbox: Mailbox[int]) -> None:
    reports: list[tuple[str, Exception]] = []
    thread, worker = start("send", Recorder, inbox, Turn(), lambda *report: reports.append(report))
    inbox.put(0)
    thread.join(10)
    [(name, error)] = reports
    assert name == "send"
    assert isinstance(error, ZeroDivisionError)
    assert worker.is_closed
