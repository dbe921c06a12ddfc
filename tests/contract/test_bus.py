"""The Bus API, once for Bus and for ThreadSafeBus, over a real broker and a virtual channel."""

from __future__ import annotations

import gc
import logging
import os
import select
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import can
import numpy  # noqa: ICN001 - see below
import pytest

from canbroker import (
    Bus,
    BusState,
    CanOperationError,
    CanProtocol,
    CanTimeoutError,
    Counter,
    Message,
    ThreadSafeBus,
)
from canbroker.transport.runtime import Runtime
from tests.support.brokers import status_of, wait_until
from tests.support.processes import Program
from tests.support.systems import forks

np: Any = numpy  # its numbers are no int and no float for a type checker, either

Open = Callable[..., Bus]


@pytest.fixture(params=[Bus, ThreadSafeBus], ids=lambda kind: kind.__name__)
def open_bus(request: pytest.FixtureRequest, runtime: Runtime) -> Iterator[Open]:
    """Opens buses on the virtual channel ``x``, and shuts them down at the end of the test."""
    buses: list[Bus] = []

    def make(channel: Any = "x", **parameters: Any) -> Bus:
        bus: Bus = request.param(channel, "virtual", **parameters)
        buses.append(bus)
        return bus

    yield make
    for bus in buses:
        bus.shutdown()


@pytest.fixture
def slow_bus(open_bus: Open) -> Bus:
    """A bus on a channel so slow that a frame takes 10 ms."""
    return open_bus("slow", bitrate=10_000)


def frame(identifier: int = 0x123, data: bytes = b"\1\2", **more: Any) -> Message:
    return Message(arbitration_id=identifier, data=data, is_extended_id=False, **more)


# ------------------------------------------------------------------------------------- messages


@pytest.mark.parametrize(
    "message",
    [
        frame(),
        Message(arbitration_id=0x1ABCDEF0, data=bytes(8)),
        frame(data=b""),
        Message(arbitration_id=0x7FF, is_extended_id=False, is_remote_frame=True, dlc=5),
        frame(data=bytes(range(64)), is_fd=True),
        frame(data=bytes(12), is_fd=True, bitrate_switch=True, error_state_indicator=True),
        frame(identifier=0x20, data=bytes(8), is_error_frame=True),
    ],
    ids=str,
)
def test_messages_arrive_as_they_were_sent(open_bus: Open, message: Message) -> None:
    sender, receiver = open_bus(), open_bus()
    before = time.time()
    sender.send(message, timeout=10)
    received = receiver.recv(10)
    assert received is not None
    assert received.equals(message, timestamp_delta=None, check_channel=False)
    assert received.is_rx
    assert before - 1 < received.timestamp < time.time() + 1
    assert sender.recv(0) is None


def test_the_channel_of_a_message_is_the_users_own_object(open_bus: Open) -> None:
    sender, receiver = open_bus(7), open_bus(7)
    sender.send(frame())
    received = receiver.recv(10)
    assert received is not None
    assert received.channel == 7
    assert isinstance(received.channel, int)


def test_own_messages_on_request_only(open_bus: Open) -> None:
    bus = open_bus(receive_own_messages=True)
    bus.send(frame())
    received = bus.recv(10)
    assert received is not None
    assert not received.is_rx


def test_what_was_sent_is_a_copy(open_bus: Open) -> None:
    sender, receiver = open_bus(), open_bus()
    message = frame(data=b"\1")
    sender.send(message)
    message.data[0] = 2
    received = receiver.recv(10)
    assert received is not None
    assert received.data == b"\1"


def test_python_cans_messages_are_taken(open_bus: Open) -> None:
    sender, receiver = open_bus(), open_bus()
    sender.send(can.Message(arbitration_id=0x55, data=[1, 2, 3]))  # type: ignore[arg-type]
    received = receiver.recv(10)
    assert received is not None
    assert (received.arbitration_id, bytes(received.data)) == (0x55, b"\1\2\3")


