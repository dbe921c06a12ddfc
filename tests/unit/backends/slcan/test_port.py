"""Lines that a thread reads ahead."""

from __future__ import annotations

import queue
import select
from typing import cast

from canbroker.backends.base import AdapterGoneError
from canbroker.backends.slcan.port import Port, _Pump
from tests.support.brokers import wait_until


class Line:
    """What a pump reads; the test says what comes in each wait."""

    name = "line"

    def __init__(self) -> None:
        self.waits: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()

    def wait(self) -> bytes:
        data = self.waits.get()
        if data is None:
            raise AdapterGoneError("unplugged")
        return data


def test_it_is_drained_after_a_whole_wait_in_vain_since_the_question() -> None:
    line = Line()
    pump = _Pump(cast(Port, line))

    def answers(*waits: bytes) -> None:
        for data in waits:
            assert not pump.drained
            line.waits.put(data)
            wait_until(line.waits.empty, "the thread has taken it")

    answers(b"", b"")  # the first one had begun before the question
    wait_until(lambda: pump.drained, "nothing comes")
    line.waits.put(b"late")
    assert select.select([pump.wake.fileno()], [], [], 20)[0]
    assert not pump.drained
    assert pump.take() == b"late"
    answers(b"", b"")
    wait_until(lambda: pump.drained, "nothing comes")
    before = pump._vain
    for _ in range(10):  # nobody asks: the next question is the first one again
        line.waits.put(b"")
    wait_until(lambda: pump._vain == before + 10, "the thread has taken them")
    answers(b"", b"")
    wait_until(lambda: pump.drained, "nothing comes")
    line.waits.put(None)
    pump.stop()
