"""Periodic sending: what python-can and we have in common is asked of both; then what is ours."""

from __future__ import annotations

import functools
import gc
import itertools
import logging
import os
import re
import signal
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from typing import Any

import can
import psutil
import pytest

import canbroker
from canbroker import (
    E2E,
    Bus,
    BusState,
    CanOperationError,
    Counter,
    Crc8,
    Message,
    PeriodicTask,
)
from canbroker.transport.runtime import Runtime
from tests.support.brokers import status_of, tasks_of, wait_until
from tests.support.processes import Program
from tests.support.simulated import Simulated
from tests.support.strikes import strikes
from tests.support.systems import forks, signals

pytestmark = pytest.mark.long

DEADLINE_S = 20.0

#: Short, so that tests are; what is asked of it is that it comes again.
PERIOD_S = 0.01

#: In so many periods a task that still runs would have sent often.
SILENCE_PERIODS = 30
SILENCE_S = SILENCE_PERIODS * PERIOD_S

_names = itertools.count()


class Side:
    """A library and two buses of it on one channel. ``can`` is the module with its names."""

    def __init__(self, library: Any, sender: Any, receiver: Any) -> None:
        self.can = library
        self.sender = sender
        self.receiver = receiver

    def message(self, identifier: int = 0x123, data: bytes = b"\1", **more: Any) -> Any:
        return self.can.Message(arbitration_id=identifier, data=data, is_extended_id=False, **more)

    def take(self, count: int) -> list[Any]:
        """The next messages."""
        taken = [self.receiver.recv(DEADLINE_S) for _ in range(count)]
        assert all(taken), f"{taken.count(None)} of {count} did not come"
        return taken

    def silence(self) -> list[Any]:
        """What is received until there is nothing any more."""
        rest = []
        while (received := self.receiver.recv(SILENCE_S)) is not None:
            rest.append(received)
        return rest

    def is_silent_after(self, last: Callable[[], None], period: float = PERIOD_S) -> bool:
        """Whether nothing is sent after ``last`` for 30 periods."""
        last()
        self.drain()
        return self.receiver.recv(SILENCE_PERIODS * period) is None

    def drain(self) -> None:
        """Receives what was sent up to now: a frame that we send says where that ends."""
        if self.can is can:  # a stop of its tasks does not wait for their threads
            self.silence()
            return
        self.sender.send(self.message(0x7FF), timeout=10)
        while self.receiver.recv(DEADLINE_S).arbitration_id != 0x7FF:
            pass


def open_side(kind: type[Any], library: Any) -> Iterator[Side]:
    name = f"periodic-{os.getpid()}-{next(_names)}"
    with kind(name, interface="virtual") as sender, kind(name, interface="virtual") as receiver:
        yield Side(library, sender, receiver)


@pytest.fixture(params=["python-can", "Bus", "ThreadSafeBus"])
def side(request: pytest.FixtureRequest, runtime: Runtime) -> Iterator[Side]:
    """python-can's buses, and ours."""
    if request.param == "python-can":
        yield from open_side(can.ThreadSafeBus, can)
    else:
        yield from open_side(getattr(canbroker, request.param), canbroker)


@pytest.fixture
def ours(runtime: Runtime) -> Iterator[Side]:
    yield from open_side(Bus, canbroker)


def data_of(messages: Sequence[Any]) -> list[bytes]:
    return [bytes(message.data) for message in messages]


def increment(message: Any) -> None:
    message.data[0] = (message.data[0] + 1) % 256


# ----------------------------------------------------------------------------- as in python-can


def test_one_message(side: Side) -> None:
    task = side.sender.send_periodic(side.message(data=b"abc"), PERIOD_S)
    for received in side.take(10):
        assert (received.arbitration_id, bytes(received.data)) == (0x123, b"abc")
        assert not received.is_extended_id
    task.stop()


def test_several_messages_are_sent_in_turn(side: Side) -> None:
    messages = [side.message(data=bytes([number])) for number in range(3)]
    task = side.sender.send_periodic(messages, PERIOD_S)
    assert data_of(side.take(9)) == [b"\0", b"\1", b"\2"] * 3
    task.stop()


def test_the_period_is_kept(side: Side) -> None:
    task = side.sender.send_periodic(side.message(), 0.05)
    stamps = [received.timestamp for received in side.take(9)]
    task.stop()
    gaps = [later - sooner for sooner, later in itertools.pairwise(stamps)]
    assert 0.025 < median(gaps) < 0.075


