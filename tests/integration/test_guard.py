"""Who sends without end what is refused is hung up on, and kept out for a while; nobody else is."""

from __future__ import annotations

import logging
import os
import resource
import socket as sockets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
import zmq

from canbroker import Bus, Message
from canbroker.system import clock
from canbroker.system.throttle import Throttle
from canbroker.transport import kept_out
from canbroker.transport.address import parse_ipc
from canbroker.transport.ipc_router import IpcRouter
from canbroker.transport.kept_out import KeptOut
from canbroker.transport.routers import MAX_REFUSED
from canbroker.transport.runtime import Runtime
from canbroker.transport.sockets import Context
from canbroker.transport.waiter import Waiter
from tests.support.brokers import status_of, wait_until
from tests.support.systems import open_descriptors

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells who a peer is"),
]

LIMIT = 10

ONE = """
import sys, zmq
context = zmq.Context()
peer = context.socket(zmq.DEALER)
peer.connect(sys.argv[1])
peer.send(sys.argv[2].encode())
sys.stdin.read()
context.destroy(linger=0)
"""

FLOOD = """
import sys, zmq
context = zmq.Context()
peers = [context.socket(zmq.DEALER) for _ in sys.argv[1:]]
for peer, endpoint in zip(peers, sys.argv[1:]):
    peer.connect(endpoint)
poller = zmq.Poller()
poller.register(sys.stdin, zmq.POLLIN)
while not poller.poll(0):
    for peer in peers:
        if peer.poll(0, zmq.POLLOUT):
            peer.send(b"garbage")
context.destroy(linger=0)
"""


class Door:
    """A ROUTER that refuses ``garbage``, and keeps the rest."""

    def __init__(self, endpoint: str) -> None:
        self.refused = Throttle(logging.getLogger("test"))
        self.router = IpcRouter(parse_ipc(endpoint), KeptOut(), LIMIT, self.refused, 1)
        self.taken: list[bytes] = []
        self._waiter = Waiter()
        self.router.watch(self._waiter)

    def step(self) -> None:
        self._waiter.wait(clock.MILLISECOND)
        self.router.attend()
        received = self.router.receive()
        if received is None:
            return
        _, (body,) = received
        if body.startswith(b"garbage"):
            self.router.refuse()
        else:
            self.taken.append(body)

    @property
    def ended(self) -> int:
        return self.refused.counts["connection ended"]

    def close(self) -> None:
        self.router.close()


@pytest.fixture
def door(endpoint: str) -> Iterator[Door]:
    door = Door(endpoint)
    yield door
    door.close()


class Guest:
    """A peer that knows how often it was hung up on."""

    def __init__(self, context: Context, endpoint: str) -> None:
        self.ended = 0
        self._socket = context.requester(parse_ipc(endpoint))
        self._events = self._socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)

    def send(self, body: bytes) -> None:
        self._socket.send(body, zmq.NOBLOCK)

    def hung_up(self) -> int:
        while self._events.poll(0):
            self._events.recv_multipart()
            self.ended += 1
        return self.ended

    def close(self) -> None:
        self._socket.disable_monitor()
        self._events.close()
        self._socket.close(linger=0)


@pytest.fixture
def guest(context: Context, endpoint: str, door: Door) -> Iterator[Guest]:
    guest = Guest(context, endpoint)
    yield guest
    guest.close()


def until(door: Door, condition: Callable[[], object], what: str, timeout: float = 10.0) -> None:
    def holds() -> object:
        door.step()
        return condition()

    wait_until(holds, what, timeout)


def test_it_waits_at_the_gate(
    door: Door, guest: Guest, context: Context, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_out, "KEPT_OUT_S", 1)
    for _ in range(LIMIT + 5):
        guest.send(b"garbage")
    until(door, lambda: door.ended, "it is counted")
    until(door, guest.hung_up, "it is hung up on")
    began = time.monotonic()
    guest.send(b"sorry")  # libzmq connects again by itself
    sister = Guest(context, endpoint)
    sister.send(b"hello")
    until(door, lambda: len(door.taken) == 2, "the time is over")
    assert time.monotonic() > began + 0.9
    assert set(door.taken) == {b"sorry", b"hello"}
    assert door.ended == 1
    guest.send(b"and on")
    until(door, lambda: b"and on" in door.taken, "it is as all others are")
    assert (guest.hung_up(), sister.hung_up()) == (1, 0)
    sister.close()


