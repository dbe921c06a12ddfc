"""Tasks that the kernel repeats by itself, seen by who sends, who receives, and from outside."""

from __future__ import annotations

import itertools
import os
import re
import select
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Final, TypeVar

import psutil
import pytest

from canbroker import (
    Bus,
    BusState,
    CanOperationError,
    Counter,
    Message,
    PeriodicTask,
)
from canbroker.backends.base import Repetition
from canbroker.model.frame import BITRATE_SWITCH, EXTENDED, FD, REMOTE, EchoFrame, Frame
from canbroker.system import (
    clock,
)
from canbroker.system.entry_points import EntryPoint
from canbroker.transport.address import parse_ipc
from canbroker.transport.calls import call
from canbroker.transport.runtime import Runtime
from canbroker.transport.sockets import Context
from canbroker.wire import control
from canbroker.wire.tasks import Repeat, RepeatCounts, Repeating
from tests.can.conftest import Open
from tests.can.test_controller import CONTROL, report
from tests.support.benches import collect
from tests.support.brokers import status_of, tasks_of, wait_until
from tests.support.processes import Program
from tests.support.vcan import VCAN, Node, ip, needs_admin, needs_can

pytestmark = needs_can

_T = TypeVar("_T")

MS: Final = clock.MILLISECOND

OWNER = """
with Bus(arguments["interface"], "socketcan") as bus:
    bus.send_periodic(Message(arbitration_id=0x100, is_extended_id=False, data=[1]), 0.01)
    say("runs")
    hear()
"""


def message(identifier: int = 0x100, data: bytes = b"\1") -> Message:
    return Message(arbitration_id=identifier, data=data, is_extended_id=False)


def wait_for_kernel(runtime: Runtime, count: int = 1) -> None:
    """Waits until the kernel repeats so many tasks."""
    wait_until(
        lambda: [task.mode for task in tasks_of(runtime)].count("kernel") == count,
        f"{count} tasks in the kernel",
    )


def scheduler_of(runtime: Runtime) -> psutil.Process:
    pid = status_of(runtime).scheduler.pid
    assert pid is not None
    return psutil.Process(pid)


def wait_for_frames(node: Node, count: int, identifier: int = 0x100) -> list[Frame]:
    """The next frames with this identifier that come to the node."""
    node.drain()
    node.received.clear()

    def found() -> list[Frame]:
        return [frame for frame in node.drain() if frame.arbitration_id == identifier]

    wait_until(lambda: len(found()) >= count, f"{count} frames", 20)
    return found()


def wait_for_data(node: Node, data: bytes) -> None:
    wait_until(lambda: any(frame.data == data for frame in node.drain()), f"{data!r} is sent")


def is_silent(node: Node, seconds: float = 0.3) -> bool:
    """Whether nothing comes any more, thirty periods long."""
    node.drain()
    return not select.select([node.socket], [], [], seconds)[0]


# ------------------------------------------------------------------------------- the backend


def repeat(
    key: int = 1,
    *frames: Frame,
    period_ns: int = 10 * MS,
) -> Repetition:
    return Repetition(
        key=("c", key),
        frames=frames or [Frame(0, 0x100, 0, b"\1")],
        period_ns=period_ns,
        due_ns=clock.monotonic_ns(),
    )


FRAMES = [
    [Frame(0, 0x100, 0, bytes([n])) for n in range(3)],
    [Frame(0, 0x100 + n, EXTENDED, b"") for n in range(256)],
    [Frame(0, 0x100, REMOTE, 5)],
    [Frame(0, 0x100, FD | BITRATE_SWITCH, bytes(64)), Frame(0, 0x100, FD, b"\1")],
]


