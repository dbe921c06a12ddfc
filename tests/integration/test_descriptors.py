"""Standard streams that are closed, the limit of open descriptors, and other bounds."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec
import psutil
import pytest

from canbroker import Bus, CanInitializationError, Message
from canbroker.broker.callers import MAX_WAITING
from canbroker.model.frame import Frame
from canbroker.system.entry_points import EntryPoint
from canbroker.system.lock import BrokerLock
from canbroker.transport.address import Address, parse_ipc
from canbroker.transport.links import Link
from canbroker.transport.runtime import Runtime
from canbroker.transport.sockets import Context
from canbroker.wire import control
from canbroker.wire.tasks import AddTask
from tests.support.brokers import processes_of, status_of, stop_broker, wait_until
from tests.support.processes import Program

pytestmark = pytest.mark.long

#: Runs its arguments with standard input, output and error closed.
_CLOSED = ("/bin/sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh")

_CLIENT = """
import time
from canbroker import Bus
with Bus("a", "virtual"):
    time.sleep(1000)
"""


def _is_locked(runtime: Runtime) -> bool:
    lock = BrokerLock.take(runtime.lock_path)
    if lock is not None:
        lock.release()
    return lock is None


def _check_standard(process: psutil.Process) -> None:
    """They may be a log or the null device, but nothing that matters."""
    for number in range(3):
        target = Path(f"/proc/{process.pid}/fd/{number}").readlink()
        assert target.name in {"null", "broker.log"}, f"{process}: {number} is {target}"


def test_a_broker_with_closed_standard_streams_is_the_only_one(runtime: Runtime) -> None:
    command = [*_CLOSED, *EntryPoint.COMMAND.command("serve")]
    with subprocess.Popen(command) as server:
        try:
            wait_until(lambda: _socket(runtime).exists(), "the broker listens")
            with Bus("a", "virtual"):
                assert status_of(runtime).pid == server.pid
                assert _is_locked(runtime)
                for process in [psutil.Process(server.pid), *processes_of(runtime)]:
                    _check_standard(process)
            assert stop_broker(runtime)
        finally:
            server.kill()


def test_a_client_with_closed_standard_streams_starts_one_broker(runtime: Runtime) -> None:
    command = [*_CLOSED, sys.executable, "-c", _CLIENT]
    with subprocess.Popen(command) as client:
        try:
            wait_until(lambda: _socket(runtime).exists(), "the broker listens")
            with Bus("a", "virtual"):
                assert _is_locked(runtime)
                wait_until(lambda: len(status_of(runtime).channels[0].clients) == 2, "both")
            for process in processes_of(runtime):
                _check_standard(process)
            brokers = [p for p in processes_of(runtime) if EntryPoint.BROKER.is_in(p.cmdline())]
            assert len(brokers) == 1
        finally:
            client.kill()


def _socket(runtime: Runtime) -> Path:
    return runtime.directory / "broker"


def test_the_lock_is_none_of_the_standard_streams(tmp_path: Path) -> None:
    standard = [os.dup(number) for number in range(3)]
    try:
        for number in range(3):
            os.close(number)
        lock = BrokerLock.take(tmp_path / "lock")
    finally:
        for number, copy in enumerate(standard):
            os.dup2(copy, number)
            os.close(copy)
    assert lock is not None
    assert lock.descriptor > 2
    lock.release()


# ------------------------------------------------------------------------------------- limits

#: Opens buses of one channel until one is refused; then all that are open receive a frame.
_CROWD = """
import resource
buses, refusal = [], None
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
for _ in range(arguments["count"]):
    try:
        buses.append(Bus("a", "virtual"))
    except canbroker.CanInitializationError as error:
        refusal = str(error)
        break
say([len(buses), refusal])
hear()
say(sum(bus.recv(20) is not None for bus in buses))
hear()
for bus in buses:
    bus.shutdown()
"""


@contextmanager
def _broker(runtime: Runtime, soft: int, hard: int) -> Iterator[int]:
    """A broker's process, with these limits of open descriptors."""
    limits = f'ulimit -Sn {soft}; ulimit -Hn {hard}; exec "$@"'
    command = ["/bin/bash", "-c", limits, "sh", *EntryPoint.COMMAND.command("serve")]
    with subprocess.Popen(command) as server:
        try:
            wait_until(lambda: _socket(runtime).exists(), "the broker listens")
            yield server.pid
            assert stop_broker(runtime)
        finally:
            server.kill()


def crowd(runtime: Runtime, limits: tuple[int, int], programs: int, each: int) -> list[str]:
    """Opens many buses of one channel, and has all that are open receive a frame; the refusals.

    ``limits``: of the broker, soft and hard.
    """
    with _broker(runtime, *limits), ExitStack() as stack:
        sender = stack.enter_context(Bus("a", "virtual"))
        crowds = [stack.enter_context(Program(_CROWD, count=each)) for _ in range(programs)]
        said = [program.said(300) for program in crowds]
        opened = [count for count, _ in said]
        refusals = [refusal for _, refusal in said if refusal is not None]
        assert refusals or opened == [each] * programs
        (channel,) = status_of(runtime).channels
        assert (channel.restarts, channel.phase) == (0, "running")
        assert len(channel.clients) == sum(opened) + 1
        for program in crowds:
            program.tell("receive")
        sender.send(Message(arbitration_id=1), timeout=10)
        assert [program.said(120) for program in crowds] == opened, "all that are open receive it"
        for program in crowds:
            program.tell("end")
        assert [program.end() for program in crowds] == [0] * programs
        if refusals:
            assert status_of(runtime).turned_away["client"] == len(refusals)
            wait_until(lambda: len(status_of(runtime).channels[0].clients) == 1, "all have left")
            with Bus("a", "virtual"):  # there is room again
                pass
    return refusals


