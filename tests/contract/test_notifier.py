"""Notifier over real buses: on threads, in an event loop, over python-can's, into its writers."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import can
import pytest

from canbroker import (
    AsyncBufferedReader,
    BufferedReader,
    Bus,
    CanOperationError,
    Listener,
    Message,
    Notifier,
    RedirectReader,
)
from canbroker.transport.runtime import Runtime
from tests.support.brokers import processes_of, stop_broker, wait_until


class Counting(Bus):
    """Counts how often it was asked for a message."""

    asked = 0

    def recv(self, timeout: float | None = None) -> Message | None:
        self.asked += 1
        return super().recv(timeout)


Open = Callable[..., Counting]


@pytest.fixture
def open_bus(runtime: Runtime) -> Iterator[Open]:
    """Opens buses on virtual channels, and shuts them down at the end of the test."""
    buses: list[Counting] = []

    def make(channel: Any = "x") -> Counting:
        buses.append(Counting(channel, "virtual"))
        return buses[-1]

    yield make
    for bus in buses:
        bus.shutdown()


def frame(number: int) -> Message:
    return Message(
        arbitration_id=number & 0x7FF, data=number.to_bytes(4, "big"), is_extended_id=False
    )


def number_of(message: Message | None) -> int:
    assert message is not None
    return int.from_bytes(message.data, "big")


class Keeper(Listener):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.errors: list[Exception] = []
        self.stops = 0

    def on_message_received(self, msg: Message) -> None:
        self.numbers.append(number_of(msg))

    def on_error(self, exc: Exception) -> None:
        self.errors.append(exc)

    def stop(self) -> None:
        self.stops += 1

    def has(self, count: int) -> Callable[[], bool]:
        return lambda: len(self.numbers) == count


def fails(_: Message) -> None:
    raise ValueError("this listener is broken")


def threads() -> list[str]:
    return [each.name for each in threading.enumerate() if each.name.startswith("notifier")]


# ------------------------------------------------------------------------------------ on a thread


def test_every_listener_gets_every_message_in_order(open_bus: Open) -> None:
    sender, receiver = open_bus(), open_bus()
    keeper, reader, seen = Keeper(), BufferedReader(), list[int]()
    with Notifier(receiver, [keeper, reader, lambda msg: seen.append(number_of(msg))]) as notifier:
        assert notifier.bus is receiver
        sender.send_batch([frame(number) for number in range(3_000)], timeout=20)
        assert [number_of(reader.get_message(20)) for _ in range(3_000)] == [*range(3_000)]
        wait_until(lambda: len(seen) == 3_000, "the last listener has got the last message")
    assert keeper.numbers == seen == [*range(3_000)]
    assert keeper.errors == []


def test_a_listener_that_raises_harms_no_other(open_bus: Open) -> None:
    sender, receiver = open_bus(), open_bus()
    before, after = Keeper(), Keeper()
    with Notifier(receiver, [before, fails, after]) as notifier:
        for number in range(3):
            sender.send(frame(number))
        wait_until(after.has(3), "the later listener has got all")
        assert isinstance(notifier.exception, ValueError)
    assert before.numbers == after.numbers == [0, 1, 2]
    assert [str(error) for error in after.errors] == 3 * ["this listener is broken"]
    assert before.errors == after.errors


def test_what_nobody_takes_is_logged(open_bus: Open, caplog: pytest.LogCaptureFixture) -> None:
    sender, receiver = open_bus(), open_bus()
    reader = BufferedReader()
    with Notifier(receiver, [fails, reader]), caplog.at_level(logging.ERROR, "canbroker"):
        sender.send_batch([frame(number) for number in range(100)], timeout=10)
        assert [number_of(reader.get_message(10)) for _ in range(100)] == [*range(100)]
    assert "this listener is broken" in caplog.text
    assert "in fails" in caplog.text, "with its traceback"
    assert len(caplog.records) < 50, "and not for each message"


def test_sys_exit_in_a_listener_is_an_error(open_bus: Open) -> None:
    sender, receiver = open_bus(), open_bus()
    keeper = Keeper()
    with Notifier(receiver, [lambda _: sys.exit(3), keeper]):
        for number in range(2):
            sender.send(frame(number))
        wait_until(keeper.has(2), "it has ended nothing")
    assert "sys.exit" in str(keeper.errors[0])


def test_on_error_may_raise(open_bus: Open, caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Keeper):
        def on_error(self, exc: Exception) -> None:
            raise OSError("no disk for the report") from exc

    sender, receiver = open_bus(), open_bus()
    keeper = Keeper()
    with Notifier(receiver, [fails, Broken(), keeper]), caplog.at_level(logging.ERROR, "canbroker"):
        for number in range(2):
            sender.send(frame(number))
        wait_until(keeper.has(2), "both are there")
    assert len(keeper.errors) == 2
    assert "no disk for the report" in caplog.text


def test_stop_is_prompt_whatever_the_timeout(open_bus: Open) -> None:
    receiver = open_bus()
    notifier = Notifier(receiver, [], timeout=1_000)
    assert len(threads()) == 1
    notifier.stop(timeout=30)
    assert threads() == []
    assert notifier.stopped


def test_stop_does_not_wait_for_a_message(open_bus: Open) -> None:
    bus: Any = open_bus()
    ours = sum(seconds_to_stop(Notifier(bus, [])) for _ in range(5))
    theirs = sum(seconds_to_stop(can.Notifier(bus, [], timeout=0.2)) for _ in range(5))
    assert ours < theirs / 4


def seconds_to_stop(notifier: Any) -> float:
    pause = threading.Event()
    pause.wait(0.01)  # it has begun to wait
    began = time.monotonic()
    notifier.stop()
    return time.monotonic() - began


def test_stop_stops_every_listener_once(open_bus: Open, caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Keeper):
        def stop(self) -> None:
            raise OSError("the disk is full")

    keeper = Keeper()
    notifier = Notifier(open_bus(), [Broken(), keeper, fails])
    with pytest.raises(OSError, match="the disk is full"):
        notifier.stop()
    notifier.stop()
    assert notifier.stopped
    assert keeper.stops == 1
    assert threads() == []


def test_a_notifier_starts_again(open_bus: Open) -> None:
    sender, receiver = open_bus(), open_bus()
    reader = BufferedReader()
    notifier = Notifier(receiver, [reader])
    sender.send(frame(0))
    assert number_of(reader.get_message(10)) == 0
    notifier.stop()
    sender.send(frame(1), timeout=10)
    assert reader.get_message(0) is None, "it waits in the bus"
    notifier.start()
    notifier.start()
    assert not notifier.stopped
    sender.send(frame(2))
    assert [number_of(reader.get_message(10)) for _ in range(2)] == [1, 2]
    assert len(threads()) == 1
    notifier.stop()


def test_a_bus_has_one_notifier(open_bus: Open) -> None:
    first, second = open_bus(), open_bus()
    with Notifier(first, []) as notifier:
        assert Notifier.find_instances(first) == (notifier,)
        assert Notifier.find_instances(second) == ()
        with pytest.raises(ValueError, match="has a Notifier already"):
            Notifier([second, first], [])
        assert Notifier.find_instances(second) == (), "nothing is left of what has failed"
        with pytest.raises(ValueError, match="has a Notifier already"):
            notifier.add_bus(first)
        assert len(threads()) == 1
    assert Notifier.find_instances(first) == ()
    with Notifier(first, []) as other:
        assert Notifier.find_instances(first) == (other,)
        with pytest.raises(ValueError, match="has a Notifier already"):
            notifier.start()
        assert notifier.stopped
    with pytest.raises(ValueError, match="has a Notifier already"):
        Notifier([first, first], [])


def test_a_closed_bus_is_refused(open_bus: Open) -> None:
    first, closed = open_bus(), open_bus()
    closed.shutdown()
    with pytest.raises(CanOperationError, match="shut down"):
        Notifier([first, closed], [])
    with Notifier(first, []) as notifier:
        with pytest.raises(CanOperationError, match="shut down"):
            notifier.add_bus(closed)
        assert notifier.bus is first
        assert Notifier.find_instances(closed) == ()


def test_several_buses(open_bus: Open) -> None:
    senders = [open_bus(name) for name in ("a", "b", "c")]
    receivers = [open_bus(name) for name in ("a", "b", "c")]
    inside, pause = threading.Lock(), threading.Event()
    got: dict[str, list[int]] = {"a": [], "b": [], "c": []}

    def keep(message: Message) -> None:
        assert inside.acquire(blocking=False), "two threads call listeners at the same time"
        got[message.channel].append(number_of(message))
        pause.wait(0.0002)  # lets other threads run
        inside.release()

    keeper = Keeper()
    with Notifier(receivers[:2], [keep, keeper]) as notifier:
        assert notifier.bus == tuple(receivers[:2])
        notifier.add_bus(receivers[2])
        assert notifier.bus == tuple(receivers)
        for number in range(300):
            for sender in senders:
                sender.send(frame(number))
        wait_until(keeper.has(900), "all have arrived")
    assert keeper.errors == []
    assert got == {name: [*range(300)] for name in ("a", "b", "c")}


def test_listeners_come_and_go(open_bus: Open) -> None:
    sender, receiver = open_bus(), open_bus()
    first, second, witness = Keeper(), Keeper(), Keeper()
    notifier = Notifier(receiver, [first])

    def once(_: Message) -> None:
        notifier.remove_listener(once)

    with notifier:
        for listener in (once, second, second, witness):
            notifier.add_listener(listener)
        sender.send(frame(0))
        wait_until(witness.has(1), "the first is there")
        notifier.remove_listener(first)
        sender.send(frame(1))
        wait_until(witness.has(2), "the second is there")
        with pytest.raises(ValueError, match=r"."):
            notifier.remove_listener(first)
    assert first.numbers == [0]
    assert second.numbers == [0, 0, 1, 1], "added twice, called twice"
    assert notifier.listeners == [second, second, witness]


def test_a_listener_may_stop_it(open_bus: Open) -> None:
    sender, receiver = open_bus(), open_bus()
    keeper, later = Keeper(), Keeper()
    notifier = Notifier(receiver, [keeper])
    notifier.add_listener(lambda msg: notifier.stop() if number_of(msg) == 2 else None)
    notifier.add_listener(later)
    sender.send_batch([frame(number) for number in range(5)], timeout=10)
    wait_until(lambda: later.stops == 1, "the listeners are stopped")
    wait_until(lambda: threads() == [], "the thread ends")
    assert keeper.numbers == [0, 1, 2]
    assert later.numbers == [0, 1], "nothing comes after stop()"
    assert keeper.errors == []
    assert [number_of(receiver.recv(10)) for _ in range(2)] == [3, 4], "the rest is in the bus"


def test_a_coroutine_needs_a_loop(open_bus: Open) -> None:
    async def listen(_: Message) -> None:
        raise AssertionError("there is nobody to run it")

    sender, receiver = open_bus(), open_bus()
    keeper = Keeper()
    with Notifier(receiver, [listen, keeper]):
        sender.send(frame(0))
        wait_until(keeper.has(1), "it has arrived")
    (error,) = keeper.errors
    assert isinstance(error, TypeError)
    assert "loop" in str(error)


# --------------------------------------------------------------------------------- when a bus ends


def test_a_bus_that_is_shut_down_ends_its_thread(open_bus: Open) -> None:
    sender, receiver, other = open_bus(), open_bus(), open_bus("y")
    keeper = Keeper()
    with Notifier([receiver, other], [keeper]) as notifier:
        receiver.shutdown()
        wait_until(lambda: len(threads()) == 1, "its thread ends")
        open_bus("y").send(frame(5))
        wait_until(keeper.has(1), "the other bus goes on")
        assert isinstance(notifier.exception, CanOperationError)
    assert ["shut down" in str(error) for error in keeper.errors] == [True]
    assert sender.recv(0) is None


def test_a_channel_that_is_silent_for_a_while(open_bus: Open, runtime: Runtime) -> None:
    sender, receiver = open_bus(), open_bus()
    keeper = Keeper()
    with Notifier(receiver, [keeper]):
        for process in processes_of(runtime):
            process.suspend()
        try:
            wait_until(lambda: keeper.errors, "it is noticed", 20)
            asked = receiver.asked
            wait_until(lambda: receiver.asked > asked + 2, "it is tried again")
        finally:
            for process in processes_of(runtime):
                process.resume()
        wait_until(lambda: can_send(sender, frame(1)), "it is back")
        wait_until(lambda: keeper.numbers, "its messages come again")
    assert ["is silent" in str(error) for error in keeper.errors] == [True], "once"


def can_send(bus: Bus, message: Message) -> bool:
    try:
        bus.send(message, timeout=1)
    except CanOperationError:  # what was sent meanwhile, or it is not back yet
        return False
    return True


def test_a_channel_that_has_ended(open_bus: Open, runtime: Runtime) -> None:
    receiver = open_bus()
    keeper = Keeper()
    with Notifier(receiver, [keeper], timeout=1_000):
        stop_broker(runtime)
        wait_until(lambda: keeper.errors, "it is noticed", 20)
    assert isinstance(keeper.errors[0], CanOperationError)
    assert threads() == []


# ------------------------------------------------------------------------------- in an event loop


def test_listeners_run_in_the_loop(open_bus: Open) -> None:
    sender, receiver = open_bus(), open_bus()
    callers: set[threading.Thread] = set()
    slow: list[int] = []

    async def listen(message: Message) -> None:
        callers.add(threading.current_thread())
        await asyncio.sleep(0)
        slow.append(number_of(message))

    async def run() -> None:
        reader = AsyncBufferedReader()
        listeners: list[Callable[[Any], object]] = [listen, reader]
        listeners.append(lambda _: callers.add(threading.current_thread()))
        with Notifier(receiver, listeners, loop=asyncio.get_running_loop()):
            assert threads() == []
            sender.send_batch([frame(number) for number in range(2_000)], timeout=20)
            got = [number_of(await reader.get_message()) for _ in range(2_000)]
            assert got == [*range(2_000)]
            await until(lambda: len(slow) == 2_000, "all coroutines are done")

    asyncio.run(run())
    assert callers == {threading.current_thread()}
    assert slow == [*range(2_000)]


async def until(condition: Callable[[], object], what: str) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.001)
    assert condition(), what


def test_an_event_takes_all_that_is_there(open_bus: Open) -> None:
    sender, receiver, witness = open_bus(), open_bus(), open_bus()
    turns: list[int] = []
    turn = 0

    async def count() -> None:
        nonlocal turn
        while True:
            turn += 1
            await asyncio.sleep(0)

    async def run() -> None:
        counting = asyncio.create_task(count())
        with Notifier(receiver, [lambda _: turns.append(turn)], loop=asyncio.get_running_loop()):
            await until(lambda: len(turns) == 500, "all are there")
        counting.cancel()

    sender.send_batch([frame(number) for number in range(500)], timeout=20)
    assert len(witness.recv_batch(500, 10)) > 0
    asyncio.run(run())
    assert len(set(turns)) < 250, "far fewer turns of the loop than messages"


def test_what_is_raised_in_the_loop(open_bus: Open) -> None:
    sender, receiver = open_bus(), open_bus()
    keeper = Keeper()

    async def fails_later(_: Message) -> None:
        await asyncio.sleep(0)
        raise ValueError("this coroutine is broken")

    async def run() -> None:
        with Notifier(receiver, [fails, fails_later, keeper], loop=asyncio.get_running_loop()):
            sender.send(frame(0))
            await until(lambda: len(keeper.errors) == 2, "both are told")

    asyncio.run(run())
    assert keeper.numbers == [0]
    assert [str(error) for error in keeper.errors] == [
        "this listener is broken",
        "this coroutine is broken",
    ]


def test_stop_and_start_in_the_loop(open_bus: Open) -> None:
    sender, receiver = open_bus(), open_bus()

    async def run() -> None:
        reader = AsyncBufferedReader()
        notifier = Notifier(receiver, [reader], loop=asyncio.get_running_loop())
        sender.send(frame(0))
        assert number_of(await reader.get_message()) == 0
        notifier.stop()
        assert [number_of(message) async for message in reader] == []
        sender.send(frame(1), timeout=10)
        await asyncio.sleep(0)
        notifier.start()
        sender.send(frame(2))
        assert [number_of(await reader.get_message()) for _ in range(2)] == [1, 2]
        sender.send(frame(3))
        notifier.stop()
        assert number_of(await receiver.arecv(10)) == 3, "it has stayed in the bus"

    asyncio.run(run())


def test_a_listener_in_the_loop_may_stop_it(open_bus: Open) -> None:
    sender, receiver = open_bus(), open_bus()

    async def run() -> None:
        keeper = Keeper()
        loop = asyncio.get_running_loop()
        notifier = Notifier(receiver, [keeper, lambda _: notifier.stop()], loop=loop)
        sender.send_batch([frame(number) for number in range(3)], timeout=10)
        await until(lambda: notifier.stopped, "it is stopped")
        assert keeper.numbers == [0]
        assert keeper.errors == []
        assert [number_of(await receiver.arecv(10)) for _ in range(2)] == [1, 2]

    asyncio.run(run())


def test_a_bus_that_is_shut_down_in_the_loop(open_bus: Open) -> None:
    receiver = open_bus()
    keeper = Keeper()

    async def run() -> None:
        with Notifier(receiver, [keeper], loop=asyncio.get_running_loop()):
            receiver.shutdown()
            await until(lambda: keeper.errors, "it is noticed")

    asyncio.run(run())
    assert ["shut down" in str(error) for error in keeper.errors] == [True]


def test_a_channel_that_is_silent_for_a_while_in_the_loop(open_bus: Open, runtime: Runtime) -> None:
    sender, receiver = open_bus(), open_bus()
    keeper = Keeper()

    async def run() -> None:
        with Notifier(receiver, [keeper], loop=asyncio.get_running_loop()):
            for process in processes_of(runtime):
                process.suspend()
            try:
                await until(lambda: keeper.errors, "it is noticed")
                asked = receiver.asked
                await until(lambda: receiver.asked > asked + 2, "it is tried again")
            finally:
                for process in processes_of(runtime):
                    process.resume()
            await until(lambda: can_send(sender, frame(1)), "it is back")
            await until(lambda: keeper.numbers, "its messages come again")

    asyncio.run(run())
    assert ["is silent" in str(error) for error in keeper.errors] == [True], "once"


def test_a_notifier_outlives_its_loop(open_bus: Open) -> None:
    receiver = open_bus()

    async def run() -> Notifier:
        return Notifier(receiver, [], loop=asyncio.get_running_loop())

    notifier = asyncio.run(run())
    notifier.stop()
    assert Notifier.find_instances(receiver) == ()


# ------------------------------------------------------------------------------ with python-can's


def test_redirection_between_channels(open_bus: Open) -> None:
    sender, source, target, receiver = open_bus(), open_bus(), open_bus("y"), open_bus("y")
    with Notifier(source, [RedirectReader(target)]):
        sender.send_batch([frame(number) for number in range(500)], timeout=20)
        assert [number_of(receiver.recv(10)) for _ in range(500)] == [*range(500)]


def test_python_cans_buses_have_a_notifier_too(open_bus: Open) -> None:
    with (
        can.Bus("notified", interface="virtual", ignore_config=True) as peer,
        can.Bus("notified", interface="virtual", ignore_config=True) as bus,
    ):
        keeper = Keeper()
        with Notifier([bus, open_bus()], [keeper], timeout=0.1):
            for number in range(50):
                peer.send(can.Message(arbitration_id=number, data=[number]))
            wait_until(keeper.has(50), "all are there")
        assert threads() == []

        async def run() -> None:
            loop = asyncio.get_running_loop()
            with Notifier(bus, [keeper], timeout=0.1, loop=loop):
                peer.send(can.Message(arbitration_id=1, data=[50]))
                await until(keeper.has(51), "it is there")

        asyncio.run(run())
        assert keeper.numbers == [*range(51)]


def test_python_cans_notifier_takes_our_buses_and_readers(open_bus: Open) -> None:
    sender, receiver = open_bus(), open_bus()
    reader: Any = BufferedReader()
    bus: Any = receiver
    with can.Notifier(bus, [reader], timeout=0.1):
        sender.send_batch([frame(number) for number in range(50)], timeout=10)
        assert [number_of(reader.get_message(10)) for _ in range(50)] == [*range(50)]


SENT = [
    Message(arbitration_id=0x123, data=[1, 2, 3], is_extended_id=False),
    Message(arbitration_id=0x1ABCDEF0, data=bytes(range(8))),
    Message(arbitration_id=0x7FF, is_extended_id=False),
    Message(arbitration_id=0x55, data=bytes(range(16)), is_fd=True, bitrate_switch=True),
    Message(arbitration_id=0x700, is_extended_id=False, is_remote_frame=True, dlc=0),
]


@pytest.mark.parametrize("suffix", ["asc", "blf", "csv", "log", "db", "trc"])
def test_python_cans_writers_are_fed(open_bus: Open, tmp_path: Path, suffix: str) -> None:
    fed, own = tmp_path / f"fed.{suffix}", tmp_path / f"own.{suffix}"
    sender, receiver = open_bus(), open_bus()
    reader = BufferedReader()
    with Notifier(receiver, [can.Logger(fed), reader]):
        sender.send_batch(SENT, timeout=10)
        received = [reader.get_message(10) for _ in SENT]
    # Some formats know no FD or no remote frames: they shall have what python-can's messages give.
    with can.Logger(own) as writer:
        for message in received:
            assert message is not None
            writer(can.Message(**{name: getattr(message, name) for name in ATTRIBUTES}))
    read, expected = logged(fed), logged(own)
    assert [text for text, _ in read] == [text for text, _ in expected]
    assert [time for _, time in read] == pytest.approx([time for _, time in expected], abs=1e-6)
    assert len(read) >= len(SENT) - 2


ATTRIBUTES = [name for name in Message.__slots__ if not name.startswith("__")]


def logged(path: Path) -> list[tuple[str, float]]:
    """What a log has of each message, and when."""
    found = []
    with can.LogReader(path) as log:
        for message in log:
            time, message.timestamp = message.timestamp, 0.0
            found.append((str(message), time))
    return found