@pytest.mark.parametrize("frames", FRAMES)
def test_frames_in_turn_are_echoes_of_their_client(
    open_interface: Open, node: Node, frames: list[Frame]
) -> None:
    backend = open_interface(fd=True)
    assert backend.repeat(repeat(1, *frames, period_ns=MS)) is None
    seen = collect(backend, lambda items: len(items) > 2 * len(frames))
    backend.stop_repeating(("c", 1))
    assert is_silent(node)
    seen += backend.read()
    expected = [frames[n % len(frames)] for n in range(len(seen))]
    for frame, wanted in zip(seen, expected, strict=True):
        assert isinstance(frame, EchoFrame)
        assert (frame.arbitration_id, frame.flags, frame.data, frame.origin) == (
            wanted.arbitration_id,
            wanted.flags,
            wanted.data,
            "c",
        )
    assert [(f.arbitration_id, f.flags, f.data) for f in node.drain()] == [
        (f.arbitration_id, f.flags, f.data) for f in expected
    ]
    assert backend.repeated() == {}


def test_a_change_in_place_comes_when_it_is_due(open_interface: Open, node: Node) -> None:
    """Of three tasks with one period, one is changed all the time: they stay in turn."""
    backend = open_interface()
    for key in (1, 2, 3):
        frame = Frame(0, key, 0, b"\0")
        assert backend.repeat(repeat(key, frame, period_ns=30 * MS)) is None
        wait_for_frames(node, 1, key)
    for change in range(1, 20):
        frame = Frame(0, 2, 0, bytes([change]))
        assert backend.repeat(repeat(2, frame, period_ns=30 * MS)) is None
        wait_for_data(node, bytes([change]))
        backend.read()
    seen = [frame for frame in node.drain() if frame.arbitration_id in {1, 2}]
    places = [n for n, frame in enumerate(seen) if frame.arbitration_id == 2]
    distances = [b - a for a, b in itertools.pairwise(places)]
    assert distances.count(2) >= len(distances) * 0.8, distances
    data = [frame.data for frame in seen if frame.arbitration_id == 2]
    assert data == sorted(data, key=bytes), "nothing old after something new"
    assert set(data) >= {bytes([n]) for n in range(1, 20)}


def test_another_period_in_place(open_interface: Open, node: Node) -> None:
    backend = open_interface()
    assert backend.repeat(repeat(1, Frame(0, 1, 0, b"\0"), period_ns=40 * MS)) is None
    assert backend.repeat(repeat(2, Frame(0, 2, 0, b"\0"), period_ns=40 * MS)) is None
    assert backend.repeat(repeat(2, Frame(0, 2, 0, b"\0"), period_ns=10 * MS)) is None
    wait_until(lambda: len(node.drain()) > 100, "many frames", 20)
    counts = [sum(f.arbitration_id == n for f in node.received) for n in (1, 2)]
    assert 2.5 < counts[1] / counts[0] < 6


def test_another_number_of_frames_begins_anew(open_interface: Open, node: Node) -> None:
    backend = open_interface()
    old, new = [Frame(0, 1, 0, bytes([n])) for n in range(2)], Frame(0, 2, 0, b"\2")
    assert backend.repeat(repeat(1, *old)) is None
    assert backend.repeat(repeat(1, new)) is None
    wait_for_frames(node, 5, 2)
    assert {frame.arbitration_id for frame in node.received} == {2}
    assert list(backend.repeated()) == [("c", 1)]


def test_what_the_kernel_cannot_repeat_is_said(open_interface: Open, node: Node) -> None:
    backend = open_interface(fd=True)
    classic, flexible = Frame(0, 1, 0, b""), Frame(0, 1, FD, b"")
    assert backend.repeat(repeat(1)) is None
    for wrong, words in (
        (repeat(2, *[classic] * 257), "256"),
        (repeat(2, classic, flexible), "classic and FD"),
        (repeat(2, classic, period_ns=10 * MS + 1), "microseconds"),
        (repeat(2, Frame(0, 0x100, 0, b"\1")), "the same frame"),
        (repeat(2, classic, period_ns=40_000), "frames/s"),
        (repeat(2, Frame(0, 0x800, 0, b"")), "11 bits"),
    ):
        assert words in (backend.repeat(wrong) or "")
    assert backend.repeat(repeat(1, *[classic] * 257)), "and what is changed into that ends"
    assert backend.repeated() == {}
    assert is_silent(node)


def test_a_listener_repeats_nothing(open_interface: Open, node: Node) -> None:
    backend = open_interface(listen_only=True)
    assert "listen-only" in (backend.repeat(repeat()) or "")
    assert is_silent(node)