@pytest.mark.timeout(180)
def test_a_soft_limit_is_none(runtime: Runtime) -> None:
    assert not crowd(runtime, (64, 20_000), programs=2, each=40)


@pytest.mark.timeout(180)
def test_beyond_the_hard_limit_clients_are_refused_and_others_go_on(runtime: Runtime) -> None:
    refusals = crowd(runtime, (64, 256), programs=4, each=40)
    assert refusals
    for refusal in refusals:
        assert re.search(
            r"has \d+ clients, which is the most for a limit of 256 open files", refusal
        )


@pytest.mark.skipif("CANBROKER_CROWD" not in os.environ, reason="takes a minute: make crowd")
@pytest.mark.timeout(600)
def test_a_thousand_clients_of_one_channel(runtime: Runtime) -> None:
    assert not crowd(runtime, (1024, 20_000), programs=20, each=50)


def test_connections_beyond_the_limit_wait_and_end_nobody(runtime: Runtime) -> None:
    """libzmq ends a process that has no descriptor for a connection."""
    with _broker(runtime, 64, 256) as pid, Bus("a", "virtual") as bus, ExitStack() as stack:
        for name in ("broker", "virtual.a.rx", "virtual.a.tx", "virtual.a.ctl"):
            # As many as it likes; then others wait.
            connected = 0
            for _ in range(400):
                raw = stack.enter_context(socket.socket(socket.AF_UNIX))
                try:
                    raw.connect(str(runtime.directory / name))
                except (FileNotFoundError, ConnectionRefusedError):
                    break
                connected += 1
                time.sleep(0.0005)  # as fast as programs start, not as an attack
            assert 32 < connected < 200, name
        bus.send(Message(arbitration_id=1), timeout=10)
        stack.pop_all().close()
        wait_until(lambda: _socket(runtime).exists(), "the broker listens again")
        assert status_of(runtime).pid == pid
        with Bus("a", "virtual") as other:
            bus.send(Message(arbitration_id=1), timeout=10)
            assert other.recv(10) is not None


# ------------------------------------------------------------------------------------- bounds


def _asking(runtime: Runtime, endpoint: Address) -> tuple[Context, Link]:
    context = Context()
    return context, Link(context, endpoint)


def test_more_attach_requests_than_may_wait(runtime: Runtime) -> None:
    """Each is an id of its own, on one connection; most are refused, and cost next to nothing."""
    with _broker(runtime, 1024, 20_000) as pid, Bus("b", "virtual") as bus:
        before = psutil.Process(pid).memory_info().rss
        context, link = _asking(runtime, runtime.address)
        try:
            with _slow_adapter() as url:
                for number in range(10_000):
                    request = control.Attach(
                        client_id=f"c{number}",
                        pid=os.getpid(),
                        program="test",
                        channel=url,
                        interface="slcan",
                        parameters={"bitrate": 500_000},
                    )
                    body = control.encode_request(number, "attach", request)
                    while not link.send(body):
                        link.wait(None, 1_000_000)
                    while link.receive() is not None:
                        pass
                wait_until(lambda: status_of(runtime).turned_away, "some were refused", 30)
                wait_until(
                    lambda: sum(status_of(runtime).turned_away.values()) > 5_000, "most were", 30
                )
                assert status_of(runtime).waiting <= MAX_WAITING
                assert psutil.Process(pid).memory_info().rss - before < 20 << 20
                bus.send(Message(arbitration_id=1), timeout=10)
        finally:
            link.close()
            context.close()


@contextmanager
def _slow_adapter() -> Iterator[str]:
    """Takes connections and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(16)
        yield f"socket://127.0.0.1:{listener.getsockname()[1]}"


def test_six_hundred_tasks_for_channels_that_do_not_exist(runtime: Runtime) -> None:
    with _broker(runtime, 64, 256), Bus("a", "virtual") as bus, Bus("a", "virtual") as other:
        task = bus.send_periodic(Message(arbitration_id=1), 0.02)
        assert other.recv(10) is not None
        scheduler = status_of(runtime).scheduler
        context, link = _asking(runtime, parse_ipc(scheduler.control))
        answers: list[control.ErrorResult] = []
        try:
            for number in range(1, 601):
                request = AddTask(
                    client_id="c",
                    pid=os.getpid(),
                    task=number,
                    channel=f"none{number}",
                    messages=[Frame(0, 1, 0, b"")],
                    period_ns=1_000_000_000,
                )
                assert link.send(control.encode_request(number, "task_add", request))
            deadline = time.monotonic() + 20
            while len(answers) < 600 and time.monotonic() < deadline:
                body = link.receive()
                if body is None:
                    link.wait(None, 100_000_000)
                else:
                    reply = control.decode_reply(body)
                    answers.append(msgspec.msgpack.decode(reply.result, type=control.ErrorResult))
        finally:
            link.close()
            context.close()
        assert len(answers) == 600
        assert {answer.code for answer in answers} == {"down"}
        assert psutil.Process(scheduler.pid).num_fds() < 64
        other.recv_batch(10_000)
        assert other.recv(10) is not None, "others' tasks go on"
        task.stop()


def test_channels_without_end_are_refused(runtime: Runtime) -> None:
    with _broker(runtime, 64, 256), ExitStack() as stack:
        for number in range(8):
            stack.enter_context(Bus(f"v{number}", "virtual"))
        with pytest.raises(
            CanInitializationError, match="has 8 channels, which is the most for a limit of 256"
        ):
            Bus("v8", "virtual")
        assert len(status_of(runtime).channels) == 8
        assert status_of(runtime).turned_away == {"channel": 1}
