"""The sole right to transmit: who has it, who is refused, and when it is given up."""

from __future__ import annotations

import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import can
import psutil
import pytest

from canbroker import (
    Bus,
    BusABC,
    BusState,
    CanInitializationError,
    CanOperationError,
    Message,
    ThreadSafeBus,
)
from canbroker.model.filters import parse
from canbroker.transport.address import parse_ipc
from canbroker.transport.runtime import Runtime
from canbroker.transport.sockets import Context
from canbroker.wire import topics
from tests.support.brokers import status_of, wait_until
from tests.support.processes import Program

HOLDER = """
bus = Bus("x", "virtual", exclusive=True)
say("mine")
while (word := hear()) != "end":
    bus.send(Message(arbitration_id=word, is_extended_id=False), timeout=10)
    say("sent")
bus.shutdown()
"""


def message(identifier: int) -> Message:
    return Message(arbitration_id=identifier, is_extended_id=False)


def holder_of(runtime: Runtime) -> str | None:
    (channel,) = status_of(runtime).channels
    if channel.state is None or channel.state.exclusive is None:
        return None
    return channel.state.exclusive.client_id


def may_send(bus: BusABC) -> bool:
    failed = bus.stats.failed
    with suppress(CanOperationError):
        bus.send(message(0x7FF), timeout=10)
    return bus.stats.failed == failed


def turn_over(bus: BusABC) -> bool:
    """Uses a bus whose channel comes and goes."""
    with suppress(CanOperationError):
        bus.recv(0)
    return True


def actor_of(runtime: Runtime) -> psutil.Process:
    (channel,) = status_of(runtime).channels
    return psutil.Process(channel.pid)


@contextmanager
def draining(bus: BusABC) -> Iterator[None]:
    """Receives and forgets, as a program does that its bus is open for."""
    done = threading.Event()

    def receive() -> None:
        while not done.is_set():
            bus.recv(0.05)

    thread = threading.Thread(target=receive)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def test_others_receive_and_are_refused_at_once(runtime: Runtime) -> None:
    with Bus("x", "virtual") as other, Program(HOLDER) as holder:
        assert holder.said() == "mine"
        holder.tell(0x11)
        assert holder.said() == "sent"
        received = other.recv(10)
        assert received is not None
        assert received.arbitration_id == 0x11
        named = rf"012# was not sent: .*exclusive to client \w+ \(process {holder.pid}: -c"
        for timeout in (None, 0, 10):
            with pytest.raises(CanOperationError, match=named):
                other.send(message(0x12), timeout)
        with pytest.raises(CanOperationError, match=named):
            other.send_batch([message(0x12)] * 3)
        assert other.stats.failed == 6
        other.flush(10)  # nothing is left to be told
        holder.tell("end")
        assert holder.end() == 0
        other.send(message(0x13), timeout=10)  # whoever has been shut down has given it up
        assert other.stats.sent == 1


def test_after_its_shutdown_everyone_may_send(runtime: Runtime) -> None:
    with Bus("x", "virtual") as other:
        for _ in range(30):
            Bus("x", "virtual", exclusive=True).shutdown()
            assert may_send(other)  # at once


def test_shutdown_waits_a_while_for_a_channel_that_has_not_seen_it(runtime: Runtime) -> None:
    with Bus("x", "virtual") as other:
        bus = Bus("x", "virtual", exclusive=True)
        actor = actor_of(runtime)
        assert bus.state is BusState.ACTIVE  # it has just heard of it; else it would not wait
        actor.suspend()
        wait_until(lambda: actor.status() == psutil.STATUS_STOPPED, "it does nothing any more")
        began = time.monotonic()
        bus.shutdown()
        assert time.monotonic() - began >= 0.4
        actor.resume()
        wait_until(lambda: may_send(other), "everyone may send")


def test_a_second_one_is_told_who_is_the_first(runtime: Runtime) -> None:
    with Program(HOLDER) as holder:
        assert holder.said() == "mine"
        for kind in (Bus, ThreadSafeBus):
            with pytest.raises(CanInitializationError, match=rf"exclusive.*process {holder.pid}:"):
                kind("x", "virtual", exclusive=True)
        (channel,) = status_of(runtime).channels
        assert len(channel.clients) == 1
        holder.tell(0x11)  # and nothing has changed for it
        assert holder.said() == "sent"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_it_is_given_up_by_whatever_ends_its_process(
    runtime: Runtime, number: signal.Signals
) -> None:
    with Bus("x", "virtual") as other:
        with Program(HOLDER) as holder:
            assert holder.said() == "mine"
            holder.signal(number)
            holder.process.wait()
            with Bus("x", "virtual", exclusive=True) as successor:  # no sooner, no later
                successor.send(message(0x14), timeout=10)
        wait_until(lambda: may_send(other), "everyone may send")