def test_a_task_has_the_documented_classes_and_attributes(side: Side) -> None:
    messages = [side.message(data=b"\1"), side.message(data=b"\2")]
    classes = can.broadcastmanager if side.can is can else canbroker
    for more in ({}, {"modifier_callback": increment}):
        task = side.sender.send_periodic(messages, 0.25, 30, autostart=False, **more)
        for name in (
            "CyclicTask",
            "CyclicSendTaskABC",
            "LimitedDurationCyclicSendTaskABC",
            "RestartableCyclicTaskABC",
            "ModifiableCyclicTaskABC",
        ):
            assert isinstance(task, getattr(classes, name))
        assert data_of(task.messages) == [b"\1", b"\2"]
        assert isinstance(task.messages, tuple)
        assert (task.arbitration_id, task.period, task.period_ns) == (0x123, 0.25, 250_000_000)
        assert task.duration == 30


def test_a_stopped_task_begins_with_its_first_message(side: Side) -> None:
    messages = [side.message(data=bytes([number])) for number in range(5)]
    task = side.sender.send_periodic(messages, PERIOD_S)
    side.take(2)
    task.stop()
    task.stop()
    side.drain()
    task.start()
    assert data_of(side.take(5)) == [b"\0", b"\1", b"\2", b"\3", b"\4"]
    task.stop()


def test_starting_a_running_task_changes_nothing(side: Side) -> None:
    messages = [side.message(data=bytes([number])) for number in range(100)]
    task = side.sender.send_periodic(messages, PERIOD_S)
    side.take(3)
    task.start()
    task.start()
    assert data_of(side.take(5)) == [bytes([number]) for number in range(3, 8)]
    task.stop()


@pytest.mark.parametrize("more", [{}, {"modifier_callback": lambda _: None}], ids=["", "callback"])
def test_a_task_ends_after_its_duration_and_may_have_another(
    side: Side, more: dict[str, Any]
) -> None:
    messages = [side.message(data=b"\1"), side.message(data=b"\2")]
    task = side.sender.send_periodic(messages, PERIOD_S, 0.1, **more)
    for _ in range(2):
        sent = [*side.take(1), *side.silence()]  # the first one may be late
        assert len(sent) <= 10 + (side.can is can)  # theirs is approximate
        assert sent[0].data == b"\1"
        task.start()
    task.stop()


@pytest.mark.parametrize("more", [{}, {"modifier_callback": lambda _: None}], ids=["", "callback"])
def test_other_data(side: Side, more: dict[str, Any]) -> None:
    task = side.sender.send_periodic(side.message(data=b"old"), PERIOD_S, **more)
    side.take(2)
    task.modify_data(side.message(data=b"new"))
    seen = data_of(side.take(20))
    assert seen == [b"old"] * seen.count(b"old") + [b"new"] * seen.count(b"new")
    assert seen[-1] == b"new"
    task.stop()
    task.modify_data([side.message(data=b"next")])
    assert data_of(task.messages) == [b"next"]
    side.drain()
    task.start()
    assert data_of(side.take(3)) == [b"next"] * 3
    task.stop()


@pytest.mark.parametrize("more", [{}, {"modifier_callback": lambda _: None}], ids=["", "callback"])
def test_other_data_must_fit(side: Side, more: dict[str, Any]) -> None:
    task = side.sender.send_periodic([side.message(), side.message()], PERIOD_S, **more)
    for wrong in (side.message(), [side.message()] * 3, [side.message(0x124)] * 2, []):
        with pytest.raises(ValueError, match=r"\w"):
            task.modify_data(wrong)
    assert data_of(side.take(4)) == [b"\1"] * 4
    task.stop()


def test_autostart(side: Side) -> None:
    task = side.sender.send_periodic(side.message(), PERIOD_S, autostart=False)
    assert side.silence() == []
    task.start()
    side.take(3)
    task.stop()


def test_all_tasks_are_stopped_and_can_be_started(side: Side) -> None:
    tasks = [side.sender.send_periodic(side.message(number), PERIOD_S) for number in range(5)]
    tasks.append(side.sender.send_periodic(side.message(5), PERIOD_S, modifier_callback=increment))
    side.take(30)
    side.sender.stop_all_periodic_tasks(remove_tasks=False)
    side.drain()
    assert side.silence() == []
    for task in tasks:
        task.start()
    wanted = set(range(6))
    while wanted:
        wanted.discard(side.take(1)[0].arbitration_id)
    side.sender.stop_all_periodic_tasks()
    side.drain()
    side.sender.stop_all_periodic_tasks()


def test_a_task_that_is_not_stored_is_the_users(side: Side) -> None:
    task = side.sender.send_periodic(side.message(), PERIOD_S, store_task=False)
    side.sender.stop_all_periodic_tasks()
    side.take(20)
    task.stop()
    side.drain()
    assert side.silence() == []