@pytest.mark.parametrize(
    ("message", "named"),
    [
        (Message(arbitration_id=0x800, is_extended_id=False), "0x800.*11 bits"),
        (frame(data=bytes(9)), "9 bytes"),
        (frame(data=bytes(65), is_fd=True), "65 bytes"),
        (frame(data=b"\1", bitrate_switch=True), "FD"),
    ],
)
def test_an_impossible_message_is_refused(open_bus: Open, message: Message, named: str) -> None:
    bus = open_bus()
    with pytest.raises(CanOperationError, match=named):
        bus.send(message)
    with pytest.raises(CanOperationError, match=named):
        bus.send_batch([frame(), message])
    bus.flush(10)
    assert bus.stats.sent == 0


@pytest.mark.parametrize("length", [9, 13, 22])
def test_an_fd_message_of_any_length_goes_round_and_round(open_bus: Open, length: int) -> None:
    one, other = open_bus(fd=True), open_bus(fd=True)
    message = frame(data=bytes(range(length)), is_fd=True, check=True)
    one.send(message, timeout=10)
    received = other.recv(10)
    assert received is not None
    assert bytes(received.data[:length]) == bytes(range(length))
    assert not any(received.data[length:])
    assert received.dlc == {9: 12, 13: 16, 22: 24}[length]
    other.send(received, timeout=10)
    again = one.recv(10)
    assert again is not None
    assert again.data == received.data
    task = one.send_periodic(message, 10)
    periodic = other.recv(10)
    task.stop()
    assert periodic is not None
    assert periodic.data == received.data


def test_numbers_of_numpy(open_bus: Open) -> None:
    listener = open_bus(
        can_filters=[{"can_id": np.uint32(5), "can_mask": np.int64(0x7FF)}],
        bitrate=np.int64(500_000),
        fd=np.bool_(True),
        history=np.float32(0),
    )
    sender = open_bus(bitrate=500_000)
    message = Message(arbitration_id=np.int64(5), is_extended_id=np.bool_(False), data=bytes(8))
    sender.send(message, timeout=np.int32(10))
    sender.flush(np.int8(100))
    task = sender.send_periodic(
        message, np.int8(100), np.int16(1000), counter=Counter(byte=np.int8(7))
    )
    assert len(listener.recv_batch(np.int64(1), np.int8(100))) == 1
    assert listener.recv(np.int32(100)) is not None
    task.update(period=np.float32(50))
    task.stop()
    listener.set_filters([{"can_id": 6, "can_mask": 0x7FF, "extended": np.bool_(False)}])
    assert listener.filters == [{"can_id": 6, "can_mask": 0x7FF, "extended": False}]


def test_what_is_no_message_is_a_type_error(open_bus: Open) -> None:
    with pytest.raises(TypeError):
        open_bus().send("123#00")  # type: ignore[arg-type]


def test_fd_frames_need_an_fd_channel(open_bus: Open) -> None:
    bus = open_bus("classic", fd=False)
    assert bus.protocol is CanProtocol.CAN_20
    with pytest.raises(CanOperationError, match="fd=True"):
        bus.send(frame(is_fd=True), timeout=10)


# ------------------------------------------------------------------------------------ receiving


def test_recv_waits_until_the_deadline_and_no_longer_than_asked(open_bus: Open) -> None:
    bus = open_bus()
    began = time.monotonic()
    assert bus.recv(0.2) is None
    assert time.monotonic() - began >= 0.2
    assert bus.recv(0) is None
    assert bus.recv(-1) is None
    with pytest.raises(ValueError, match="NaN"):
        bus.recv(float("nan"))


