"""Whose tasks end, and when, if nobody could say that they shall."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from canbroker import Bus
from canbroker.actors.scheduler.journal import Journal
from canbroker.actors.scheduler.owners import Owners
from canbroker.system import clock
from canbroker.system.throttle import Throttle
from canbroker.transport.address import IpcAddress
from canbroker.transport.links import Link
from canbroker.transport.replier import Replier
from canbroker.transport.runtime import Runtime
from canbroker.transport.sockets import Context
from canbroker.transport.waiter import Waiter
from tests.integration.test_scheduler import hears, is_silent, message, scheduler_of
from tests.support.brokers import status_of, tasks_of, wait_until
from tests.support.processes import Program

PARENT = """
import os
bus = Bus("x", "virtual")
bus.send_periodic(Message(arbitration_id=0x200, is_extended_id=False), 0.01)
child = os.fork()
if not child:
    hear()
    os._exit(0)
say(child)
hear()
"""


@pytest.fixture
def listener(runtime: Runtime) -> Iterator[Bus]:
    with Bus("x", "virtual") as bus:
        yield bus


def test_a_bus_that_is_closed_while_the_scheduler_does_not_listen(
    runtime: Runtime, listener: Bus
) -> None:
    owner = Bus("x", "virtual")
    owner.send_periodic(message(0x200), 0.01)
    with Bus("x", "virtual") as living:
        living.send_periodic(message(0x100), 0.01)
        hears(listener, 0x200)
        scheduler = scheduler_of(runtime)
        scheduler.suspend()
        owner.shutdown()
        closed = time.time()
        scheduler.kill()
        hears(listener, 0x100)
        while (received := listener.recv(0)) is not None:
            assert received.arbitration_id == 0x100 or received.timestamp < closed
        assert [task.arbitration_id for task in tasks_of(runtime)] == [0x100]


def test_an_owner_that_is_killed_has_a_child(runtime: Runtime, listener: Bus) -> None:
    """Which has inherited its connections, and closed them: a child has no part in them."""
    with Program(PARENT) as owner:
        child = psutil.Process(owner.said())
        try:
            hears(listener, 0x200)
            os.kill(owner.pid, signal.SIGKILL)
            wait_until(lambda: not tasks_of(runtime), "its task has ended")
            assert is_silent(listener)
            wait_until(lambda: len(status_of(runtime).channels[0].clients) == 1, "it has left")
            assert child.is_running()
        finally:
            child.kill()


def test_what_a_killed_scheduler_has_sent_is_not_sent_after_a_stop(
    runtime: Runtime,
) -> None:
    """It waits in the channel: a bus of 10 kbit/s takes a second for it."""
    with Bus("slow", "virtual", bitrate=10_000) as bus, Bus("slow", "virtual") as other:
        tasks = [bus.send_periodic(message(number, bytes(8)), 2) for number in range(80)]
        hears(other, 3, 1)
        hears(other, 3, 1)  # the next round has begun
        scheduler_of(runtime).kill()
        for task in tasks[70:]:
            task.stop()
        stopped = time.time()
        while (received := other.recv(0.5)) is not None:
            assert received.arbitration_id < 70 or received.timestamp < stopped


def test_who_is_not_seen_is_looked_for(tmp_path: Path) -> None:
    """A scheduler and its channel were both started again: only the connection tells."""
    context, waiter = Context(), Waiter()
    address = IpcAddress(tmp_path / "ctl")
    replier = Replier(context, address, {}, {}, Throttle(logging.getLogger("test")))
    journal = Journal(tmp_path / "journal")
    owners = Owners(waiter, journal, replier.is_connected)
    try:
        link = Link(context, address, "alice")

        def is_connected() -> bool:
            replier.serve(waiter)
            return replier.is_connected(b"alice")

        wait_until(is_connected, "she is connected")
        now = clock.monotonic_ns()
        alice, bob = owners.of("alice", 1, now), owners.of("bob", 1, now)
        assert not any(owners.is_gone(owner, now) for owner in (alice, bob)), "time to return"
        later = now + 11 * clock.SECOND
        assert not owners.is_gone(alice, later)
        assert owners.is_gone(bob, later)
        link.close()
        wait_until(lambda: not is_connected(), "she is gone")
        assert not owners.is_gone(alice, later + clock.SECOND), "not looked for all the time"
        assert owners.is_gone(alice, later + 11 * clock.SECOND)
    finally:
        owners.close()
        journal.close()
        replier.close()
        context.close()


def test_where_clients_were_seen_outlives_a_scheduler(tmp_path: Path) -> None:
    waiter = Waiter()
    for _ in range(2):
        journal = Journal(tmp_path / "journal")
        owners = Owners(waiter, journal, lambda _: True)
        for client_id in ("alice", "bob", "carol"):
            owners.of(client_id, 1, 0)
        owners.see("can0", 5, {"alice", "bob", "somebody"})
        owners.see("can0", 7, {"bob"})
        owners.see("can1", 6, {"carol"})
        owners.close()
        journal.close()
    journal = Journal(tmp_path / "journal")
    owners = Owners(waiter, journal, lambda _: True)
    try:
        owners.of("alice", 1, 0)
        carol = owners.of("carol", 1, 0)
        assert owners.last_seen("can0") == (5, {"alice"})
        assert owners.last_seen("can1") == (6, {"carol"})
        owners.remove(carol)
        assert journal.seen("carol") == {}
        assert journal.seen("bob") == {"can0": 7}
    finally:
        owners.close()
        journal.close()
