"""How long a thread has waited for a processor, as the kernel counts it."""

from __future__ import annotations

import os
import threading
import time

from canbroker.system.waits import ProcessorWaits
from tests.support.processes import busy
from tests.support.systems import processors

pytestmark = processors


def test_waits_of_this_thread_are_counted() -> None:
    waited: list[int] = []

    def work() -> None:
        processor = min(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {processor})
        with ProcessorWaits() as waits, busy(processor):
            before = waits.total_ns()
            begin = time.thread_time()
            while time.thread_time() < begin + 0.1:
                pass
            waited.append(waits.total_ns() - before)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert waited[0] > 0


def test_a_thread_that_sleeps_does_not_wait() -> None:
    with ProcessorWaits() as waits:
        before = waits.total_ns()
        begin = time.monotonic_ns()
        time.sleep(0.1)
        assert waits.total_ns() - before < time.monotonic_ns() - begin


def test_it_is_closed_more_than_once() -> None:
    waits = ProcessorWaits()
    waits.close()
    waits.close()
    assert waits.total_ns() == 0
