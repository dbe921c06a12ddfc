"""An interface that comes back otherwise than it went; ``tests/contract/test_unplug.py`` has the
rest."""

from __future__ import annotations

import os
import re
import signal

import pytest

from canbroker import Bus, BusState, CanOperationError, Message
from canbroker.model.frame import Frame
from canbroker.transport.runtime import Runtime
from tests.support.brokers import status_of, wait_until
from tests.support.vcan import Node, ip, needs_admin, needs_can

pytestmark = [needs_can, needs_admin]


def reason_of(bus: Bus) -> str:
    """Why sends are refused."""
    with pytest.raises(CanOperationError) as refused:
        bus.send(Message(arbitration_id=0x666))
    return str(refused.value)


def test_one_that_is_not_as_asked_for_is_not_used_until_it_is(
    runtime: Runtime, own_interface: str
) -> None:
    ip("set", own_interface, "mtu", "72")
    with Bus(own_interface, "socketcan", fd=True) as bus:
        ip("del", own_interface)
        wait_until(lambda: bus.state is BusState.ERROR, "the bus knows")
        wait_until(lambda: "there is no CAN interface" in reason_of(bus), "why")
        ip("add", own_interface, "mtu", "16", "type", "vcan")
        ip("set", own_interface, "up")
        command = f"ip link set {own_interface} mtu 72"
        wait_until(lambda: command in reason_of(bus), "what is wrong, and the remedy")
        # It goes down before it is gone; who is late is told the last of both.
        assert re.search(r"is (down|gone) \(", reason_of(bus)), "and how it began"
        for words in ("down", "mtu 72", "up"):
            ip("set", own_interface, *words.split())
        wait_until(lambda: bus.state is BusState.ACTIVE, "it is as asked for")
        with Node(own_interface) as node:
            node.send([Frame(0, 0x123, 0, b"")])
            received = bus.recv(10)
        assert received is not None
        assert bus.stats.interruptions == 1
        assert bus.stats.restarts == 0


def test_one_that_is_lost_together_with_frames(runtime: Runtime, own_interface: str) -> None:
    """An actor that was busy reads frames and the loss at once, and passes on both."""
    with Bus(own_interface, "socketcan") as bus:
        (channel,) = status_of(runtime).channels
        assert channel.pid is not None
        os.kill(channel.pid, signal.SIGSTOP)
        try:
            with Node(own_interface) as node:
                node.send([Frame(0, 0x123, 0, bytes([number])) for number in range(5)])
            ip("set", own_interface, "down")
        finally:
            os.kill(channel.pid, signal.SIGCONT)
        wait_until(lambda: bus.stats.interruptions == 1, "the bus knows")
        received = [bus.recv(10) for _ in range(5)]
    assert [bytes(message.data) for message in received if message] == [
        bytes([number]) for number in range(5)
    ]


def test_one_that_canbroker_configures_is_brought_up_again(
    runtime: Runtime, own_interface: str
) -> None:
    with Bus(own_interface, "socketcan", configure=True) as bus:
        ip("set", own_interface, "down")
        wait_until(lambda: bus.stats.interruptions == 1, "it was down")
        wait_until(lambda: bus.state is BusState.ACTIVE, "it is up")
        bus.send(Message(arbitration_id=1), timeout=10)