def test_other_processes_are_not(door: Door, guest: Guest, endpoint: str) -> None:
    guest.send(b"here")
    until(door, lambda: door.taken, "somebody is there already")
    flood = [sys.executable, "-c", FLOOD, endpoint]
    with subprocess.Popen(flood, stdin=subprocess.PIPE) as flooding:
        until(door, lambda: door.ended, "it is hung up on")
        other = [sys.executable, "-c", ONE, endpoint, "new"]
        with subprocess.Popen(other, stdin=subprocess.PIPE) as coming:
            in_time = kept_out.KEPT_OUT_S / 2  # before those are let in that are kept out
            until(door, lambda: b"new" in door.taken, "a new one is taken", in_time)
            coming.communicate()
        guest.send(b"still here")
        until(door, lambda: b"still here" in door.taken, "the old one goes on")
        assert guest.hung_up() == 0
        flooding.communicate()


def test_it_is_counted_by_the_second_and_by_size(
    door: Door, guest: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = clock.monotonic_ns()
    monkeypatch.setattr(clock, "monotonic_ns", lambda: now)

    def send(body: bytes) -> None:
        guest.send(body)
        guest.send(b"next")
        taken = len(door.taken)
        until(door, lambda: len(door.taken) > taken, "it is through")

    for _ in range(3):
        for _ in range(LIMIT):
            send(b"garbage")
        now += clock.SECOND + 1
    send(b"garbage" + bytes(256 * (LIMIT - 1)))
    assert not door.ended
    assert guest.hung_up() == 0
    guest.send(b"garbage")
    until(door, lambda: door.ended, "that was one too many")


def test_who_floods_does_so_for_a_moment(runtime: Runtime) -> None:
    with Bus("x", "virtual") as bus:
        bus.send_periodic(Message(arbitration_id=0x70), 60).stop()  # starts the scheduler
        status = status_of(runtime)
        (channel,) = status.channels
        endpoints = [
            channel.transmit,
            channel.control,
            status.scheduler.control,
            str(runtime.address),
        ]
        flood = [sys.executable, "-c", FLOOD, *endpoints]
        with subprocess.Popen(flood, stdin=subprocess.PIPE) as flooding:
            wait_until(lambda: _ended(runtime) == {"virtual.x", "scheduler", "broker"}, "all have")
            time.sleep(2)  # the state is told every second
            refused = _refused(runtime)
            time.sleep(1.5)
            assert _refused(runtime) == refused
            bus.send(Message(arbitration_id=1), timeout=10)
            flooding.communicate()
        # What was on its way is passed over, and not answered one by one.
        assert refused < 2 * 3 * MAX_REFUSED


def _ended(runtime: Runtime) -> set[str]:
    lines = runtime.log_path.read_text().splitlines()
    return {line.split()[3] for line in lines if "connection ended" in line}


def _refused(runtime: Runtime) -> int:
    status = status_of(runtime)
    (channel,) = status.channels
    assert channel.state is not None
    return channel.state.refused + status.refused


GONE = """
import os, sys, time, zmq
context = zmq.Context()
peer = context.socket(zmq.DEALER)
peer.setsockopt(zmq.RCVHWM, 1)
peer.setsockopt(zmq.SNDHWM, 0)
peer.connect(sys.argv[1])
for _ in range(20_000):
    peer.send(b"garbage")
time.sleep(float(sys.argv[2]))
os._exit(0)
"""


def test_who_floods_and_ends_at_any_time(runtime: Runtime) -> None:
    with Bus("x", "virtual") as bus:
        before = status_of(runtime)
        (channel,) = before.channels
        for attempt in range(8):
            for endpoint in (str(runtime.address), channel.control, channel.transmit):
                arguments = [sys.executable, "-c", GONE, endpoint, str(attempt / 1000)]
                subprocess.run(arguments, check=True, timeout=60)
        bus.send(Message(arbitration_id=1), timeout=10)
        after = status_of(runtime)
        assert after.pid == before.pid
        assert [channel.pid for channel in after.channels] == [channel.pid]
    assert {"broker", "virtual.x"} <= _ended(runtime)


def test_no_descriptor_is_left(door: Door, guest: Guest) -> None:
    """Hanging up needs none."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    guest.send(b"here")
    until(door, lambda: door.taken, "it is there")
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(open_descriptors()) + 100, hard))
    taken = []
    try:
        with suppress(OSError):
            while True:
                taken.append(os.dup(0))
        for _ in range(LIMIT + 1):
            guest.send(b"garbage")
        until(door, lambda: door.ended, "it is hung up on")
        assert len(door.router) == 0
    finally:
        for descriptor in taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_connections_that_end_leave_no_descriptor(door: Door, endpoint: str) -> None:
    before = open_descriptors()
    for first in (b"garbage", b"\xff") * 20:
        with sockets.socket(sockets.AF_UNIX) as peer:
            peer.connect(endpoint.removeprefix("ipc://"))
            peer.send(first)
            door.step()
        until(door, lambda: len(door.router) == 0, "it is gone")
    assert open_descriptors() == before