def test_a_task_that_is_not_stored_runs_without_its_object(side: Side) -> None:
    side.sender.send_periodic(side.message(), PERIOD_S, 0.5, store_task=False)
    gc.collect()
    assert len([*side.take(1), *side.silence()]) > 5


def test_a_stored_task_needs_no_reference(side: Side) -> None:
    side.sender.send_periodic(side.message(), PERIOD_S)
    gc.collect()
    side.take(20)
    side.sender.stop_all_periodic_tasks()
    side.drain()
    assert side.silence() == []


def test_shutdown_ends_tasks(side: Side) -> None:
    side.sender.send_periodic(side.message(), PERIOD_S)
    side.sender.send_periodic(side.message(2), PERIOD_S, modifier_callback=increment)
    side.take(10)
    side.sender.shutdown()
    side.silence()
    assert side.silence() == []


def test_a_callback_changes_each_message(side: Side) -> None:
    task = side.sender.send_periodic(
        [side.message(data=b"\0"), side.message(data=b"\x80")],
        PERIOD_S,
        modifier_callback=increment,
    )
    got = data_of(side.take(10))
    task.stop()
    assert got[::2] == [bytes([number]) for number in range(1, 6)]
    assert got[1::2] == [bytes([0x80 + number]) for number in range(1, 6)]


@pytest.mark.parametrize("messages", [[], None, 5, ()], ids=repr)
def test_no_messages(side: Side, messages: Any) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        side.sender.send_periodic(messages, PERIOD_S)


def test_different_identifiers(side: Side) -> None:
    with pytest.raises(ValueError, match=r"(?i)arbitration.id"):
        side.sender.send_periodic([side.message(1), side.message(2)], PERIOD_S)


# ------------------------------------------------------------------------------- stopping, ours

KINDS: dict[str, dict[str, Any]] = {
    "scheduler": {},
    "callback": {"modifier_callback": lambda _: None},
}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> dict[str, Any]:
    """What makes a task of either kind."""
    return KINDS[request.param]


def test_nothing_is_sent_after_a_stop(ours: Side, kind: dict[str, Any]) -> None:
    task = ours.sender.send_periodic(ours.message(), 0.001, **kind)
    for _ in range(5):
        ours.take(10)
        assert ours.is_silent_after(task.stop, period=0.003)  # 90 of its own
        task.stop()
        task.start()
    assert ours.is_silent_after(ours.sender.stop_all_periodic_tasks)


def test_a_bus_that_is_forgotten_ends_its_tasks(runtime: Runtime, kind: dict[str, Any]) -> None:
    receiver = Bus("x", "virtual")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        bus = Bus("x", "virtual")
        task = bus.send_periodic(Message(arbitration_id=1), PERIOD_S, **kind)
        assert receiver.recv(DEADLINE_S) is not None
        bus_of_nobody = bus._life
        del bus
        gc.collect()
    assert [w.category for w in caught] == [ResourceWarning]
    wait_until(lambda: bus_of_nobody.over, "it has ended")
    receiver.recv_batch(10_000, 0)
    assert receiver.recv(SILENCE_S) is None
    task.stop()
    with pytest.raises(CanOperationError, match="shut down"):
        task.start()
    receiver.shutdown()


def test_after_shutdown(ours: Side, kind: dict[str, Any], runtime: Runtime) -> None:
    task = ours.sender.send_periodic(ours.message(), PERIOD_S, **kind)
    ours.sender.shutdown()
    assert tasks_of(runtime) == []
    task.stop()
    ours.sender.stop_all_periodic_tasks()
    calls: list[Callable[[], object]] = [
        task.start,
        lambda: task.modify_data(ours.message()),
        lambda: task.update(period=1),
        lambda: ours.sender.send_periodic(ours.message(), 1, **kind),
    ]
    for call in calls:
        with pytest.raises(CanOperationError, match="shut down"):
            call()


def test_a_task_of_a_stopped_scheduler_is_not_started_later(ours: Side, runtime: Runtime) -> None:
    kept = ours.sender.send_periodic(ours.message(1), PERIOD_S)
    scheduler = psutil.Process(status_of(runtime).scheduler.pid)
    scheduler.suspend()
    try:
        with pytest.raises(CanOperationError, match=r"scheduler .*does not answer"):
            ours.sender.send_periodic(ours.message(2), PERIOD_S)
    finally:
        scheduler.resume()
    ours.receiver.recv_batch(10_000, 0)
    assert 2 not in {received.arbitration_id for received in ours.take(30)}
    kept.stop()
    task = ours.sender.send_periodic(ours.message(3), PERIOD_S)  # and it works as before
    while ours.take(1)[0].arbitration_id != 3:
        pass
    task.stop()
    assert tasks_of(runtime) == []


