"""Children that never touch a bus keep nothing of it: neither connection, nor broker, nor lock."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from canbroker import Bus, Message
from canbroker.system.lock import BrokerLock
from canbroker.transport.runtime import Runtime
from tests.support.brokers import processes_of, status_of, wait_until
from tests.support.processes import Program

pytestmark = pytest.mark.long

#: Seconds; a presence ends within milliseconds, when it does.
PATIENCE_S = 10.0


def forked(job: Callable[[], object] = lambda: None) -> int:
    """A child that does ``job`` and waits to be killed; returns its number."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # this process may have threads
        pid = os.fork()
    if pid == 0:
        try:
            job()
            time.sleep(60)
        finally:
            os._exit(1)
    return pid


def end(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


@contextmanager
def child() -> Iterator[int]:
    pid = forked()
    try:
        yield pid
    finally:
        end(pid)


def assert_broker_leaves(runtime: Runtime) -> None:
    """It ends, and nobody has kept its lock."""
    wait_until(lambda: not processes_of(runtime), "the broker leaves", 20)
    lock = BrokerLock.take(runtime.lock_path)
    assert lock is not None
    lock.release()


def clients(runtime: Runtime) -> list[str]:
    return [c.client_id for channel in status_of(runtime).channels for c in channel.clients]


def unix_sockets(pid: int) -> set[str]:
    """Peers of the Unix sockets of a process, by their inodes' lines in the kernel's table."""
    links = []
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            links.append(str(entry.readlink()))
        except FileNotFoundError:
            continue
    return {link for link in links if link.startswith("socket:")}


def test_a_bus_that_is_shut_down_is_gone_for_the_others(runtime: Runtime) -> None:
    bus = Bus("x", "virtual", exclusive=True)
    with child():
        bus.shutdown()
        wait_until(lambda: not clients(runtime), "the broker knows that it has left")
        with Bus("x", "virtual", exclusive=True) as other:
            other.send(Message(arbitration_id=1), timeout=10)


def test_a_pools_workers(runtime: Runtime) -> None:
    bus = Bus("x", "virtual", exclusive=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pool = multiprocessing.get_context("fork").Pool(2)
    with pool:
        assert pool.map(abs, [-1, -2]) == [1, 2]
        bus.shutdown()
        with Bus("x", "virtual", exclusive=True) as other:
            other.send(Message(arbitration_id=1), timeout=10)
        assert pool.map(abs, [-3]) == [3]
        pool.terminate()
        pool.join()


OWNER = """
import os, time
bus = Bus("x", "virtual", exclusive=True)
bus.fileno()
pid = os.fork()
if not pid:
    os.close(1)  # the test waits for the end of what its parent says
    time.sleep(60)
    os._exit(0)
say(pid)
hear()
"""


def test_a_killed_owner_is_gone_for_the_others(runtime: Runtime) -> None:
    with Program(OWNER) as owner:
        orphan = int(owner.said())
        try:
            owner.kill()
            wait_until(lambda: not clients(runtime), "the broker knows that it has left")
            with Bus("x", "virtual", exclusive=True) as other:
                other.send(Message(arbitration_id=1), timeout=10)
            wait_until(lambda: not processes_of(runtime), "the broker leaves", 20)
        finally:
            os.kill(orphan, signal.SIGKILL)


def test_a_child_has_no_descriptor_of_ours(runtime: Runtime) -> None:
    mine, theirs = socket.socketpair()
    with mine, theirs, Bus("x", "virtual") as bus, Bus("x", "virtual") as other:
        bus.fileno()
        own = {f"socket:[{os.fstat(end.fileno()).st_ino}]" for end in (mine, theirs)}
        with child() as pid:
            wait_until(lambda: unix_sockets(pid) <= own, "connections are closed in the child")
            assert unix_sockets(pid) == own  # and nobody else's
            # The parent's are as they were.
            bus.send(Message(arbitration_id=1), timeout=10)
            assert other.recv(10) is not None
            os.kill(pid, 0)


def test_a_child_may_drop_and_use_what_it_has_inherited(runtime: Runtime) -> None:
    """It gets errors, harms nobody, and may open buses of its own."""
    source = """
    import gc, os, warnings
    warnings.simplefilter("error")
    bus, other = Bus("x", "virtual"), Bus("x", "virtual")
    bus.fileno()
    task = bus.send_periodic(Message(arbitration_id=1), 10.0)
    notifier = canbroker.Notifier(other, [])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        code = 1
        try:
            for use in (bus.recv, bus.shutdown, task.stop, lambda: bus.stats, lambda: bus.state,
                        lambda: bus.send(Message()), bus.fileno, notifier.stop):
                try:
                    use()
                except canbroker.CanOperationError as error:
                    assert "forked" in str(error), error
            del bus, other, task, use, notifier
            gc.collect()
            with Bus("x", "virtual") as own:
                own.send(Message(arbitration_id=2), timeout=10)
            code = 0
        finally:
            os._exit(code)
    say(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    bus.send(Message(arbitration_id=3), timeout=10)
    notifier.stop()
    say("ok")
    bus.shutdown()
    other.shutdown()
    """
    with Program(source) as program:
        assert program.said() == 0
        assert program.said() == "ok"
        assert program.end() == 0


def test_a_child_needs_no_lock_that_a_thread_of_the_parent_held(runtime: Runtime) -> None:
    """Of the flags that wake threads: whatever is set at the moment of the fork."""
    source = """
    import gc, os, signal, threading, warnings
    from canbroker.system.wake import Wake
    warnings.simplefilter("error")
    bus, other = Bus("x", "virtual"), Bus("x", "virtual")
    bus.fileno()
    task = bus.send_periodic(Message(arbitration_id=1), 10.0)
    notifier = canbroker.Notifier(other, [])
    held, forked = threading.Event(), threading.Event()

    def hold():
        locks = [each._lock for each in gc.get_objects() if isinstance(each, Wake)]
        for lock in locks:
            lock.acquire()
        held.set()
        forked.wait()
        for lock in locks:
            lock.release()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        signal.alarm(20)
        code = 1
        try:
            try:
                bus.recv()
            except canbroker.CanOperationError as error:
                assert "forked" in str(error), error
            del bus, other, task, notifier
            gc.collect()
            with Bus("x", "virtual") as own:
                own.send(Message(arbitration_id=2), timeout=10)
            code = 0
        finally:
            os._exit(code)
    forked.set()
    thread.join()
    say(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    notifier.stop()
    bus.shutdown()
    other.shutdown()
    """
    with Program(source) as program:
        assert program.said(30) == 0
        assert program.end() == 0


def test_forks_while_others_open_and_close(runtime: Runtime) -> None:
    """Whatever the other threads are at: when all is closed, the children keep nothing."""
    stop = threading.Event()
    errors: list[BaseException] = []

    def use() -> None:
        while not stop.is_set():
            try:
                with Bus("x", "virtual") as bus:
                    bus.send(Message(arbitration_id=1))
            except BaseException as error:  # noqa: BLE001 - asserted below
                errors.append(error)
                return

    children: list[int] = []
    with Bus("x", "virtual"):
        threads = [threading.Thread(target=use) for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            while len(children) < 30:
                children.append(forked())
        finally:
            stop.set()
            for thread in threads:
                thread.join()
    try:
        assert not errors
        wait_until(lambda: not clients(runtime), "all have left")
        kept = {pid: found for pid in children if (found := unix_sockets(pid))}
        assert not kept
        assert_broker_leaves(runtime)
    finally:
        for pid in children:
            end(pid)


def test_a_child_that_is_forked_while_a_broker_is_started(runtime: Runtime) -> None:
    """It does not keep the end of the pipe that the opener reads, nor the broker's lock."""
    opened = threading.Event()
    buses: list[Bus] = []

    def start() -> None:
        buses.append(Bus("x", "virtual"))
        opened.set()

    opener = threading.Thread(target=start)
    opener.start()
    children: list[int] = []
    try:
        while not opened.wait(0.005) and len(children) < 40:
            children.append(forked())
        assert opened.wait(PATIENCE_S)
        opener.join()
        (bus,) = buses
        bus.shutdown()
        assert_broker_leaves(runtime)
    finally:
        for pid in children:
            end(pid)
