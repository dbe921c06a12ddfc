"""A bus that is awaited: ``async for``, ``arecv`` and ``asend``."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import can
import pytest

from canbroker import Bus, CanOperationError, CanTimeoutError, Message, ThreadSafeBus
from canbroker.transport.runtime import Runtime
from tests.support.brokers import processes_of, wait_until

Open = Callable[..., Bus]

#: A frame of 8 bytes takes some 12 ms at this bit rate.
SLOW = 10_000

#: Frames that a client may have on their way, and those that make it wait.
FULL = 2_048


class Undescribed(Bus):
    """As on systems that cannot poll several descriptors as one."""

    def fileno(self) -> int:
        super().fileno()
        return -1


@pytest.fixture(params=[Bus, ThreadSafeBus, Undescribed], ids=lambda kind: kind.__name__)
def kind(request: pytest.FixtureRequest) -> type[Bus]:
    """The kinds of buses that receive differently."""
    chosen: type[Bus] = request.param
    return chosen


@pytest.fixture
def open_bus(runtime: Runtime) -> Iterator[Open]:
    """Opens buses on virtual channels, and shuts them down at the end of the test."""
    buses: list[Bus] = []

    def make(channel: Any = "x", kind: type[Bus] = Bus, **parameters: Any) -> Bus:
        buses.append(kind(channel, "virtual", **parameters))
        return buses[-1]

    yield make
    for bus in buses:
        bus.shutdown()


def frame(number: int) -> Message:
    return Message(
        arbitration_id=number & 0x7FF, data=number.to_bytes(8, "big"), is_extended_id=False
    )


def number_of(message: Message | None) -> int:
    assert message is not None
    return int.from_bytes(message.data, "big")


# ------------------------------------------------------------------------------------ receiving


def test_arecv_waits_for_a_message(open_bus: Open, kind: type[Bus]) -> None:
    sender, receiver = open_bus(), open_bus(kind=kind)

    async def run() -> None:
        waiting = asyncio.create_task(receiver.arecv())
        await asyncio.sleep(0.3)  # longer than a look and a heartbeat take
        assert not waiting.done()
        sender.send(frame(7))
        assert number_of(await waiting) == 7

    asyncio.run(run())


def test_arecv_gives_up_at_its_deadline(open_bus: Open, kind: type[Bus]) -> None:
    receiver = open_bus(kind=kind)

    async def run() -> None:
        began = asyncio.get_running_loop().time()
        assert await receiver.arecv(0.6) is None
        assert asyncio.get_running_loop().time() - began >= 0.6
        assert await receiver.arecv(0) is None
        assert await receiver.arecv(-1) is None
        with pytest.raises(ValueError, match="NaN"):
            await receiver.arecv(float("nan"))

    asyncio.run(run())


def test_iteration_yields_every_message_and_ends_with_the_bus(
    open_bus: Open, kind: type[Bus]
) -> None:
    sender, receiver = open_bus(), open_bus(kind=kind)
    got: list[int] = []

    async def run() -> None:
        async for message in receiver:
            got.append(number_of(message))
            if len(got) == 2_000:
                asyncio.get_running_loop().call_soon(receiver.shutdown)

    with ThreadPoolExecutor(1) as pool:
        sending = pool.submit(sender.send_batch, [frame(number) for number in range(2_000)])
        asyncio.run(run())
        sending.result(20)
    assert got == [*range(2_000)]


def test_iteration_ends_when_another_thread_shuts_the_bus_down(open_bus: Open) -> None:
    receiver = open_bus()

    async def run() -> list[Message]:
        threading.Timer(0.1, receiver.shutdown).start()
        return [message async for message in receiver]

    assert asyncio.run(run()) == []
    wait_until(lambda: threading.active_count() == 1, "the timer has ended")


def test_a_channel_that_is_gone_is_no_end_of_iteration(open_bus: Open, runtime: Runtime) -> None:
    receivers = [open_bus() for _ in range(3)]

    async def iterate(bus: Bus) -> None:
        async for _ in bus:
            pass

    async def run() -> None:
        with pytest.raises(CanOperationError, match="silent"):
            await receivers[0].arecv(30)
        with pytest.raises(CanOperationError, match="silent"):
            await iterate(receivers[1])

    for process in processes_of(runtime):
        process.suspend()
    try:
        asyncio.run(run())
        with pytest.raises(CanOperationError, match="silent"):  # who only polls shall know, too
            wait_until(lambda: receivers[2].recv(0), "it raises")
    finally:
        for process in processes_of(runtime):
            process.resume()


def test_cancellation_loses_no_message(open_bus: Open, kind: type[Bus]) -> None:
    sender, receiver = open_bus(), open_bus(kind=kind)
    chance = random.Random(7)
    got: list[int] = []
    cancelled = 0

    async def receive() -> None:
        nonlocal cancelled
        waiting = asyncio.create_task(receiver.arecv())
        for _ in range(chance.randrange(6)):
            await asyncio.sleep(0)
        if chance.random() < 0.3:
            await asyncio.sleep(0.001)
        waiting.cancel()
        try:
            got.append(number_of(await waiting))
        except asyncio.CancelledError:
            cancelled += 1

    async def run() -> None:
        async with asyncio.timeout(50):
            while len(got) < 3_000:
                await receive()

    with ThreadPoolExecutor(1) as pool:
        sending = pool.submit(send_each, sender, 3_000)
        asyncio.run(run())
        sending.result(20)
    assert got == [*range(3_000)]
    assert cancelled > 300


def send_each(bus: Bus, count: int) -> None:
    for number in range(count):
        bus.send(frame(number))


def test_timeouts_of_asyncio_lose_no_message(open_bus: Open) -> None:
    sender, receiver = open_bus(), open_bus()
    got: list[int] = []
    timeouts = 0

    async def receive() -> None:
        async with asyncio.timeout(0.0005):
            async for message in receiver:
                got.append(number_of(message))  # noqa: PERF401 - it ends in between

    async def run() -> None:
        nonlocal timeouts
        async with asyncio.timeout(50):
            while len(got) < 2_000:
                try:
                    await receive()
                except TimeoutError:
                    timeouts += 1

    with ThreadPoolExecutor(1) as pool:
        sending = pool.submit(send_each, sender, 2_000)
        asyncio.run(run())
        sending.result(20)
    assert got == [*range(2_000)]
    assert timeouts > 10


def test_tasks_share_a_bus(open_bus: Open, kind: type[Bus]) -> None:
    sender, receiver = open_bus(), open_bus(kind=kind)
    got: list[list[int]] = [[] for _ in range(5)]

    async def receive(mine: list[int]) -> None:
        while (message := await receiver.arecv(20)) is not None and number_of(message) < 1_000:
            mine.append(number_of(message))

    async def run() -> None:
        tasks = [asyncio.create_task(receive(mine)) for mine in got]
        await asyncio.sleep(0.1)
        sender.send_batch([frame(number) for number in range(1_005)], timeout=20)
        await asyncio.gather(*tasks)

    asyncio.run(run())
    assert sorted(number for mine in got for number in mine) == [*range(1_000)]
    assert all(mine == sorted(mine) for mine in got)


def test_iteration_lets_others_run(open_bus: Open) -> None:
    sender, receiver = open_bus(), open_bus()
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def run() -> None:
        counting = asyncio.create_task(count())
        for _ in range(500):
            await receiver.arecv(20)
        counting.cancel()

    sender.send_batch([frame(number) for number in range(500)], timeout=20)
    asyncio.run(run())
    assert turns >= 500


# -------------------------------------------------------------------------------------- sending


def test_asend_sends_in_order(open_bus: Open) -> None:
    sender, receiver = open_bus(), open_bus()

    async def send() -> None:
        for number in range(5_000):  # more than may be on their way
            await sender.asend(frame(number))
        await sender.asend(can.Message(arbitration_id=1, data=(5_000).to_bytes(8, "big")))

    async def run() -> None:
        sending = asyncio.create_task(send())
        got = [number_of(await receiver.arecv(20)) for _ in range(5_001)]
        await sending
        assert got == [*range(5_001)]

    asyncio.run(run())
    sender.flush(10)
    assert sender.stats.sent == 5_001


def test_asend_waits_for_the_driver(open_bus: Open) -> None:
    bus = open_bus("slow", bitrate=SLOW)

    async def run() -> None:
        await bus.asend(frame(1), 20)
        assert bus.stats.sent == 1
        bus.send_batch([frame(2)] * 100)
        with pytest.raises(CanTimeoutError):
            await bus.asend(frame(3), 0.05)

    asyncio.run(run())
    assert bus.flush_tx_buffer() > 0


def test_a_full_queue_is_waited_for(open_bus: Open) -> None:
    bus, witness = open_bus("slow", bitrate=SLOW), open_bus("slow")

    async def run() -> None:
        bus.send_batch([frame(0)] * FULL)
        with pytest.raises(CanTimeoutError, match="full"):
            await bus.asend(frame(1), 0)
        message = frame(2)
        waiting = asyncio.create_task(bus.asend(message))
        cancelled = asyncio.create_task(bus.asend(frame(3)))
        for _ in range(3):  # and this task goes on
            await asyncio.sleep(0.001)
        message.data = bytearray(8)  # what was given is what is sent
        assert not waiting.done()
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        assert bus.flush_tx_buffer() > 0
        await asyncio.wait_for(waiting, 20)
        await bus.asend(frame(4), 20)

    asyncio.run(run())
    seen = [number_of(message) for message in witness.recv_batch(FULL, 10)]
    while seen[-1] != 4:
        seen += [number_of(message) for message in witness.recv_batch(FULL, 10)]
    assert [number for number in seen if number] == [2, 4]


def test_what_cannot_be_sent_raises(open_bus: Open) -> None:
    bus = open_bus()

    async def run() -> None:
        for timeout in (None, 0, 10):
            with pytest.raises(CanOperationError, match="9 bytes"):
                await bus.asend(Message(data=bytes(9)), timeout)
            with pytest.raises(TypeError):
                await bus.asend("123#00", timeout)
        bus.shutdown()
        with pytest.raises(CanOperationError, match="shut down"):
            await bus.asend(frame(1))

    asyncio.run(run())


# ------------------------------------------------------------------------------------- importing


def test_who_does_not_await_does_not_import_asyncio() -> None:
    program = "import sys, canbroker.client, canbroker.notifier; print('asyncio' in sys.modules)"
    answer = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=50
    )
    assert answer.stdout == "False\n"