def test_recv_batch(open_bus: Open) -> None:
    sender, receiver = open_bus(), open_bus()
    sender.send_batch([frame(number) for number in range(10)], timeout=10)
    wait_until(lambda: received_at(receiver, 10), "all have arrived")
    assert [m.arbitration_id for m in receiver.recv_batch(4, 10)] == [0, 1, 2, 3]
    assert [m.arbitration_id for m in receiver.recv_batch(100, 10)] == [4, 5, 6, 7, 8, 9]
    assert receiver.recv_batch(1, 0) == []
    with pytest.raises(ValueError, match="at least 1"):
        receiver.recv_batch(0)


def received_at(bus: Bus, count: int) -> bool:
    """Whether ``count`` frames wait in the bus; looks without taking one."""
    bus.set_filters(bus.filters)  # takes in what has arrived
    peeked = bus.recv(0)
    if peeked is not None:
        pushed = bus._reception._queue
        pushed.appendleft(peeked)
    return bus.stats.receive_queue == count


def test_iteration_ends_with_the_bus(open_bus: Open) -> None:
    sender, receiver = open_bus(), open_bus()
    with ThreadPoolExecutor(1) as pool:
        numbers = pool.submit(lambda: [message.arbitration_id for message in receiver])
        sender.send_batch([frame(number) for number in range(100)], timeout=10)
        wait_until(lambda: receiver.stats.received == 100, "all have arrived")
        receiver.shutdown()
        assert numbers.result(10) == list(range(100))


def test_received_messages_are_logged_on_request(
    open_bus: Open, caplog: pytest.LogCaptureFixture
) -> None:
    sender, receiver = open_bus(), open_bus()
    with caplog.at_level(Bus.RECV_LOGGING_LEVEL, "canbroker.bus"):
        sender.send(frame())
        receiver.recv(10)
    assert "Received: Timestamp" in caplog.text


def test_fileno_is_readable_while_there_is_something(open_bus: Open) -> None:
    sender, receiver = open_bus(), open_bus()
    descriptor = receiver.fileno()
    assert descriptor >= 0
    sender.send_batch([frame(number) for number in range(50)], timeout=10)
    got: list[int] = []
    while len(got) < 50:
        readable, _, _ = select.select([descriptor], [], [], 10)
        assert readable, f"silent after {len(got)} messages"
        message = receiver.recv(0)  # one for each event, as event loops do
        if message is not None:
            got.append(message.arbitration_id)
    assert got == list(range(50))
    assert receiver.recv(0) is None
    wait_until(lambda: settles(receiver, descriptor), "it is silent in the end")


def settles(bus: Bus, descriptor: int) -> bool:
    assert bus.recv(0) is None
    return not select.select([descriptor], [], [], 0)[0]


# -------------------------------------------------------------------------------------- filters


def test_filters_are_in_force_on_return(open_bus: Open) -> None:
    sender, receiver = open_bus(), open_bus(can_filters=[{"can_id": 0x100, "can_mask": 0x700}])
    sender.send_batch([frame(0x100), frame(0x200), frame(0x101)], timeout=10)
    receiver.set_filters([{"can_id": 0x200, "can_mask": 0x700, "extended": False}])
    sender.send_batch([frame(0x102), frame(0x203)], timeout=10)
    received = receiver.recv(10)
    assert received is not None
    assert received.arbitration_id == 0x203, "what waited and does not pass any more is dropped"
    assert receiver.recv(0) is None
    receiver.set_filters(None)
    assert receiver.filters is None
    sender.send(frame(0x555), timeout=10)
    received = receiver.recv(10)
    assert received is not None
    assert received.arbitration_id == 0x555


def test_what_passes_both_filters_stays(open_bus: Open) -> None:
    sender, receiver = open_bus(), open_bus()
    sender.send_batch([frame(number) for number in range(20)], timeout=10)
    receiver.set_filters([{"can_id": 1, "can_mask": 1}])
    assert [m.arbitration_id for m in receiver.recv_batch(20, 10)] == list(range(1, 20, 2))