def test_shutdown_does_not_wait_long_for_a_stopped_scheduler(ours: Side, runtime: Runtime) -> None:
    ours.sender.send_periodic(ours.message(), PERIOD_S)
    scheduler = psutil.Process(status_of(runtime).scheduler.pid)
    scheduler.suspend()
    try:
        with ThreadPoolExecutor(1) as pool:
            pool.submit(ours.sender.shutdown).result(DEADLINE_S)
    finally:
        scheduler.resume()
    wait_until(lambda: not tasks_of(runtime), "its channel told the scheduler")


def test_the_end_of_the_interpreter_ends_tasks(ours: Side, runtime: Runtime) -> None:
    name = ours.receiver.channel_info.partition(":")[0].partition(".")[2]
    with Program(
        """
        import warnings
        warnings.simplefilter("ignore")
        bus = Bus(arguments["name"], "virtual")
        message = Message(arbitration_id=1, is_extended_id=False, data=[1])
        bus.send_periodic(message, 0.01)
        bus.send_periodic(message, 0.01, modifier_callback=lambda message: None)
        bus.send_periodic(message, 3600, modifier_callback=lambda message: None)
        bus.send_periodic(message, 3600, on_error=lambda error: True)
        bus.recv(0.2)
        """,
        name=name,
    ) as program:
        ours.take(10)
        assert program.end() == 0
    ours.receiver.recv_batch(10_000, 0)
    assert ours.silence() == []
    assert tasks_of(runtime) == []


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # it has threads
@forks
def test_a_forked_child_touches_no_task(ours: Side) -> None:
    tasks = [ours.sender.send_periodic(ours.message(), PERIOD_S, **kind) for kind in KINDS.values()]
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = sum(
                not is_refused(call)
                for task in tasks
                for call in (task.start, task.stop, lambda task=task: task.update(period=1))
            )
            code += not is_refused(ours.sender.stop_all_periodic_tasks)
            code += not is_refused(lambda: ours.sender.send(ours.message()))
            ours.sender.shutdown()
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    ours.receiver.recv_batch(10_000, 0)
    ours.take(20)
    for task in tasks:
        task.stop()
    assert ours.is_silent_after(tasks[0].stop)


def is_refused(call: Callable[[], object]) -> bool:
    try:
        call()
    except CanOperationError as error:
        return "forked" in str(error)
    return False


# ------------------------------------------------------------------------------- changing, ours


def test_messages_are_copied_at_once(ours: Side, kind: dict[str, Any]) -> None:
    message = ours.message(data=b"\1")
    task = ours.sender.send_periodic(message, PERIOD_S, **kind)
    message.data[0] = 2
    ours.take(2)
    task.modify_data(message)
    message.data[0] = 3
    seen = data_of(ours.take(10))
    assert set(seen) <= {b"\1", b"\2"}
    assert seen[-1] == b"\2"


def test_another_period(ours: Side, kind: dict[str, Any]) -> None:
    task = ours.sender.send_periodic(ours.message(), 3600, **kind)
    ours.take(1)
    task.update(period=PERIOD_S)
    ours.take(5)  # at once: it was due long ago, by the new period
    assert (task.period, task.period_ns) == (PERIOD_S, 10_000_000)
    task.update(period=3600)
    ours.drain()
    with pytest.raises(ValueError, match="period"):
        task.update(period=0)
    task.stop()
    task.update(period=PERIOD_S)
    assert ours.silence() == []
    task.start()
    ours.take(5)
    task.stop()


def test_a_task_whose_time_is_over_can_be_changed(ours: Side, kind: dict[str, Any]) -> None:
    task = ours.sender.send_periodic(ours.message(), PERIOD_S, 0.05, **kind)
    assert ours.silence()
    task.modify_data(ours.message(data=b"new"))
    task.update(period=2 * PERIOD_S)
    assert ours.silence() == []
    task.start()
    assert set(data_of(ours.silence())) == {b"new"}


def test_phases_keep_tasks_apart(ours: Side) -> None:
    ours.sender.send_periodic(ours.message(1), 0.1, phase=0)
    ours.sender.send_periodic(ours.message(2), 0.1, phase=0.05)
    stamps: dict[int, list[float]] = {1: [], 2: []}
    while min(map(len, stamps.values())) < 7:
        (received,) = ours.take(1)
        stamps[received.arbitration_id].append(received.timestamp)
    apart = [(second - first) % 0.1 for first, second in zip(stamps[1], stamps[2], strict=False)]
    assert 0.02 < median(apart) < 0.08
    ours.sender.stop_all_periodic_tasks()


