"""One ``ThreadSafeBus`` for hundreds of threads."""

from __future__ import annotations

import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial

import pytest

from canbroker import BusState, CanOperationError, Message, ThreadSafeBus
from canbroker.transport.runtime import Runtime
from tests.support.brokers import wait_until

THREADS = 100
PATIENCE_S = 30.0

#: What does not wait for a ``recv`` takes milliseconds. What does would never return here.
SOON_S = 1.0


@contextmanager
def running(*jobs: Callable[[], None]) -> Iterator[None]:
    """Runs each job in a thread of its own; at the end all must have ended without an error."""
    errors: list[BaseException] = []

    def guarded(job: Callable[[], None]) -> None:
        try:
            job()
        except BaseException as error:  # noqa: BLE001 - raised below
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(job,), daemon=True) for job in jobs]
    for thread in threads:
        thread.start()
    yield
    deadline = time.monotonic() + PATIENCE_S
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    assert not [thread for thread in threads if thread.is_alive()], "deadlock"
    assert not errors


class Receivers:
    """What threads receive until the bus is shut down, each on a list of its own."""

    def __init__(self, bus: ThreadSafeBus) -> None:
        self.got: list[list[Message]] = []
        self.begun = 0
        self._bus = bus
        self._lock = threading.Lock()

    def receive(self) -> None:
        mine: list[Message] = []
        with self._lock:
            self.got.append(mine)
            self.begun += 1
        with suppress(CanOperationError):  # the bus is shut down
            while (message := self._bus.recv()) is not None:
                mine.append(message)

    def wait_for(self, count: int) -> None:
        """Waits until they have received so many messages together."""
        wait_until(lambda: sum(map(len, self.got)) >= count, f"{count} are received", PATIENCE_S)


def test_a_hundred_threads_send_and_a_hundred_receive(runtime: Runtime) -> None:
    each = 30

    def send(bus: ThreadSafeBus, identifier: int) -> None:
        for number in range(each):
            bus.send(Message(arbitration_id=identifier, data=bytes([number])))

    with ThreadSafeBus("x", "virtual", receive_own_messages=True) as bus:
        receivers = Receivers(bus)
        with running(*[receivers.receive] * THREADS):
            with running(*(partial(send, bus, identifier) for identifier in range(THREADS))):
                assert bus.state is BusState.ACTIVE
            receivers.wait_for(THREADS * each)
            bus.flush(PATIENCE_S)
            stats = bus.stats
            bus.shutdown()
    seen = Counter(
        (message.arbitration_id, message.data[0]) for mine in receivers.got for message in mine
    )
    assert seen == Counter((sender, number) for sender in range(THREADS) for number in range(each))
    assert (stats.sent, stats.received) == (THREADS * each,) * 2
    assert (stats.failed, stats.lost, stats.repaired) == (0, 0, 0)
    for mine in receivers.got:
        assert_in_order(mine)


def assert_in_order(messages: list[Message]) -> None:
    """Of each sender the later frame is received later."""
    last: dict[int, int] = {}
    for message in messages:
        assert message.data[0] > last.get(message.arbitration_id, -1)
        last[message.arbitration_id] = message.data[0]


@pytest.mark.parametrize("waiting", [1, THREADS])
def test_state_and_shutdown_do_not_wait_for_a_recv(runtime: Runtime, waiting: int) -> None:
    with ThreadSafeBus("x", "virtual") as other:
        took = [shut_down_while_threads_wait(waiting, other) for _ in range(20)]
    for name, seconds in zip(("state", "shutdown"), zip(*took, strict=True), strict=True):
        median, longest = statistics.median(seconds) * 1e3, max(seconds) * 1e3
        print(f"{name}, {waiting} wait: median {median:.2f} ms, max {longest:.2f} ms")  # noqa: T201 - for -s
        assert max(seconds) < SOON_S, name


def shut_down_while_threads_wait(waiting: int, other: ThreadSafeBus) -> tuple[float, float]:
    """Seconds that ``state`` and ``shutdown`` take while so many threads wait in ``recv``."""
    bus = ThreadSafeBus("x", "virtual")
    receivers = Receivers(bus)
    with running(*[receivers.receive] * waiting):
        wait_until(lambda: receivers.begun == waiting, "all have begun")
        other.send(Message(arbitration_id=1))
        receivers.wait_for(1)
        before = time.perf_counter()
        assert bus.state is BusState.ACTIVE
        between = time.perf_counter()
        bus.shutdown()
        after = time.perf_counter()
    return between - before, after - between


def test_a_deadline_holds_also_for_who_waits_for_others_that_wait(runtime: Runtime) -> None:
    with ThreadSafeBus("x", "virtual") as bus, ThreadSafeBus("x", "virtual") as other:
        got: list[Message | None] = []

        def receive() -> None:
            got.append(bus.recv(0.05))

        with running(lambda: got.append(bus.recv())):
            with running(*[receive] * THREADS):
                pass
            assert got == [None] * THREADS
            other.send(Message(arbitration_id=7))
        assert isinstance(got[-1], Message)
        assert got[-1].arbitration_id == 7


def test_filters_change_and_tasks_run_while_a_hundred_threads_receive(runtime: Runtime) -> None:
    with ThreadSafeBus("x", "virtual") as bus, ThreadSafeBus("x", "virtual") as other:
        receivers = Receivers(bus)
        with running(*[receivers.receive] * THREADS):
            wait_until(lambda: receivers.begun == THREADS, "all have begun")
            for number in range(20):
                bus.set_filters([{"can_id": number, "can_mask": 0x1FFFFFFF}])
                other.send_batch([Message(arbitration_id=n) for n in range(20)])
                receivers.wait_for(number + 1)
            task = bus.send_periodic(Message(arbitration_id=0x100), 0.01)
            assert other.recv(PATIENCE_S) is not None
            task.stop()
            bus.shutdown()
    identifiers = sorted(message.arbitration_id for mine in receivers.got for message in mine)
    assert identifiers == list(range(20))
