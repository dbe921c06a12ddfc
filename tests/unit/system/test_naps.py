"""Short sleeps that another thread can end."""

from __future__ import annotations

import threading

from canbroker.system.naps import Nap
from tests.support.systems import posix

LONG_S = 60.0

pytestmark = posix("waits that end within 15 ms: no thread ends a sleep there")


def test_another_thread_ends_it() -> None:
    nap = Nap()
    sleeper = threading.Thread(target=nap.take, args=(LONG_S,))
    sleeper.start()
    nap.end()
    sleeper.join(20)
    assert not sleeper.is_alive()


def test_the_next_one_is_not_taken_and_the_one_after_it_is() -> None:
    nap = Nap()
    nap.end()
    nap.take(LONG_S)
    sleeper = threading.Thread(target=nap.take, args=(LONG_S,))
    sleeper.start()
    sleeper.join(0.05)
    assert sleeper.is_alive()
    nap.end()
    sleeper.join(20)
    assert not sleeper.is_alive()