def test_a_counter_and_a_checksum(ours: Side) -> None:
    task = ours.sender.send_periodic(
        ours.message(data=bytes(4)),
        PERIOD_S,
        counter=Counter(byte=1, bits=4),
        checksum=Crc8(byte=0),
    )
    got = data_of(ours.take(40))
    assert [data[1] for data in got] == [number % 16 for number in range(40)]
    assert {data[0] for data in got} != {0}
    assert len({(data[0], data[1]) for data in got}) == 16, "a counter has one checksum"
    task.modify_data(ours.message(data=b"\0\0\7\7"))
    counts = [data[1] for data in data_of(ours.take(20))]
    assert counts == [(40 + number) % 16 for number in range(20)], "it goes on counting"
    with pytest.raises(ValueError, match="byte 1"):
        task.modify_data(ours.message(data=b"\0"))
    task.stop()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"period": 0}, "period"),
        ({"period": -1}, "period"),
        ({"period": float("nan")}, "period"),
        ({"period": float("inf")}, "period"),
        ({"period": 1e9}, "a year"),
        ({"duration": -1}, "duration"),
        ({"phase": PERIOD_S}, "phase"),
        ({"phase": -0.001}, "phase"),
        ({"counter": Counter(byte=1)}, "byte 1"),
        ({"checksum": E2E("P05", 1)}, "P05"),
        ({"phase": 0.0, "modifier_callback": increment}, "modifier_callback"),
        ({"counter": Counter(byte=0), "modifier_callback": increment}, "modifier_callback"),
        ({"checksum": Crc8(byte=0), "modifier_callback": increment}, "modifier_callback"),
    ],
    ids=lambda value: re.sub(r" at 0x\w+", "", str(value)),
)
def test_arguments_that_are_not_valid(ours: Side, more: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ours.sender.send_periodic(ours.message(), **{"period": PERIOD_S, **more})
    assert ours.silence() == []


def test_messages_that_cannot_be_sent(ours: Side, kind: dict[str, Any], runtime: Runtime) -> None:
    with pytest.raises(CanOperationError, match="9 bytes"):
        ours.sender.send_periodic(ours.message(data=bytes(9)), PERIOD_S, **kind)
    with pytest.raises(ValueError, match="got 123 and 00000123"):
        ours.sender.send_periodic([ours.message(), Message(arbitration_id=0x123)], PERIOD_S, **kind)
    task = ours.sender.send_periodic(ours.message(), PERIOD_S, **kind)
    with pytest.raises(CanOperationError, match="9 bytes"):
        task.modify_data(ours.message(data=bytes(9)))
    ours.take(3)
    task.stop()


def test_a_channel_without_fd_says_so(runtime: Runtime) -> None:
    with Bus("classic", "virtual", fd=False) as bus:
        fd = Message(arbitration_id=0x123, is_extended_id=False, data=b"\1", is_fd=True)
        with pytest.raises(CanOperationError, match=r"123##001: .*fd=True"):
            bus.send_periodic(fd, PERIOD_S)
        assert tasks_of(runtime) == []
        bus.stop_all_periodic_tasks()


def test_too_many_tasks(ours: Side) -> None:
    for number in range(10_000):
        ours.sender.send_periodic(ours.message(number & 0x7FF), 3600, modifier_callback=len)
    with pytest.raises(CanOperationError, match="10,000 tasks"):
        ours.sender.send_periodic(ours.message(), 3600, modifier_callback=len)
    ours.sender.stop_all_periodic_tasks()
    ours.sender.send_periodic(ours.message(), 3600, modifier_callback=len)


def test_many_threads(ours: Side, runtime: Runtime) -> None:
    def use(thread: int) -> list[PeriodicTask]:
        tasks = [
            ours.sender.send_periodic(ours.message(thread << 8 | number), PERIOD_S, **kind)
            for number in range(10)
            for kind in KINDS.values()
        ]
        for task in tasks:
            task.modify_data(ours.message(task.arbitration_id, b"new"))
            task.update(period=2 * PERIOD_S)
        for task in tasks[::2]:
            task.stop()
        return tasks[1::2]

    with ThreadPoolExecutor(4) as pool:
        left = [task for tasks in pool.map(use, range(4)) for task in tasks]
    ours.receiver.recv_batch(100_000, 0)
    seen = ours.take(400)
    assert {received.arbitration_id for received in seen} == {t.arbitration_id for t in left}
    assert set(data_of(seen)) == {b"new"}
    assert ours.is_silent_after(ours.sender.stop_all_periodic_tasks)
    assert tasks_of(runtime) == []


@pytest.mark.plain_locks
def test_whatever_a_signal_handler_interrupts_can_be_stopped(
    ours: Side, kind: dict[str, Any], runtime: Runtime
) -> None:
    message = ours.message()
    gc.collect()  # what a finalizer raises can be reported only
    with strikes() as striking:
        while striking.count < 200:
            task = striking.run(
                functools.partial(ours.sender.send_periodic, message, PERIOD_S, **kind)
            )
            if task is not None:
                striking.run(functools.partial(task.modify_data, message))
                striking.run(task.stop)
                striking.run(ours.sender.stop_all_periodic_tasks)
    assert ours.is_silent_after(ours.sender.stop_all_periodic_tasks)
    assert tasks_of(runtime) == []
    wait_until(lambda: not timers(), "no callback is left")
    task = ours.sender.send_periodic(ours.message(), PERIOD_S, **kind)
    ours.take(3)
    task.stop()


@pytest.mark.plain_locks
@signals
def test_a_signal_handler_may_use_tasks(ours: Side, kind: dict[str, Any]) -> None:
    """It gets an error if it has interrupted a call that does, and never waits for itself."""
    task = ours.sender.send_periodic(ours.message(), PERIOD_S, **kind)
    told: list[str] = []

    def handle(*_: object) -> None:
        try:
            task.modify_data(ours.message(data=b"\2"))
            told.append("done")
        except CanOperationError as error:
            told.append(str(error))

    with strikes():  # which are to do this now
        signal.signal(signal.SIGUSR1, handle)
        while len(told) < 300:
            task.update(period=PERIOD_S)
            task.update(period=2 * PERIOD_S)
    assert all(text == "done" or "interrupted" in text for text in told)
    task.stop()


# ------------------------------------------------------------------------------ callbacks, ours


def timers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "canbroker-timer"]