def test_the_driver_is_not_handed_what_others_have_queued(runtime: Runtime) -> None:
    with Bus("x", "virtual", bitrate=10_000) as other, Bus("x", "virtual") as watcher:
        other.send_batch([message(number) for number in range(200)])  # a second of the bus
        with Bus("x", "virtual", exclusive=True) as bus:
            with pytest.raises(CanOperationError, match="exclusive to client"):
                other.flush(10)
            sent = other.stats.sent
            assert sent < 200
            assert sent + other.stats.failed == 200
            bus.send(message(0x7F0), timeout=10)
        while (received := watcher.recv(10)) is not None and received.arbitration_id != 0x7F0:
            sent -= 1
        assert sent == 0  # before its own came what the driver had, and nothing else


def test_filters_may_be_changed(runtime: Runtime) -> None:
    with Bus("x", "virtual") as other, Bus("x", "virtual", exclusive=True) as bus:
        bus.set_filters([{"can_id": 0x100, "can_mask": 0x700}])
        bus.set_filters(None)
        assert not may_send(other)
        bus.send(message(1), timeout=10)


def test_tasks_of_the_holder_go_on_and_those_of_others_fail(runtime: Runtime) -> None:
    with Bus("x", "virtual") as other, Bus("x", "virtual") as watcher:
        refusals: list[str] = []

        def note(error: Exception) -> bool:
            refusals.append(str(error))
            return True

        other.send_periodic(message(0x21), 0.01, on_error=note)
        other.send_periodic(message(0x22), 0.01, modifier_callback=lambda _: None, on_error=note)
        assert {watcher.recv(10).arbitration_id for _ in range(20)} == {0x21, 0x22}  # type: ignore[union-attr]
        with Bus("x", "virtual", exclusive=True) as bus:
            task = bus.send_periodic(message(0x23), 0.01)
            wait_until(lambda: any("021" in told for told in refusals), "the scheduler tells")
            wait_until(lambda: any("022" in told for told in refusals), "the callback's thread")
            assert all("exclusive to client" in told for told in refusals)
            while (received := watcher.recv(10)) is not None and received.arbitration_id != 0x23:
                continue  # what was sent before
            assert {watcher.recv(10).arbitration_id for _ in range(20)} == {0x23}  # type: ignore[union-attr]
            task.stop()
        while (received := watcher.recv(10)) is not None and received.arbitration_id == 0x23:
            continue  # what was sent before
        seen: Counter[int] = Counter()  # several, so that every refusal has been told
        while min(seen[0x21], seen[0x22]) < 5 and (received := watcher.recv(10)) is not None:
            seen[received.arbitration_id] += 1
        assert set(seen) == {0x21, 0x22}  # and go on when they may


def test_it_is_taken_again_from_a_restarted_actor(runtime: Runtime) -> None:
    with Bus("x", "virtual") as other, Bus("x", "virtual", exclusive=True) as bus:
        wait_until(lambda: holder_of(runtime), "the broker has heard of the claim")
        mine = holder_of(runtime)
        killed = actor_of(runtime)
        killed.kill()
        with draining(bus), draining(other):
            wait_until(lambda: other.stats.restarts and holder_of(runtime) == mine, "mine again")
        assert not may_send(other)
        bus.send(message(1), timeout=10)


def test_it_is_taken_again_from_another_broker(runtime: Runtime) -> None:
    with Bus("x", "virtual", exclusive=True) as bus:
        wait_until(lambda: holder_of(runtime), "the broker has heard of the claim")
        mine = holder_of(runtime)
        broker = psutil.Process(status_of(runtime).pid)
        broker.kill()
        psutil.wait_procs([broker], timeout=10)
        with Bus("x", "virtual") as other:  # starts one
            wait_until(lambda: turn_over(bus) and holder_of(runtime) == mine, "mine again")
            assert not may_send(other)


def test_a_claim_ends_with_its_presence_and_the_next_one_is_served(
    runtime: Runtime, context: Context
) -> None:
    with Bus("x", "virtual") as bus:
        (channel,) = status_of(runtime).channels
        first, second = (context.subscriber(parse_ipc(channel.stream)) for _ in range(2))
        first.subscribe(topics.private_topic(channel.name, "first", parse(""), "one"))
        wait_until(lambda: holder_of(runtime) == "first", "the first has it")
        second.subscribe(topics.private_topic(channel.name, "second", parse(""), "two"))
        assert second.poll(10_000)
        with pytest.raises(CanOperationError, match=r"client first \(one\)"):
            bus.send(message(1), timeout=10)
        first.close()
        wait_until(lambda: holder_of(runtime) == "second", "the second has it")
        with pytest.raises(CanOperationError, match=r"client second \(two\)"):
            bus.send(message(1), timeout=10)
        second.close()
        wait_until(lambda: may_send(bus), "everyone may send")


def test_a_bus_of_python_can(runtime: Runtime) -> None:
    open_bus: Callable[..., can.BusABC] = can.Bus
    with open_bus("x", "canbroker", adapter="virtual", exclusive=True, ignore_config=True) as bus:
        with Bus("x", "virtual") as other:
            assert not may_send(other)
        bus.send(can.Message(arbitration_id=1), timeout=10)
        with pytest.raises(can.CanInitializationError, match=re.escape("cannot be exclusive")):
            open_bus("x", "canbroker", adapter="virtual", exclusive=True, ignore_config=True)