def test_all_end_with_the_backend(open_interface: Open, node: Node) -> None:
    backend = open_interface()
    for key in (1, 2):
        assert backend.repeat(repeat(key, Frame(0, key, 0, b""))) is None
    wait_for_frames(node, 3, 2)
    backend.close()
    assert is_silent(node)


def test_a_stopped_task_is_still_known(open_interface: Open, node: Node) -> None:
    """What was on its way when it was stopped is no frame of somebody else."""
    backend = open_interface()
    assert backend.repeat(repeat()) is None
    wait_until(lambda: len(node.drain()) >= 3, "some are sent")
    backend.stop_repeating(("c", 1))
    assert is_silent(node)
    assert [type(item) for item in backend.read()] == [EchoFrame] * len(node.drain())


@pytest.mark.skipif(not CONTROL.exists(), reason="no can0 of can-vm --slcan")
class TestController:
    """Of the kernel's slcan driver, whose queue holds ten frames."""

    @pytest.fixture(autouse=True)
    def healthy(self) -> Iterator[None]:
        yield
        ip("set", "can0", "down")
        ip("set", "can0", "up")

    def test_the_queue_is_not_for_more_tasks_than_it_holds(self, open_interface: Open) -> None:
        backend = open_interface("can0")
        assert backend.room("c") == 128
        for key in range(5):
            assert backend.repeat(repeat(key, Frame(0, key, 0, b""), period_ns=50 * MS)) is None
        assert backend.room("c") == 5
        assert "txqueuelen" in (backend.repeat(repeat(6, Frame(0, 6, 0, b""))) or "")
        for key in range(5):
            backend.stop_repeating(("c", key))
        assert backend.room("c") == 128

    def test_bus_off_ends_them(self, open_interface: Open) -> None:
        backend = open_interface("can0")
        assert backend.repeat(repeat()) is None
        collect(backend, lambda items: len(items) > 3)
        report("sb255000")
        collect(backend, lambda _: backend.condition.off)
        assert backend.repeated() == {}
        assert "bus-off" in (backend.repeat(repeat()) or "")


# ------------------------------------------------------------------------------- through a bus


def test_a_task_is_handed_down_and_counted(runtime: Runtime, node: Node) -> None:
    with Bus(VCAN, "socketcan") as bus:
        task = bus.send_periodic(message(), 0.01)
        wait_for_kernel(runtime)
        before = tasks_of(runtime)[0].sent
        wait_for_frames(node, 20)
        wait_until(lambda: tasks_of(runtime)[0].sent >= before + 20, "they are counted")
        task.stop()
        assert is_silent(node)
        assert tasks_of(runtime) == []


def test_status_shows_it(runtime: Runtime) -> None:
    with Bus(VCAN, "socketcan") as bus:
        bus.send_periodic(message(), 0.01)
        wait_for_kernel(runtime)
        command = EntryPoint.COMMAND.command("status", "--tasks")
        shown = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert shown.returncode == 0, shown.stderr
    assert re.search(r" 100 .* kernel", shown.stdout), shown.stdout


def test_what_the_kernel_cannot_do_stays_with_the_scheduler(runtime: Runtime, node: Node) -> None:
    with Bus(VCAN, "socketcan", fd=True) as bus:
        bus.send_periodic(message(1, bytes(8)), 0.01, counter=Counter(byte=7, bits=4))
        bus.send_periodic([message(2, bytes([n % 256])) for n in range(257)], 0.01)
        bus.send_periodic(message(3), 0.01)
        bus.send_periodic(message(3), 0.01)
        wait_for_frames(node, 30, 1)
        wait_for_kernel(runtime)
        modes = sorted((task.arbitration_id, task.mode) for task in tasks_of(runtime))
        # Of two tasks with the same frame, the kernel can have one, whichever comes first.
        assert modes == [(1, "scheduler"), (2, "scheduler"), (3, "kernel"), (3, "scheduler")]
        counters = [f.data[7] for f in node.received if f.arbitration_id == 1]  # type: ignore[index]
        missing = sum((b - a - 1) % 16 for a, b in itertools.pairwise(counters))
        assert missing <= tasks_of(runtime)[0].skipped, "those that have expired in the channel"


