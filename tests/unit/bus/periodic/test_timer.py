"""The shared timer: one thread while there is something to do, and none else."""

from __future__ import annotations

import functools
import logging
import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from canbroker.bus.periodic.timer import Timer, TimerEntry
from canbroker.system import clock
from canbroker.system.wake import Wake
from tests.support.brokers import wait_until
from tests.support.strikes import strikes
from tests.support.systems import forks, signals

DEADLINE_S = 20.0


@pytest.fixture
def timer() -> Iterator[Timer]:
    """What a test leaves behind in it is found by the fixture that looks for threads."""
    timer = Timer("canbroker-timer")
    yield timer
    timer.join(DEADLINE_S)


@pytest.fixture
def wake() -> Iterator[Wake]:
    wake = Wake()
    yield wake
    wake.close()


def after(milliseconds: int) -> int:
    return clock.monotonic_ns() + milliseconds * clock.MILLISECOND


def put(done: list[int], number: int, _: TimerEntry) -> None:
    done.append(number)


def ours() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "canbroker-timer"]


def test_jobs_come_in_the_order_of_their_times_and_not_too_early(timer: Timer) -> None:
    done: list[tuple[int, int]] = []
    go, over = threading.Event(), threading.Event()

    def job(late: int, due: int, _: TimerEntry) -> None:
        done.append((late, clock.monotonic_ns() - due))

    began = clock.monotonic_ns()
    timer.at(began, lambda _: put([], int(go.wait(DEADLINE_S)), _))  # so that all are there
    for late in (30, 10, 20, 10, 40):
        due = began + late * clock.MILLISECOND
        timer.at(due, functools.partial(job, late, due))
    timer.at(due, lambda _: over.set())
    go.set()
    assert over.wait(DEADLINE_S)
    assert [late for late, _ in done] == [10, 10, 20, 30, 40]
    assert all(behind >= 0 for _, behind in done)


def test_what_is_sooner_is_not_kept_waiting(timer: Timer) -> None:
    soon = threading.Event()
    entry = timer.at(after(3_600_000), lambda _: None)
    timer.at(after(1), lambda _: soon.set())
    assert soon.wait(DEADLINE_S)
    timer.cancel(entry)


def test_a_job_gets_its_own_entry(timer: Timer) -> None:
    got: list[TimerEntry] = []
    over = threading.Event()

    def job(entry: TimerEntry) -> None:
        got.append(entry)
        over.set()

    entry = timer.at(after(1), job)
    assert over.wait(DEADLINE_S)
    assert got == [entry]


def test_the_thread_ends_with_the_last_job_and_begins_again(timer: Timer) -> None:
    for _ in range(3):
        entry = timer.at(after(3_600_000), lambda _: None)
        assert len(ours()) == 1
        timer.cancel(entry)
        timer.cancel(entry)
        timer.join(DEADLINE_S)
        assert ours() == []


def test_join_does_not_wait_for_a_thread_with_jobs(timer: Timer) -> None:
    entry = timer.at(after(3_600_000), lambda _: None)
    began = time.monotonic()
    timer.join(DEADLINE_S)
    assert time.monotonic() - began < DEADLINE_S / 2
    timer.cancel(entry)


def test_cancelled_jobs_are_not_run_and_not_kept(timer: Timer) -> None:
    done: list[int] = []
    go, over = threading.Event(), threading.Event()
    timer.at(after(0), lambda _: put(done, int(go.wait(DEADLINE_S)), _))  # all others wait for it
    entries = [timer.at(after(0), functools.partial(put, done, n)) for n in range(1000)]
    last = timer.at(after(3_600_000), lambda _: None)
    for entry in entries[:997]:
        timer.cancel(entry)
    timer.at(after(0), lambda _: over.set())
    go.set()
    assert over.wait(DEADLINE_S)
    assert done == [True, 997, 998, 999]
    timer.cancel(last)
    timer.join(DEADLINE_S)
    assert ours() == []


def test_many_cancelled_jobs_are_dropped(timer: Timer) -> None:
    last = timer.at(after(7_200_000), lambda _: None)
    for _ in range(20):
        for entry in [timer.at(after(3_600_000), lambda _: None) for _ in range(1000)]:
            timer.cancel(entry)
        wait_until(lambda: len(timer._heap) <= 64, "they are dropped")
    timer.cancel(last)