def test_filters_are_shared_and_dropped_in_the_driver(open_bus: Open, runtime: Runtime) -> None:
    same = [{"can_id": 0x100, "can_mask": 0x7FF}, {"can_id": 0x200, "can_mask": 0x7FF}]
    first = open_bus(can_filters=same)
    open_bus(can_filters=[*reversed(same), same[0]])
    wait_until(lambda: routes(runtime) == 1, "one route for equal filters")
    first.filters = None
    wait_until(lambda: routes(runtime) == 2, "a route of its own")


def routes(runtime: Runtime) -> int:
    (channel,) = status_of(runtime).channels
    return channel.state.routes if channel.state else 0


def test_invalid_filters_change_nothing(open_bus: Open) -> None:
    bus = open_bus(can_filters=[{"can_id": 0x100, "can_mask": 0x700}])
    with pytest.raises(ValueError, match="can_mask"):
        bus.set_filters([{"can_id": 0x100, "can_mask": "all"}])
    assert bus.filters == [{"can_id": 0x100, "can_mask": 0x700}]


def test_changing_filters_under_traffic_loses_and_repeats_nothing(open_bus: Open) -> None:
    sender, receiver = open_bus(), open_bus()
    everything: list[dict[str, int]] = [{"can_id": 0, "can_mask": 0}]
    done = threading.Event()

    def send() -> None:
        for number in range(3_000):
            sender.send(frame(number & 0x7FF, number.to_bytes(4, "big")))
        sender.flush(30)
        done.set()

    with ThreadPoolExecutor(1) as pool:
        sending = pool.submit(send)
        got: list[int] = []
        while len(got) < 3_000:
            # Different texts that pass all the same.
            for wanted in (None, [*everything], [{"can_id": n, "can_mask": 1} for n in (0, 1)]):
                receiver.set_filters(wanted)
                got += [int.from_bytes(m.data, "big") for m in receiver.recv_batch(10, 0)]
            if done.is_set() and (rest := receiver.recv(1)) is None:
                break
            got += [int.from_bytes(rest.data, "big")] if done.is_set() and rest else []
        sending.result(30)
    assert got == list(range(3_000))
    assert receiver.stats.lost == 0


# -------------------------------------------------------------------------------------- sending


def test_send_with_a_timeout_waits_for_the_driver(slow_bus: Bus) -> None:
    slow_bus.send(frame(), timeout=10)
    assert slow_bus.stats.sent == 1


def test_a_send_that_times_out_is_not_sent_later(slow_bus: Bus, open_bus: Open) -> None:
    witness = open_bus("slow")
    for number in range(100):
        slow_bus.send(frame(number, bytes(8)))
    with pytest.raises(CanTimeoutError, match="700#"):
        slow_bus.send(frame(0x700), timeout=0.05)
    slow_bus.send(frame(0x701), timeout=30)
    seen = [message.arbitration_id for message in witness.recv_batch(200, 1)]
    while seen[-1] != 0x701:
        seen += [message.arbitration_id for message in witness.recv_batch(200, 10)]
    assert 0x700 not in seen
    assert seen == [*range(100), 0x701]


def test_send_never_blocks_with_timeout_zero(slow_bus: Bus) -> None:
    for _ in range(1800):
        slow_bus.send(frame(), timeout=0)
    with pytest.raises(CanTimeoutError, match="queue is full"):
        fill(slow_bus)
    assert slow_bus.stats.transmit_queue <= 2048
    assert slow_bus.flush_tx_buffer() > 1000


def fill(bus: Bus) -> None:
    for _ in range(10_000):
        bus.send(frame(), timeout=0)


def test_flush_waits_for_all(slow_bus: Bus) -> None:
    slow_bus.send_batch([frame()] * 30)
    with pytest.raises(CanTimeoutError, match="not acknowledged"):
        slow_bus.flush(0.01)
    slow_bus.flush(30)
    assert slow_bus.stats.sent == 30
    assert slow_bus.stats.transmit_queue == 0