def test_the_exact_number_of_frames(runtime: Runtime, node: Node) -> None:
    """Also when another program sends the very same frame: the kernel is not asked to count."""
    with Bus(VCAN, "socketcan") as bus, Node() as foreign:
        bus.send_periodic([message(data=bytes([n])) for n in range(4)], 0.1, duration=2.0)
        wait_until(lambda: len(node.drain()) > 1, "it runs")
        assert [task.mode for task in tasks_of(runtime)] == ["scheduler"]
        foreign.send([Frame(0, 0x100, 0, b"\0")] * 5)
        wait_until(lambda: not tasks_of(runtime), "it ends")
        # The scheduler has sent its last frame, which may be on its way to the channel.
        wait_until(lambda: len(node.drain()) >= 20 + 5, "the last frame comes")
        assert is_silent(node)
    data = [bytes(frame.data) for frame in node.received if isinstance(frame.data, bytes)]
    assert sorted(data) == sorted([bytes([n % 4]) for n in range(20)] + [b"\0"] * 5)


def receive(bus: Bus, identifier: int) -> list[Message]:
    """What is received until ten messages with this identifier have come."""
    got: list[Message] = []
    while sum(item.arbitration_id == identifier for item in got) < 10:
        received = bus.recv(10)
        assert received is not None, f"{identifier:X} does not come"
        got.append(received)
    return got


def test_whose_frames(runtime: Runtime, node: Node) -> None:
    nothing = [{"can_id": 0x7FF, "can_mask": 0x7FF, "extended": False}]
    only = [{"can_id": 0x100, "can_mask": 0x7FF, "extended": False}]
    with ExitStack() as stack:
        owner, same, other = (
            stack.enter_context(
                Bus(VCAN, "socketcan", can_filters=filters, receive_own_messages=own)
            )
            for filters, own in ((None, False), (nothing, False), (only, False))
        )
        with_own = stack.enter_context(Bus(VCAN, "socketcan", receive_own_messages=True))
        task = owner.send_periodic(message(), 0.01)
        own_task = with_own.send_periodic(message(0x101), 0.01)
        wait_for_kernel(runtime, 2)
        for bus, identifier, is_rx in (
            (owner, 0x101, True),
            (other, 0x100, True),
            (with_own, 0x101, False),
            (with_own, 0x100, True),
        ):
            got = receive(bus, identifier)
            assert {m.is_rx for m in got if m.arbitration_id == identifier} == {is_rx}
            if bus is owner:
                assert {m.arbitration_id for m in got} == {0x101}
        assert same.recv(0) is None
        wait_for_frames(node, 3)
        assert all(listed.sent > 10 for listed in tasks_of(runtime))
        wait_until(lambda: traffic(runtime)[1] > 20, "the channel counts them")
        assert traffic(runtime)[0] == 0, "none of them as received"
        node.send([Frame(0, 0x100, 0, b"\2")])
        wait_until(
            lambda: b"\2" in [bytes(m.data) for m in owner.recv_batch(1000, 0)], "others' frames"
        )
        task.stop()
        own_task.stop()


def traffic(runtime: Runtime) -> tuple[int, int]:
    """Frames that the channel has received and transmitted."""
    (channel,) = status_of(runtime).channels
    assert channel.state is not None
    return channel.state.received, channel.state.transmitted


def test_counted_when_nobody_wants_them(runtime: Runtime) -> None:
    """The kernel's filter lets them through."""
    nothing = [{"can_id": 0x7FF, "can_mask": 0x7FF, "extended": False}]
    with Bus(VCAN, "socketcan", can_filters=nothing) as bus:
        bus.send_periodic(message(), 0.01)
        wait_for_kernel(runtime)
        sent = tasks_of(runtime)[0].sent
        wait_until(lambda: tasks_of(runtime)[0].sent > sent + 10, "they are counted")
        bus.set_filters([{"can_id": 0x7FE, "can_mask": 0x7FF, "extended": False}])
        sent = tasks_of(runtime)[0].sent
        wait_until(lambda: tasks_of(runtime)[0].sent > sent + 10, "with other filters, too")