def test_all_callbacks_share_one_thread_that_ends_with_them(ours: Side) -> None:
    callers: set[threading.Thread] = set()

    def callback(message: Message) -> None:
        callers.add(threading.current_thread())

    tasks = [
        ours.sender.send_periodic(ours.message(number), PERIOD_S, modifier_callback=callback)
        for number in range(20)
    ]
    ours.take(100)
    assert len(timers()) == 1
    assert callers == set(timers())
    for task in tasks:
        task.stop()
    wait_until(lambda: not timers(), "the thread ends")


def test_a_callback_that_takes_long_skips_periods_without_a_burst(ours: Side) -> None:
    pause = threading.Event()
    task = ours.sender.send_periodic(
        ours.message(), PERIOD_S, modifier_callback=lambda _: pause.wait(0.1)
    )
    ours.take(3)
    task.stop()
    assert task.skipped >= 2 * 8
    task = ours.sender.send_periodic(ours.message(), PERIOD_S, modifier_callback=increment)
    assert task.skipped == 0
    task.stop()


def test_a_callback_that_fails_ends_its_task_alone(
    ours: Side, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(message: Message) -> None:
        raise LookupError("in the callback")

    def leave(message: Message) -> None:
        raise SystemExit

    other = ours.sender.send_periodic(ours.message(1), PERIOD_S, modifier_callback=increment)
    failing = ours.sender.send_periodic(ours.message(2), PERIOD_S, modifier_callback=fail)
    ours.sender.send_periodic(ours.message(3), PERIOD_S, modifier_callback=leave)
    wait_until(lambda: len(caplog.records) == 2, "both are logged")
    assert {r.exc_info[0] for r in caplog.records if r.exc_info} == {LookupError, SystemExit}
    assert "002#01" in caplog.records[0].getMessage()
    ours.receiver.recv_batch(10_000, 0)
    assert {received.arbitration_id for received in ours.take(10)} == {1}
    caplog.clear()
    failing.start()
    wait_until(lambda: len(caplog.records) == 1, "it fails again")
    other.stop()


@pytest.mark.parametrize("goes_on", [True, False, None])
def test_on_error_of_a_callback(ours: Side, goes_on: bool | None) -> None:
    errors: list[Exception] = []

    def fail(message: Message) -> None:
        raise LookupError(len(errors))

    def on_error(error: Exception) -> bool | None:
        errors.append(error)
        return goes_on

    task = ours.sender.send_periodic(
        ours.message(), PERIOD_S, modifier_callback=fail, on_error=on_error
    )
    if goes_on:
        wait_until(lambda: len(errors) > 5, "it goes on")
        task.stop()
    else:
        wait_until(lambda: not timers(), "it ends")
        assert len(errors) == 1
    assert ours.silence() == []
    assert {type(error) for error in errors} == {LookupError}


def test_an_on_error_that_fails_ends_the_task(ours: Side, caplog: pytest.LogCaptureFixture) -> None:
    def fail(_: object) -> None:
        raise LookupError("again")

    ours.sender.send_periodic(ours.message(), PERIOD_S, modifier_callback=fail, on_error=fail)
    wait_until(lambda: not timers(), "it ends")
    assert "on_error of" in caplog.text


def test_a_callback_may_stop_and_start_tasks(ours: Side) -> None:
    tasks: list[PeriodicTask] = []
    calls: list[int] = []

    def callback(message: Message) -> None:
        calls.append(message.data[0])
        if len(calls) == 3:
            tasks[0].modify_data(ours.message(data=b"\2"))
        if len(calls) == 6:
            tasks[0].update(period=2 * PERIOD_S)
            tasks[1].stop()
        if len(calls) == 9:
            tasks[0].stop()

    other = ours.sender.send_periodic(ours.message(2), PERIOD_S, autostart=False)
    task = ours.sender.send_periodic(
        ours.message(), PERIOD_S, autostart=False, modifier_callback=callback
    )
    tasks += [task, other]
    other.start()
    task.start()
    wait_until(lambda: not timers(), "it has stopped itself")
    assert calls == [1] * 3 + [2] * 6
    sent = [data for data in ours.silence() if data.arbitration_id == 0x123]
    assert len(sent) == 8, "what it stopped is not sent"
    task.start()
    wait_until(lambda: len(calls) > 12, "it runs again")
    task.stop()


def test_a_callback_may_shut_the_bus_down(ours: Side, caplog: pytest.LogCaptureFixture) -> None:
    done = threading.Event()

    def callback(message: Message) -> None:
        ours.sender.shutdown()
        done.set()

    ours.sender.send_periodic(ours.message(1), PERIOD_S)
    ours.sender.send_periodic(ours.message(2), PERIOD_S, modifier_callback=callback)
    assert done.wait(DEADLINE_S)
    ours.sender.shutdown()
    wait_until(lambda: not timers(), "its thread ends")
    ours.receiver.recv_batch(10_000, 0)
    assert ours.silence() == []
    assert caplog.text == ""


def test_a_stop_does_not_wait_for_a_callback(ours: Side) -> None:
    began, go = threading.Event(), threading.Event()

    def callback(message: Message) -> None:
        began.set()
        go.wait(DEADLINE_S)

    task = ours.sender.send_periodic(ours.message(), PERIOD_S, modifier_callback=callback)
    assert began.wait(DEADLINE_S)
    task.stop()
    go.set()
    wait_until(lambda: not timers(), "it ends")
    assert ours.silence() == []


def test_a_frame_of_a_callback_that_fails_later_is_told_to_its_task(
    runtime: Runtime, caplog: pytest.LogCaptureFixture
) -> None:
    errors: list[Exception] = []

    def on_error(error: Exception) -> bool:
        errors.append(error)
        return True

    fd = Message(arbitration_id=0x234, is_extended_id=False, data=b"\1", is_fd=True)
    with Bus("classic", "virtual", fd=False) as bus:
        task = bus.send_periodic(fd, PERIOD_S, modifier_callback=len, on_error=on_error)
        wait_until(lambda: len(errors) > 3, "it is told")
        for _ in range(20):
            bus.send(Message(arbitration_id=1), timeout=10)  # this is nobody else's trouble
        task.stop()
        assert "234##001 was not sent" in str(errors[0])
        bus.flush(10)
    assert caplog.text == ""


def test_a_callback_task_takes_nobody_elses_failures(runtime: Runtime) -> None:
    sent: list[Message] = []
    fd = Message(arbitration_id=0x234, is_extended_id=False, data=b"\1", is_fd=True)
    with Bus("classic", "virtual", fd=False) as bus:
        task = bus.send_periodic(message(1), PERIOD_S, modifier_callback=sent.append)
        bus.send(fd)
        before = len(sent)
        wait_until(lambda: len(sent) > before + 10, "the task goes on")
        with pytest.raises(CanOperationError, match="234##001"):
            bus.flush(10)
        task.stop()


def test_what_fails_of_a_callback_task_is_raised_by_its_stop(runtime: Runtime) -> None:
    fd = Message(arbitration_id=0x234, is_extended_id=False, data=b"\1", is_fd=True)
    with Bus("classic", "virtual", fd=False) as bus:
        task = bus.send_periodic(fd, 3600, modifier_callback=len)
        wait_until(lambda: bus.stats.transmit_queue, "it is on its way")
        with pytest.raises(CanOperationError, match="234##001"):
            task.stop()
        task.stop()
        bus.flush(10)


# --------------------------------------------------------------------------------- trouble, ours


@pytest.fixture
def refusing(runtime: Runtime) -> Iterator[Bus]:
    """A bus whose adapter has just been told to only listen."""
    with Simulated() as adapter, Bus(adapter.path, "slcan", bitrate=500_000) as bus:
        bus.state = BusState.PASSIVE
        yield bus
        bus.state = BusState.ACTIVE  # and nothing is refused any more


def in_trouble(runtime: Runtime) -> Callable[[], bool]:
    return lambda: any(task.failed > 1 for task in tasks_of(runtime))


def message(identifier: int) -> Message:
    return Message(arbitration_id=identifier, data=b"\1", is_extended_id=False)


def test_what_is_refused_is_raised_once_by_the_next_call(refusing: Bus, runtime: Runtime) -> None:
    first = refusing.send_periodic(message(1), 3600)
    second = refusing.send_periodic(message(2), 3600)
    wait_until(lambda: sum(task.failed for task in tasks_of(runtime)) == 2, "they are refused")
    with pytest.raises(CanOperationError, match=r"001#01.*listen-only"):
        first.modify_data(message(1))
    first.modify_data(message(1))
    with pytest.raises(CanOperationError, match=r"002#01.*listen-only"):
        refusing.flush(10)
    refusing.flush(10)
    first.stop()
    second.stop()


def test_a_stop_stops_before_it_raises(refusing: Bus, runtime: Runtime) -> None:
    task = refusing.send_periodic(message(1), 3600)
    wait_until(lambda: tasks_of(runtime)[0].failed == 1, "it is refused")
    with pytest.raises(CanOperationError, match="001#01"):
        task.stop()
    assert tasks_of(runtime) == []
    task.stop()


def test_send_and_shutdown_raise_what_was_refused(refusing: Bus, runtime: Runtime) -> None:
    refusing.send_periodic(message(1), 3600)
    wait_until(lambda: tasks_of(runtime)[0].failed == 1, "it is refused")
    with pytest.raises(CanOperationError, match="<ScheduledTask 001#01"):
        refusing.send(message(7))
    with Bus(str(refusing._channel), "slcan") as other:
        other.send_periodic(message(2), 3600)
        wait_until(lambda: sum(t.failed for t in tasks_of(runtime)) == 2, "it is refused, too")
        with pytest.raises(CanOperationError, match="002#01"):
            other.shutdown()
        other.shutdown()


@pytest.mark.parametrize("goes_on", [True, False, None])
def test_on_error_of_a_task_of_the_scheduler(
    refusing: Bus, runtime: Runtime, goes_on: bool | None
) -> None:
    heard: list[tuple[Exception, threading.Thread]] = []

    def on_error(error: Exception) -> bool | None:
        heard.append((error, threading.current_thread()))
        return goes_on

    # Nothing is called meanwhile: the timer hears of it by itself.
    refusing.send_periodic(message(1), PERIOD_S, on_error=on_error)
    wait_until(lambda: heard, "on_error is called")
    (error, thread), *_ = heard
    assert "001#01" in str(error)
    assert "listen-only" in str(error)
    assert thread.name == "canbroker-timer"
    if goes_on:
        wait_until(lambda: len(heard) > 1, "it is told again, of new failures")
        assert len(tasks_of(runtime)) == 1
    else:
        wait_until(lambda: not tasks_of(runtime), "it is stopped")
        wait_until(lambda: not timers(), "nobody listens any more")
    refusing.flush(10)  # raises nothing: it was told
    refusing.stop_all_periodic_tasks()
    wait_until(lambda: not timers(), "nobody listens any more")


def test_a_task_that_went_without_a_stop_is_reported_all_the_same(
    refusing: Bus, runtime: Runtime
) -> None:
    refusing.send_periodic(message(1), 3600, store_task=False)
    gc.collect()
    wait_until(lambda: tasks_of(runtime)[0].failed == 1, "it is refused")
    with pytest.raises(CanOperationError, match=r"a periodic task: .*listen-only"):
        refusing.flush(10)


def test_a_clean_life_says_nothing(ours: Side, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        ours.sender.send_periodic(ours.message(), PERIOD_S, on_error=lambda _: True)
        ours.sender.send_periodic(ours.message(), PERIOD_S, modifier_callback=increment)
        ours.take(10)
        ours.sender.shutdown()
    assert caplog.text == ""