def test_flush_tx_buffer_discards_what_the_driver_has_not_taken(slow_bus: Bus) -> None:
    slow_bus.send_batch([frame()] * 500)
    discarded = slow_bus.flush_tx_buffer()
    slow_bus.flush(30)
    stats = slow_bus.stats
    assert discarded > 400
    assert stats.sent + discarded == 500
    assert stats.failed == 0


def test_a_later_failure_is_raised_once_naming_the_frame(open_bus: Open) -> None:
    bus = open_bus("classic", fd=False)
    bus.send(frame(0x234, is_fd=True))  # the client does not know; the driver process does
    wait_until(lambda: raises(bus), "the failure is raised")
    bus.send(frame(), timeout=10)
    bus.send(frame(0x235, is_fd=True))
    with pytest.raises(CanOperationError, match="235##"):
        bus.flush(10)
    bus.flush(10)
    bus.send(frame(0x236, is_fd=True))
    with pytest.raises(CanOperationError, match="236##"):
        bus.shutdown()
    bus.shutdown()


def raises(bus: Bus) -> bool:
    try:
        bus.send(frame())
    except CanOperationError as error:
        return "234##" in str(error)
    return False


def test_512_frames_and_leave(open_bus: Open) -> None:
    receiver = open_bus()
    sender = open_bus()
    for number in range(512):
        sender.send(frame(number))
    sender.shutdown()
    got = [receiver.recv(10) for _ in range(512)]
    assert [m.arbitration_id for m in got if m] == list(range(512))


# ------------------------------------------------------------------------------------ lifecycle


def test_after_shutdown_everything_says_so(open_bus: Open) -> None:
    bus = open_bus()
    bus.shutdown()
    bus.shutdown()
    for call in (
        lambda: bus.recv(0),
        lambda: bus.send(frame()),
        lambda: bus.send(frame(), timeout=0),
        lambda: bus.flush(0),
        lambda: bus.set_filters(None),
        bus.fileno,
        bus.flush_tx_buffer,
    ):
        with pytest.raises(CanOperationError, match="shut down"):
            call()
    assert bus.state is BusState.ERROR
    assert list(bus) == []
    assert "shut down" in repr(bus)
    assert bus.stats.lost == 0


def test_shutdown_wakes_a_waiting_recv(open_bus: Open) -> None:
    bus = open_bus()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(bus.recv)
        began = threading.Event()
        began.wait(0.1)
        bus.shutdown()
        with pytest.raises(CanOperationError, match="shut down"):
            waiting.result(10)


def test_shutdown_wakes_a_blocked_send(slow_bus: Bus) -> None:
    def flood() -> None:
        while True:
            slow_bus.send(frame())

    with ThreadPoolExecutor(1) as pool:
        blocked = pool.submit(flood)
        wait_until(lambda: slow_bus.stats.transmit_queue >= 2048, "the queue is full")
        slow_bus.flush_tx_buffer()
        slow_bus.shutdown()
        with pytest.raises(CanOperationError, match="shut down"):
            blocked.result(30)


def test_a_context_manager_yields_the_bus_itself(open_bus: Open) -> None:
    bus = open_bus()
    with bus as entered:
        assert entered is bus
    assert bus.state is BusState.ERROR


def test_garbage_collection_shuts_down_with_a_warning(runtime: Runtime) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        bus = Bus("x", "virtual")
        bus.send(frame())
        del bus
        gc.collect()
    assert [w.category for w in caught] == [ResourceWarning]
    wait_until(lambda: not clients(runtime), "the broker knows")


def clients(runtime: Runtime) -> list[str]:
    return [c.client_id for channel in status_of(runtime).channels for c in channel.clients]


