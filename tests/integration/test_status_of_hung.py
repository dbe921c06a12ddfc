"""``status`` and ``stop`` when a process hangs, or is of another version."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from canbroker import Bus, CanInitializationError, Message
from canbroker.system.lock import BrokerLock
from canbroker.transport.runtime import Runtime
from tests.integration.test_cli import fail, succeed
from tests.support.brokers import status_of, wait_until
from tests.support.processes import Program

#: Answers as a broker of the next version of the protocol would: it refuses what it does not know.
NEXT_VERSION = """
import msgpack, zmq
from canbroker.system.lock import BrokerLock
from canbroker.transport.runtime import Runtime
runtime = Runtime.at()
runtime.prepare()
lock = BrokerLock.take(runtime.lock_path)
context = zmq.Context()
socket = context.socket(zmq.ROUTER)
socket.bind(str(runtime.address))
say("up")
while True:
    identity, body = socket.recv_multipart()
    number = msgpack.unpackb(body)[1]
    error = {"code": "malformed", "message": "this broker knows version 2", "details": {}}
    socket.send_multipart([identity, msgpack.packb([2, number, False, error])])
"""


@contextmanager
def stopped(pid: int | None) -> Iterator[int]:
    """A process that does nothing while the block runs."""
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.fixture
def bus(runtime: Runtime) -> Iterator[Bus]:
    with Bus("a", "virtual") as bus, Bus("b", "virtual"):
        bus.send_periodic(Message(arbitration_id=1, is_extended_id=False), 0.05)
        yield bus


def test_a_hung_channel_is_named_and_the_rest_is_shown(runtime: Runtime, bus: Bus) -> None:
    channel = next(c for c in status_of(runtime).channels if c.name == "virtual.a")
    with stopped(channel.pid) as pid:
        shown = succeed("status", "--tasks")
        listed = json.loads(succeed("status", "--tasks", "--json"))
    assert f"the channel actor of 'virtual.a' (process {pid}) does not answer" in shown
    assert "virtual.b" in shown
    assert shown.count("does not answer") == 1
    assert listed["silent"] == [f"the channel actor of 'virtual.a' (process {pid})"]
    assert len(listed["tasks"]) == 1


def test_a_hung_scheduler_is_named_and_the_rest_is_shown(runtime: Runtime, bus: Bus) -> None:
    with stopped(status_of(runtime).scheduler.pid) as pid:
        shown = succeed("status", "--tasks")
    assert f"the scheduler (process {pid}) does not answer" in shown
    assert "virtual.a" in shown
    wait_until(lambda: "does not answer" not in succeed("status", "--tasks"), "all answer again")


def test_a_hung_broker_is_named(runtime: Runtime, bus: Bus) -> None:
    with stopped(status_of(runtime).pid) as pid:
        assert f"(process {pid}; 'kill {pid}' ends it) does not answer" in fail("status")


def test_a_broker_of_another_version_is_named(runtime: Runtime) -> None:
    with Program(NEXT_VERSION) as broker:
        broker.said()
        said = f"(process {broker.pid}; 'kill {broker.pid}' ends it)"
        assert said in fail("stop")
        with pytest.raises(CanInitializationError) as caught:
            Bus("a", "virtual")
        assert said in str(caught.value)
        broker.signal(signal.SIGTERM)
        broker.end()
    lock = BrokerLock.take(runtime.lock_path)
    assert lock is not None
    lock.release()
    (runtime.directory / "broker").unlink()
