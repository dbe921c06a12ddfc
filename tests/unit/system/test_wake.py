from __future__ import annotations

import errno
import os
import select
import threading
from collections.abc import Iterator

import pytest

from canbroker.system import wake as wakes
from canbroker.system.wake import PairWake

DEADLINE_S = 20.0


@pytest.fixture(params=["EventWake", "PairWake"])
def wake(request: pytest.FixtureRequest) -> Iterator[PairWake]:
    """That of Linux, and that of all systems."""
    if not hasattr(wakes, request.param):
        pytest.skip("this system has no eventfd")
    made: PairWake = getattr(wakes, request.param)()
    yield made
    made.close()


def readable(wake: PairWake, timeout: float = 0.0) -> bool:
    return bool(select.select([wake.fileno()], [], [], timeout)[0])


def test_it_is_readable_from_set_until_clear(wake: PairWake) -> None:
    assert not readable(wake)
    assert not wake.is_set
    wake.set()
    assert readable(wake)
    assert readable(wake)  # looking does not take it
    assert wake.is_set
    wake.clear()
    assert not readable(wake)
    assert not wake.is_set


def test_setting_and_clearing_twice_is_once(wake: PairWake) -> None:
    for _ in range(70_000):  # more than a pipe holds
        wake.set()
    wake.clear()
    assert not readable(wake)
    wake.clear()  # does not block
    wake.set()
    assert readable(wake)


def test_another_thread_wakes_a_waiting_one(wake: PairWake) -> None:
    thread = threading.Thread(target=wake.set)
    thread.start()
    try:
        assert readable(wake, DEADLINE_S)
    finally:
        thread.join(DEADLINE_S)


def test_no_wake_is_lost_between_threads(wake: PairWake) -> None:
    produced, consumed = [0], 0

    def produce() -> None:
        for number in range(1, 2001):
            produced[0] = number
            wake.set()

    thread = threading.Thread(target=produce)
    thread.start()
    try:
        while consumed < 2000:
            assert readable(wake, DEADLINE_S)
            wake.clear()  # before the look, so that a set after it shows again
            consumed = produced[0]
    finally:
        thread.join(DEADLINE_S)


def test_close_gives_the_descriptors_back_once(wake: PairWake) -> None:
    descriptor = wake.fileno()
    wake.close()
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        os.fstat(descriptor)
    reused = os.open(os.devnull, os.O_RDONLY)  # most likely with the same number
    try:
        wake.close()
        wake.set()
        wake.clear()
        os.fstat(reused)
    finally:
        os.close(reused)