def test_the_end_of_the_interpreter_shuts_down(open_bus: Open) -> None:
    receiver = open_bus()
    with Program(
        """
        import warnings
        warnings.simplefilter("ignore")
        bus = Bus("x", "virtual")
        for number in range(300):
            bus.send(Message(arbitration_id=number, is_extended_id=False))
        """
    ) as program:
        assert program.end() == 0
    assert [m.arbitration_id for m in receiver.recv_batch(300, 10)][:1] == [0]
    wait_until(lambda: drained(receiver) == 299, "every frame has arrived")


def drained(bus: Bus) -> int:
    bus.recv_batch(1000, 0)
    return bus.stats.received - 1


@forks
def test_a_forked_child_gets_a_clear_error(open_bus: Open) -> None:
    sender, receiver = open_bus(), open_bus()
    sender.send_batch([frame(1), frame(2)], timeout=10)
    assert receiver.recv(10) is not None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # this process has threads
        pid = os.fork()
    if pid == 0:
        code = 1
        try:
            try:
                receiver.recv(0)
            except CanOperationError as error:
                code = 0 if "forked" in str(error) else 2
            try:
                sender.send(frame())
            except CanOperationError as error:
                code = code if "forked" in str(error) else 3
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    second = receiver.recv(10)  # the parent's is unharmed
    assert second is not None
    assert second.arbitration_id == 2


def test_state_and_info(open_bus: Open) -> None:
    bus = open_bus()
    assert bus.state is BusState.ACTIVE
    assert "virtual" in bus.channel_info
    bus.state = BusState.ACTIVE
    with pytest.raises(CanOperationError, match="listen-only"):
        bus.state = BusState.PASSIVE
    with pytest.raises(ValueError, match="ERROR"):
        bus.state = BusState.ERROR


def test_a_virtual_bus_reports_can_fd_only_when_asked(open_bus: Open) -> None:
    bus = open_bus()  # as python-can's: programs decide by it which frames to send
    assert bus.protocol is CanProtocol.CAN_20
    other = open_bus(fd=True)
    assert other.protocol is CanProtocol.CAN_FD
    bus.send(frame(data=bytes(64), is_fd=True), timeout=10)
    received = other.recv(10)
    assert received is not None
    assert received.dlc == 64
    fast = open_bus("fast", bitrate=500_000, data_bitrate=2_000_000)
    assert fast.protocol is CanProtocol.CAN_FD
    assert open_bus("fast").protocol is CanProtocol.CAN_FD


def test_a_clean_shutdown_says_nothing(open_bus: Open, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        open_bus().shutdown()
    assert caplog.text == ""


# -------------------------------------------------------------------------------------- threads


def test_nothing_waits_behind_a_blocked_recv(open_bus: Open) -> None:
    bus, other = open_bus(), open_bus()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(bus.recv)
        threading.Event().wait(0.1)
        assert bus.recv(0) is None
        assert bus.recv(0.05) is None
        assert bus.state is BusState.ACTIVE
        assert bus.stats.received == 0
        bus.send(frame(), timeout=10)
        bus.set_filters([{"can_id": 0x300, "can_mask": 0x700}])
        assert bus.fileno() >= 0
        assert not waiting.done()
        other.send_batch([frame(0x200), frame(0x301)], timeout=10)
        received = waiting.result(10)
        assert received is not None
        assert received.arbitration_id == 0x301


def test_many_threads_send_and_receive(open_bus: Open) -> None:
    bus, other = open_bus(), open_bus()

    def receive() -> list[int]:
        got = [other.recv(20) for _ in range(200)]
        return [message.arbitration_id for message in got if message]

    def send(thread: int) -> None:
        for number in range(200):
            bus.send(frame(thread << 8 | number))

    with ThreadPoolExecutor(8) as pool:
        receiving = [pool.submit(receive) for _ in range(4)]
        for future in [pool.submit(send, thread) for thread in range(4)]:
            future.result(30)
        got = [identifier for future in receiving for identifier in future.result(30)]
    assert sorted(got) == [thread << 8 | number for thread in range(4) for number in range(200)]
    assert bus.stats.failed == 0
