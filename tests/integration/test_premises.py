"""A broker whose files somebody removes: a cleaner of temporary files, say."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from canbroker import Bus, CanInitializationError, Message
from canbroker.bus import discovery
from canbroker.bus.starting import is_running
from canbroker.system.entry_points import EntryPoint
from canbroker.transport.runtime import Runtime
from tests.support.brokers import processes_of, status_of, stop_broker, wait_until
from tests.support.systems import is_root

pytestmark = pytest.mark.long


def _exchange(sender: Bus, receiver: Bus, identifier: int) -> None:
    sender.send(Message(arbitration_id=identifier, is_extended_id=False), timeout=10)
    while True:
        message = receiver.recv(10)
        assert message is not None
        if message.arbitration_id == identifier:
            return


@contextmanager
def _serving(runtime: Runtime) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(EntryPoint.COMMAND.command("serve")) as server:
        try:
            yield server
        finally:
            server.kill()


def test_a_directory_that_is_removed_is_there_again(runtime: Runtime) -> None:
    with Bus("a", "virtual") as bus, Bus("a", "virtual") as other:
        task = other.send_periodic(Message(arbitration_id=0x7FF, is_extended_id=False), 0.05)
        before = status_of(runtime)
        shutil.rmtree(runtime.directory)
        _exchange(bus, other, 1)  # who is connected stays so
        sockets = ("broker", "scheduler.ctl", "virtual.a.rx", "virtual.a.tx", "virtual.a.ctl")
        for name in (*sockets, "lock", "processes", "tasks.db"):
            wait_until((runtime.directory / name).exists, f"{name} is there again")
        after = status_of(runtime)
        assert (after.pid, after.channels[0].restarts) == (before.pid, 0)
        with Bus("a", "virtual") as newcomer:
            _exchange(bus, newcomer, 2)
            # The journal is there again, with what it had.
            assert after.scheduler.pid is not None
            os.kill(after.scheduler.pid, signal.SIGKILL)
            wait_until(lambda: status_of(runtime).scheduler.restarts == 1, "another scheduler")
            newcomer.recv_batch(100_000)
            _exchange(newcomer, bus, 3)
            wait_until(lambda: _is_heard(newcomer, 0x7FF), "the task goes on")
        task.stop()
    assert bus.stats.lost == 0


def _is_heard(bus: Bus, identifier: int) -> bool:
    message = bus.recv(1)
    return message is not None and message.arbitration_id == identifier


@pytest.mark.parametrize("name", ["lock", "broker", "virtual.a.rx", "virtual.a.ctl"])
def test_a_file_that_is_removed_is_there_again(runtime: Runtime, name: str) -> None:
    with Bus("a", "virtual") as bus:
        before = status_of(runtime).pid
        (runtime.directory / name).unlink()
        with Bus("a", "virtual") as other:
            _exchange(bus, other, 1)
            assert status_of(runtime).pid == before
        wait_until((runtime.directory / name).exists, "it is there again")
        assert is_running(runtime)
        brokers = [p for p in processes_of(runtime) if EntryPoint.BROKER.is_in(p.cmdline())]
        assert [process.pid for process in brokers] == [before]


def test_a_broker_ends_whose_place_another_one_has_taken(runtime: Runtime) -> None:
    with _serving(runtime) as first:
        wait_until((runtime.directory / "broker").exists, "it listens")
        with Bus("a", "virtual"):
            os.kill(first.pid, signal.SIGSTOP)  # it cannot notice in time
            shutil.rmtree(runtime.directory)
            with _serving(runtime) as second:
                wait_until((runtime.directory / "broker").exists, "another one listens")
                with Bus("a", "virtual") as bus, Bus("a", "virtual") as other:
                    os.kill(first.pid, signal.SIGCONT)
                    assert first.wait(15) == 1
                    assert status_of(runtime).pid == second.pid
                    # What the first one has removed at its end is there again, too.
                    with Bus("a", "virtual") as newcomer:
                        _exchange(bus, newcomer, 1)
                    _exchange(bus, other, 2)
                assert stop_broker(runtime)
                assert second.wait(15) == 0


def test_a_directory_that_cannot_be_made_again_ends_the_broker(runtime: Runtime) -> None:
    with _serving(runtime) as server:
        wait_until((runtime.directory / "broker").exists, "it listens")
        shutil.rmtree(runtime.directory)
        runtime.directory.touch()
        assert server.wait(15) == 1
        runtime.directory.unlink()


def test_a_python_that_does_not_know_itself_starts_no_broker(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    for executable, why in (("", "sys.executable is empty"), ("/does/not/exist", "broker.log")):
        monkeypatch.setattr(sys, "executable", executable)
        began = time.monotonic()
        with pytest.raises(CanInitializationError, match=why):
            Bus("a", "virtual")
        assert time.monotonic() - began < discovery._START_S, "it does not wait for a broker"
        # The shell's child closes the pipe that we read and the lock one after the other.
        wait_until(lambda: not is_running(runtime), "the lock is free")


@pytest.mark.skipif(not is_root(), reason="only root can make another user's directory")
def test_root_does_not_lock_the_user_of_a_session_out(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = runtime.directory.parent
    os.chown(session, 65_534, 65_534)
    assert Runtime.at().directory.name == f"canbroker-{os.getuid()}"
    with pytest.raises(CanInitializationError, match="belongs to user 65534"):
        Bus("a", "virtual", broker=str(runtime.address))
    assert list(session.iterdir()) == []
    os.chown(session, 0, 0)