def test_a_change_is_made_in_place(runtime: Runtime, node: Node) -> None:
    with Bus(VCAN, "socketcan") as bus:
        changed = bus.send_periodic(message(1, b"\0"), 0.1, phase=0.0)
        bus.send_periodic(message(2), 0.1, phase=0.05)
        wait_for_kernel(runtime, 2)
        wait_for_frames(node, 1, 2)
        node.drain()
        node.received.clear()
        for value in range(1, 20):
            changed.modify_data(message(1, bytes([value])))
            wait_for_data(node, bytes([value]))
        assert {task.mode for task in tasks_of(runtime)} == {"kernel"}
        order = [frame.arbitration_id for frame in node.drain()]
        places = [n for n, identifier in enumerate(order) if identifier == 1]
        distances = [b - a for a, b in itertools.pairwise(places)]
        assert distances.count(2) >= len(distances) * 0.8, distances
        data = [bytes(f.data) for f in node.received if f.arbitration_id == 1]
        assert data == sorted(data)


def test_the_tasks_of_a_killed_owner_end_without_a_scheduler(runtime: Runtime, node: Node) -> None:
    with Bus(VCAN, "socketcan"), Program(OWNER, interface=VCAN) as owner:
        owner.said()
        wait_for_kernel(runtime)
        scheduler = scheduler_of(runtime)
        scheduler.suspend()
        wait_for_frames(node, 3)
        killed = time.monotonic()
        owner.kill()
        last = killed
        while select.select([node.socket], [], [], 0.3)[0]:
            last = time.monotonic()
            node.drain()
            assert last < killed + 10
        print(f"the last frame came {(last - killed) * 1000:.1f} ms after the kill")  # noqa: T201
        scheduler.resume()
        wait_until(lambda: not tasks_of(runtime), "the scheduler knows")


@needs_admin
def test_an_interface_that_comes_back(runtime: Runtime, own_interface: str) -> None:
    with Bus(own_interface, "socketcan") as bus:
        bus.send_periodic(message(), 0.01)
        wait_for_kernel(runtime)
        wait_until(lambda: tasks_of(runtime)[0].sent > 10, "it is sent")
        ip("set", own_interface, "down")
        wait_until(lambda: bus.state is BusState.ERROR, "it is down")
        wait_until(lambda: tasks_of(runtime)[0].mode == "paused", "the task pauses")
        skipped = tasks_of(runtime)[0].skipped
        wait_until(lambda: tasks_of(runtime)[0].skipped > skipped + 10, "slots are counted")
        ip("set", own_interface, "up")
        wait_for_kernel(runtime)
        with Node(own_interface) as node:
            wait_for_frames(node, 10)
        (task,) = tasks_of(runtime)
        assert (task.failed, task.reason) == (0, "")


def test_a_killed_channel_actor(runtime: Runtime, node: Node) -> None:
    with Bus(VCAN, "socketcan") as bus:
        bus.send_periodic(message(), 0.01)
        wait_for_kernel(runtime)
        (channel,) = status_of(runtime).channels
        assert channel.pid is not None
        os.kill(channel.pid, 9)
        wait_until(lambda: status_of(runtime).channels[0].restarts == 1, "it is restarted")
        wait_for_kernel(runtime)
        wait_for_frames(node, 10)
        assert bus.state is BusState.ACTIVE


def numbered(bus: Bus, count: int = 50) -> PeriodicTask:
    return bus.send_periodic([message(data=bytes([n])) for n in range(count)], 0.01)


def test_what_the_kernel_repeats_ends_for_all_but_the_holder(runtime: Runtime, node: Node) -> None:
    """The kernel's tasks of others end with the claim, and the scheduler does not send them."""
    with Bus(VCAN, "socketcan") as other:
        task = other.send_periodic(message(0x100), 0.01)
        wait_for_kernel(runtime)
        with Bus(VCAN, "socketcan", exclusive=True) as holder:
            own = holder.send_periodic(message(0x200), 0.01)
            wait_until(lambda: any(one.failed for one in tasks_of(runtime)), "others fail")
            (refused,) = (one for one in tasks_of(runtime) if one.failed)
            assert refused.arbitration_id == 0x100
            assert f"exclusive to client {holder._connection.client_id}" in refused.reason
            wait_for_kernel(runtime)
            node.drain()
            node.received.clear()
            wait_for_frames(node, 10, 0x200)
            assert {frame.arbitration_id for frame in node.received} == {0x200}
            own.stop()
        wait_for_frames(node, 5)  # it goes on
        with pytest.raises(CanOperationError, match="exclusive to client"):
            task.stop()