def test_a_job_may_use_the_timer(timer: Timer) -> None:
    over = threading.Event()
    count: list[int] = []

    def again(_: TimerEntry) -> None:
        count.append(1)
        timer.join(DEADLINE_S)  # on its own thread: nothing to wait for
        doomed = timer.at(after(0), lambda _: over.set())
        timer.cancel(doomed)
        if len(count) < 50:
            timer.at(after(0), again)
        else:
            over.set()

    timer.at(after(0), again)
    assert over.wait(DEADLINE_S)
    assert len(count) == 50


def test_a_readable_descriptor_is_told_of_once_until_it_is_armed_again(
    timer: Timer, wake: Wake
) -> None:
    told: list[int] = []
    keep = timer.at(after(3_600_000), lambda _: None)
    timer.arm(wake.fileno(), lambda: told.append(1))
    wake.set()
    wait_until(lambda: told, "it is told of")
    done = threading.Event()
    timer.at(after(20), lambda _: done.set())
    assert done.wait(DEADLINE_S)
    assert told == [1]  # though it is readable still
    timer.arm(wake.fileno(), lambda: told.append(2))
    wait_until(lambda: told == [1, 2], "it is told of again")
    wake.clear()
    timer.arm(wake.fileno(), lambda: told.append(3))
    timer.disarm(wake.fileno())
    wake.set()
    timer.cancel(keep)
    timer.join(DEADLINE_S)
    assert told == [1, 2]
    assert ours() == []


def test_a_descriptor_alone_keeps_the_thread(timer: Timer, wake: Wake) -> None:
    told = threading.Event()
    timer.arm(wake.fileno(), told.set)
    assert len(ours()) == 1
    wake.set()
    assert told.wait(DEADLINE_S)
    wait_until(lambda: not ours(), "the thread ends")


def test_a_job_that_fails_harms_no_other(timer: Timer, caplog: pytest.LogCaptureFixture) -> None:
    over = threading.Event()

    def fail(_: TimerEntry) -> None:
        raise LookupError("inside")

    timer.at(after(0), fail)
    timer.at(after(5), lambda _: over.set())
    assert over.wait(DEADLINE_S)
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], LookupError)


def test_many_threads(timer: Timer) -> None:
    done: list[int] = []
    cancelled: list[int] = []

    def use(thread: int) -> None:
        for number in range(200):
            timer.at(after(number % 7), functools.partial(put, done, thread * 1000 + number))
            timer.cancel(timer.at(after(1000), lambda _: cancelled.append(1)))

    threads = [threading.Thread(target=use, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wait_until(lambda: len(done) == 800, "all are done")
    assert len(set(done)) == 800
    assert cancelled == []
    wait_until(lambda: not ours(), "the thread ends")


def test_a_thread_that_was_kept_from_starting_is_started_by_the_next_job(
    timer: Timer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def struck(_: threading.Thread) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", struck)
        with pytest.raises(KeyboardInterrupt):
            timer.at(after(0), lambda _: None)
    over = threading.Event()
    timer.at(after(0), lambda _: over.set())
    assert over.wait(DEADLINE_S)


@signals
def test_a_signal_handler_may_use_the_timer_that_it_has_interrupted(timer: Timer) -> None:
    handled: list[int] = []

    def use(*_: object) -> None:
        timer.cancel(timer.at(after(1000), lambda _: None))

    def handle(*_: object) -> None:
        handled.append(1)
        use()

    keep = timer.at(after(3_600_000), lambda _: None)
    with strikes():  # which are to do this now
        signal.signal(signal.SIGUSR1, handle)
        while len(handled) < 2000:
            use()
    timer.cancel(keep)
    timer.join(DEADLINE_S)
    assert ours() == []


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # it has threads
@forks
def test_a_forked_child_has_a_timer_of_its_own(timer: Timer) -> None:
    entry = timer.at(after(3_600_000), lambda _: None)
    with timer._lock:  # as another thread may hold it
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                timer.forget()
                over = threading.Event()
                timer.at(after(1), lambda _: over.set())
                code = 0 if over.wait(DEADLINE_S) else 2
            finally:
                os._exit(code)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    timer.cancel(entry)
