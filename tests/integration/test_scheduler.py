"""The scheduler through real processes: who dies, who goes on, what is refused."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from canbroker import Bus, BusState, CanOperationError, Message
from canbroker.bus.periodic import scheduler_link
from canbroker.model.frame import Frame
from canbroker.model.protection import Counter
from canbroker.system import clock
from canbroker.transport.address import parse_ipc
from canbroker.transport.calls import ControlError, call
from canbroker.transport.runtime import Runtime
from canbroker.transport.sockets import Context
from canbroker.wire import WireError, control
from canbroker.wire.tasks import AddTask, StopTasks, TaskAdded
from tests.support.brokers import status_of, tasks_of, wait_until
from tests.support.processes import Program
from tests.support.simulated import Simulated

OWNER = """
with Bus("x", "virtual") as bus:
    for number in arguments["ids"]:
        bus.send_periodic(Message(arbitration_id=number, is_extended_id=False, data=[1]), 0.01)
    say("ready")
    hear()
"""


def message(identifier: int, data: bytes = b"\x01") -> Message:
    return Message(arbitration_id=identifier, data=data, is_extended_id=False)


def scheduler_of(runtime: Runtime) -> psutil.Process:
    pid = status_of(runtime).scheduler.pid
    assert pid is not None
    return psutil.Process(pid)


def hears(bus: Bus, identifier: int, count: int = 3) -> None:
    """Waits for frames of a task that are sent from now on."""
    since = time.time()
    heard = 0
    deadline = time.monotonic() + 20
    while heard < count:
        assert time.monotonic() < deadline, f"{identifier:X} is not sent"
        received = bus.recv(0.1)
        if received is not None and received.timestamp > since:
            heard += received.arbitration_id == identifier


def is_silent(bus: Bus) -> bool:
    """Whether soon nothing is received any more, thirty periods long."""
    deadline = time.monotonic() + 5
    while bus.recv(0.3) is not None:
        if time.monotonic() > deadline:
            return False
    return True


@pytest.fixture
def listener(runtime: Runtime) -> Iterator[Bus]:
    with Bus("x", "virtual") as bus:
        yield bus


def test_no_scheduler_without_tasks(runtime: Runtime, listener: Bus) -> None:
    assert status_of(runtime).scheduler.phase == "stopped"
    task = listener.send_periodic(message(1), 0.01)
    assert status_of(runtime).scheduler.phase == "running"
    task.stop()


def test_the_tasks_of_a_killed_owner_end(runtime: Runtime, listener: Bus) -> None:
    mine = listener.send_periodic(message(0x300), 0.01)
    with Program(OWNER, ids=[0x100, 0x101]) as owner:
        owner.said()
        hears(listener, 0x101)
        owner.kill()
    wait_until(lambda: len(tasks_of(runtime)) == 1, "its tasks are gone")
    mine.stop()
    assert is_silent(listener)


def test_the_tasks_of_an_owner_that_ends_end(runtime: Runtime, listener: Bus) -> None:
    with Program(OWNER, ids=[0x100]) as owner:
        owner.said()
        hears(listener, 0x100)
        owner.tell("leave")
        owner.end()
        assert tasks_of(runtime) == [], "ended before the process was"
    assert is_silent(listener)


def test_a_killed_scheduler_goes_on(runtime: Runtime, listener: Bus) -> None:
    """With the tasks of those who live; those who died meanwhile do not come back."""
    with Program(OWNER, ids=[0x100]) as living, Program(OWNER, ids=[0x200]) as dying:
        living.said()
        dying.said()
        hears(listener, 0x200)
        scheduler = scheduler_of(runtime)
        scheduler.suspend()
        dying.kill()
        scheduler.kill()
        hears(listener, 0x100, 10)
        assert [task.arbitration_id for task in tasks_of(runtime)] == [0x100]
        assert status_of(runtime).scheduler.restarts == 1
        living.tell("leave")
        living.end()
    assert is_silent(listener)


def test_a_task_keeps_its_rhythm_when_the_scheduler_is_killed(
    runtime: Runtime, listener: Bus
) -> None:
    with Bus("x", "virtual") as owner:
        task = owner.send_periodic(message(0x100), 0.1, phase=0.03)
        hears(listener, 0x100, 1)
        scheduler_of(runtime).kill()
        since = time.time()
        offset = time.time() - time.monotonic()
        stamps: list[float] = []
        while len(stamps) < 7:
            received = listener.recv(10)
            assert received is not None
            if received.timestamp > since:
                stamps.append((received.timestamp - offset) % 0.1)
        # How late each was is noise; in a new rhythm all of them would be off.
        assert min(abs(stamp - 0.03) for stamp in stamps) < 0.02
        assert task.messages[0].arbitration_id == 0x100
        task.stop()
    assert is_silent(listener)


def test_a_changed_task_is_what_goes_on(runtime: Runtime, listener: Bus) -> None:
    with Bus("x", "virtual") as owner:
        task = owner.send_periodic(message(0x100, b"old"), 0.01)
        stopped = owner.send_periodic(message(0x101), 0.01)
        task.modify_data(message(0x100, b"new"))
        stopped.stop()
        scheduler_of(runtime).kill()
        hears(listener, 0x100, 5)
        listener.recv_batch(10_000, 0)
        for _ in range(10):
            received = listener.recv(10)
            assert received is not None
            assert (received.arbitration_id, bytes(received.data)) == (0x100, b"new")


def test_requests_survive_the_scheduler(runtime: Runtime, listener: Bus) -> None:
    """It is killed while a client makes tasks, again and again."""
    with Bus("x", "virtual") as owner:
        owner.send_periodic(message(0x7FF), 0.01)
        for number in range(60):
            if number % 20 == 10:
                scheduler_of(runtime).kill()
            owner.send_periodic(message(number), 0.05)
        assert len(tasks_of(runtime)) == 61
        for number in (0, 10, 59, 0x7FF):
            hears(listener, number, 1)
        owner.stop_all_periodic_tasks()
        assert tasks_of(runtime) == []
    assert is_silent(listener)


def test_a_killed_channel_actor_interrupts_and_no_more(runtime: Runtime, listener: Bus) -> None:
    """Also when the owner sleeps, and is not seen on the new channel actor."""
    with Program(OWNER, ids=[0x100]) as owner:
        owner.said()
        hears(listener, 0x100)
        (channel,) = status_of(runtime).channels
        assert channel.pid is not None
        os.kill(channel.pid, signal.SIGKILL)
        hears(listener, 0x100, 10)
        (task,) = tasks_of(runtime)
        assert task.failed == 0
        owner.kill()  # nobody tells: it was not seen there since
        wait_until(lambda: not tasks_of(runtime), "its task ends")
    assert is_silent(listener)


def test_a_channel_that_is_down_pauses_its_tasks(runtime: Runtime, tmp_path: Path) -> None:
    with Simulated(tmp_path) as adapter, Bus(adapter.link, "slcan", bitrate=500_000) as bus:
        bus.send_periodic(message(0x100), 0.01)
        wait_until(lambda: len(adapter.accepted()) > 3, "it is sent")
        adapter.command("unplug")
        wait_until(lambda: bus.state is BusState.ERROR, "the channel is down")
        wait_until(lambda: tasks_of(runtime)[0].mode == "paused", "the task is paused")
        before = tasks_of(runtime)[0].skipped
        wait_until(lambda: tasks_of(runtime)[0].skipped > before + 10, "slots are counted")
        adapter.replug()
        sent = tasks_of(runtime)[0].sent
        wait_until(lambda: tasks_of(runtime)[0].sent > sent + 10, "it goes on by itself")
        (task,) = tasks_of(runtime)
        assert (task.mode, task.failed, task.reason) == ("scheduler", 0, "")
        bus.recv(0)  # nothing was to be said of it: this would raise
        bus.send(message(0x101), timeout=10)


def test_what_the_driver_refuses_is_told(runtime: Runtime, tmp_path: Path) -> None:
    with Simulated(tmp_path) as adapter, Bus(adapter.link, "slcan", bitrate=500_000) as bus:
        task = bus.send_periodic(message(0x100), 0.01)
        bus.state = BusState.PASSIVE
        wait_until(lambda: tasks_of(runtime)[0].failed > 3, "it is refused")
        with pytest.raises(CanOperationError, match=r"100#01.*listen-only"):
            bus.flush(10)
        bus.state = BusState.ACTIVE
        sent = tasks_of(runtime)[0].sent
        wait_until(lambda: tasks_of(runtime)[0].sent > sent + 3, "it has gone on")
        task.stop()


def test_what_is_refused_is_told_by_the_successor_of_a_scheduler(
    runtime: Runtime, tmp_path: Path
) -> None:
    """Whose owner has asked it for nothing."""
    troubles: list[Exception] = []

    def on_error(error: Exception) -> bool:
        troubles.append(error)
        return True

    with Simulated(tmp_path) as adapter, Bus(adapter.link, "slcan", bitrate=500_000) as bus:
        bus.send_periodic(message(0x100), 0.05, on_error=on_error)
        scheduler = scheduler_of(runtime)
        scheduler.kill()
        wait_until(lambda: status_of(runtime).scheduler.restarts == 1, "it is replaced")
        wait_until(lambda: any(task.sent > 3 for task in tasks_of(runtime)), "it goes on")
        assert not troubles
        bus.state = BusState.PASSIVE
        wait_until(lambda: troubles, "its owner is told")
        assert "listen-only" in str(troubles[0])


def test_a_stopped_scheduler_catches_up_without_a_burst(runtime: Runtime, listener: Bus) -> None:
    with Bus("x", "virtual") as owner:
        owner.send_periodic(message(0x100), 0.01)
        hears(listener, 0x100)
        scheduler = scheduler_of(runtime)
        scheduler.suspend()
        before = time.monotonic()
        while time.monotonic() - before < 0.5:
            listener.recv(0.05)
        scheduler.resume()
        hears(listener, 0x100, 20)
        (task,) = tasks_of(runtime)
        assert task.skipped >= 40, "the slots of half a second"


def test_too_many_tasks_for_the_bus_are_warned_of(
    runtime: Runtime, caplog: pytest.LogCaptureFixture
) -> None:
    with Bus("slow", "virtual", bitrate=125_000) as bus:
        for number in range(20):
            bus.send_periodic(message(number, bytes(8)), 0.01)
    (*_, warning) = [record.getMessage() for record in caplog.records]
    assert "178%" in warning or "177%" in warning, warning  # 20 * 111 bits / 10 ms / 125 kbit/s
    assert "125000 bit/s" in warning


def test_a_task_does_not_keep_others_from_the_bus(runtime: Runtime) -> None:
    """An overloaded bus: frames expire, and what a client sends has its turn."""
    with Bus("slow", "virtual", bitrate=50_000) as bus, Bus("slow", "virtual") as other:
        for number in range(50):
            bus.send_periodic(message(0x100 + number, bytes(8)), 0.01)
        other.send(message(0x50), timeout=20)
        wait_until(lambda: any(t.skipped for t in tasks_of(runtime)), "slots are skipped")
        assert not any(task.failed for task in tasks_of(runtime))


def test_many_tasks_due_together(runtime: Runtime, listener: Bus) -> None:
    """More than a client has credit for."""
    with Bus("x", "virtual") as owner:
        for number in range(3000):
            owner.send_periodic(Message(arbitration_id=number, is_extended_id=True), 5, phase=1.0)
        heard: set[int] = set()
        deadline = time.monotonic() + 30
        while len(heard) < 3000:
            assert time.monotonic() < deadline, f"{len(heard)} of 3000"
            heard |= {received.arbitration_id for received in listener.recv_batch(4096, 1)}
        assert len(tasks_of(runtime)) == 3000


def ask(endpoint: str, method: str, params: control.Params) -> TaskAdded | None:
    context = Context()
    try:
        return call(
            context, parse_ipc(endpoint), method, params, TaskAdded, clock.deadline_after(10)
        )
    finally:
        context.close()


def test_bad_requests_are_refused_and_named(runtime: Runtime, listener: Bus) -> None:
    task = listener.send_periodic(message(0x100), 0.01)
    endpoint = status_of(runtime).scheduler.control
    good = AddTask(
        client_id="c1",
        task=1,
        pid=os.getpid(),
        channel="virtual.x",
        messages=[Frame(0, 1, 0, b"")],
        period_ns=10_000_000,
    )
    for change, words in (
        ({"period_ns": 0}, "period_ns"),
        ({"period_ns": 2**62}, "period_ns"),
        ({"messages": []}, "messages"),
        ({"messages": [Frame(0, 0x800, 0, b"")]}, "does not fit 11 bits"),
        ({"messages": [Frame(0, 1, 0, bytes(9))]}, "do not fit a classic"),
        ({"counter": Counter(byte=0)}, "byte"),
        ({"channel": "nosuch"}, "nosuch"),
        ({"channel": "x" * 5000}, "channel"),
        ({"client_id": "no id"}, "client_id"),
        ({"pid": 0}, "pid"),
        ({"task": 0}, "task"),
    ):
        params = AddTask(**{name: getattr(good, name) for name in good.__struct_fields__})
        for name, value in change.items():
            setattr(params, name, value)
        with pytest.raises((ControlError, WireError), match=words):
            ask(endpoint, "task_add", params)
    with pytest.raises(ControlError, match="unknown method"):
        ask(endpoint, "task_explode", StopTasks(client_id="c1"))
    assert [entry.arbitration_id for entry in tasks_of(runtime)] == [0x100]
    task.stop()


def test_a_task_of_nobody_ends(runtime: Runtime, listener: Bus) -> None:
    """Its client was never on the channel, and its process is no more."""
    listener.send_periodic(message(0x100), 0.01)
    endpoint = status_of(runtime).scheduler.control
    with Program("hear()") as program:
        request = AddTask(
            client_id="ghost",
            task=1,
            pid=program.pid,
            channel="virtual.x",
            messages=[Frame(0, 0x200, 0, b"")],
            period_ns=10_000_000,
        )
        assert ask(endpoint, "task_add", request) == TaskAdded()
        hears(listener, 0x200)
        program.kill()
    wait_until(lambda: len(tasks_of(runtime)) == 1, "it ends")


def test_the_scheduler_may_take_longer_to_start_than_to_answer(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What says until when a task may be started begins when there is somebody to start it."""
    monkeypatch.setattr(scheduler_link, "_ANSWER_NS", clock.SECOND)
    with Bus("x", "virtual") as bus, Bus("x", "virtual") as other:
        broker = status_of(runtime).pid
        os.kill(broker, signal.SIGSTOP)  # which is who starts it
        timer = threading.Timer(1.5, os.kill, (broker, signal.SIGCONT))
        timer.start()
        try:
            began = time.monotonic()
            bus.send_periodic(Message(arbitration_id=7), 0.01)
            assert time.monotonic() > began + 1
        finally:
            timer.join()
        assert other.recv(10) is not None