def test_a_killed_scheduler_leaves_no_gap_and_nothing_twice(runtime: Runtime, node: Node) -> None:
    with Bus(VCAN, "socketcan") as bus:
        task = numbered(bus)
        wait_for_kernel(runtime)
        frames = wait_for_frames(node, 20)
        scheduler_of(runtime).kill()
        wait_until(lambda: status_of(runtime).scheduler.restarts == 1, "it is started again")
        wait_for_kernel(runtime)
        wait_until(lambda: len(node.drain()) > len(frames) + 100, "frames go on", 20)
        numbers = [frame.data[0] for frame in node.received]  # type: ignore[index]
        assert numbers == [(numbers[0] + n) % 50 for n in range(len(numbers))]
        task.modify_data([message(data=bytes([100 + n])) for n in range(50)])
        wait_for_data(node, b"\x64")  # it is still under control
        task.stop()
        assert is_silent(node)


def ask(runtime: Runtime, method: str, params: control.Params, result: type[_T]) -> _T | None:
    (channel,) = status_of(runtime).channels
    context = Context()
    try:
        deadline = clock.deadline_after(10)
        return call(context, parse_ipc(channel.control), method, params, result, deadline)
    finally:
        context.close()


def test_what_no_scheduler_knows_of_is_ended(runtime: Runtime, node: Node) -> None:
    """A predecessor has left it: killed before its request to stop was on its way."""
    with Bus(VCAN, "socketcan") as bus:
        bus.send_periodic(message(0x200), 0.01)
        wait_for_kernel(runtime)
        request = Repeat(
            client_id=tasks_of(runtime)[0].client_id,
            task=1000,
            messages=[Frame(0, 0x100, 0, b"\3")],
            period_ns=10 * MS,
            due_ns=clock.monotonic_ns(),
        )
        assert ask(runtime, "repeat", request, Repeating) == Repeating(repeating=True)
        wait_for_frames(node, 3)

        def left() -> set[int]:
            answer = ask(runtime, "repeat_counts", control.Params(), RepeatCounts)
            assert answer is not None
            return {item.task for item in answer.tasks}

        wait_until(lambda: 1000 not in left(), "it is ended")
        assert left(), "and nothing else"


def test_what_nobody_looks_after_ends(runtime: Runtime, node: Node) -> None:
    """Ten seconds after the last word of whoever has handed it down: here, of nobody else."""
    with Bus(VCAN, "socketcan"):
        request = Repeat(
            client_id="somebody",
            task=1,
            messages=[Frame(0, 0x100, 0, b"\3")],
            period_ns=10 * MS,
            due_ns=clock.monotonic_ns(),
        )
        assert ask(runtime, "repeat", request, Repeating) == Repeating(repeating=True)
        wait_for_frames(node, 3)
        wait_until(
            lambda: (
                ask(runtime, "repeat_counts", control.Params(), RepeatCounts)
                == RepeatCounts(tasks=[])
            ),
            "it is ended",
            30,
        )
        assert is_silent(node)


def test_many_tasks(runtime: Runtime, node: Node) -> None:
    """More than are handed down at once."""
    with Bus(VCAN, "socketcan") as bus:
        for number in range(100):
            bus.send_periodic(message(number), 0.5)
        wait_until(
            lambda: {task.mode for task in tasks_of(runtime)} == {"kernel"}, "all in the kernel", 20
        )
        scheduler_of(runtime).kill()
        wait_until(lambda: status_of(runtime).scheduler.restarts == 1, "it is started again")
        wait_for_kernel(runtime, 100)
        wait_for_frames(node, 3, 99)
        bus.stop_all_periodic_tasks()
        assert is_silent(node, 1.5)
