"""Callback tasks on a bus that is too slow for them."""

from __future__ import annotations

import time

from canbroker import Bus, Message
from canbroker.bus.periodic.callback import CallbackTask
from canbroker.transport.runtime import Runtime
from tests.support.brokers import wait_until


def message(identifier: int) -> Message:
    return Message(arbitration_id=identifier, data=bytes(8), is_extended_id=False)


def calling(bus: Bus, message: Message, period: float) -> CallbackTask:
    task = bus.send_periodic(message, period, modifier_callback=len)
    assert isinstance(task, CallbackTask)
    return task


def test_nothing_of_a_task_is_sent_after_its_stop(runtime: Runtime) -> None:
    """Not either what it has sent and the bus has no time for yet."""
    with Bus("slow", "virtual", bitrate=10_000) as bus, Bus("slow", "virtual") as other:
        task = bus.send_periodic(message(1), 0.002, modifier_callback=len)
        wait_until(lambda: bus.stats.transmit_queue > 20, "a queue forms")
        task.stop()
        stopped = time.time()
        assert bus.stats.transmit_queue == 0
        while (received := other.recv(0.3)) is not None:
            assert received.timestamp < stopped


def test_what_the_bus_has_no_time_for_is_skipped(runtime: Runtime) -> None:
    """The task goes on, and nobody is told of errors."""
    with Bus("slow", "virtual", bitrate=10_000) as bus, Bus("slow", "virtual") as other:
        task = calling(bus, message(1), 0.002)
        wait_until(lambda: task.skipped > 100, "slots are skipped")
        since = time.time()
        wait_until(lambda: (got := other.recv(1)) is not None and got.timestamp > since, "goes on")
        task.stop()
        bus.flush(5)


def test_a_full_bus_does_not_slow_down_the_tasks_of_others(runtime: Runtime) -> None:
    """All of them share one thread."""
    with Bus("slow", "virtual", bitrate=10_000) as slow, Bus("fast", "virtual") as fast:
        for _ in range(2000):
            slow.send(message(0x7FF))
        stuck = [calling(slow, message(number), 0.005) for number in range(10)]
        with Bus("fast", "virtual") as other:
            task = calling(fast, message(1), 0.01)
            wait_until(lambda: sum(t.skipped for t in stuck) > 1000, "the bus is full")
            got = len(other.recv_batch(1000, 1))
        assert task.skipped < got
        slow.flush_tx_buffer()
