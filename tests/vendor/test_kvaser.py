"""python-can's Kvaser driver over a double of CANlib."""

from __future__ import annotations

import os
import signal

import pytest

from canbroker import Bus, BusState, CanInitializationError, CanOperationError, CanTimeoutError
from canbroker.model.frame import Frame
from canbroker.transport.runtime import Runtime
from tests.support.brokers import status_of, wait_until
from tests.support.processes import Program
from tests.vendor.bus import VendorBus
from tests.vendor.channels import actor_of, frame, numbered, state_of
from tests.vendor.test_pcan import FOREIGN

NAME = "kvaser.0"
MANY = 3000


def test_one_adapter_is_one_channel_however_it_is_named(
    vendors: VendorBus, broker: Runtime
) -> None:
    with Bus(0, "kvaser", serial=20042) as one, Bus("0", "kvaser") as other, Bus(1, "kvaser"):
        assert len(status_of(broker).channels) == 2
        one.send(frame(0x123), timeout=10)
        message = other.recv(10)
        assert message is not None
        assert message.arbitration_id == 0x123
        with pytest.raises(CanInitializationError, match="serial=20042, not serial=1"):
            Bus(0, "kvaser", serial=1)
    wait_until(lambda: not vendors.is_open("kvaser", "0"), "it is closed")
    with pytest.raises(CanInitializationError, match=r"channel 0 is .*S/N 20042"):
        Bus(0, "kvaser", serial=1)


def test_sending_waits_for_room_and_not_for_each_acknowledgement(
    vendors: VendorBus, broker: Runtime
) -> None:
    channel = vendors.channel("kvaser", "0")
    channel.frame_us = 250
    with Bus(0, "kvaser") as bus:
        for number in range(MANY):
            bus.send(numbered(0x100, number))
        bus.flush(20)
        assert (bus.stats.sent, bus.stats.failed) == (MANY, 0)
        assert channel.syncs == 0
        wait_until(lambda: len(vendors.seen()) == MANY, "all are on the bus")
        numbers = [int.from_bytes(bytes(seen.data), "big") for seen in vendors.seen()]
        assert numbers == list(range(MANY))


def test_a_bus_without_acknowledgements_blocks_nobody(vendors: VendorBus, broker: Runtime) -> None:
    channel = vendors.channel("kvaser", "0")
    channel.silent = 1
    with Bus(0, "kvaser") as bus, Bus(0, "kvaser") as other:
        for number in range(500):
            (bus if number % 2 else other).send(numbered(0x100, number), timeout=10)
        vendors.send([Frame(0, 0x456, 0, b"")])
        while (message := other.recv(10)) is not None and message.arbitration_id != 0x456:
            pass
        assert message is not None, "it is received as ever"
        with pytest.raises(CanTimeoutError, match=r"200#.*queue was full"):
            bus.send(frame(0x200), timeout=0.2)
        other.set_filters([{"can_id": 0x300, "can_mask": 0x7FF}])
        assert other.state is BusState.ACTIVE
        assert channel.syncs == 0
        channel.silent = 0
        bus.send(frame(0x300), timeout=10)
        wait_until(lambda: vendors.last() == 0x300, "it goes on")


def test_bus_off(vendors: VendorBus, broker: Runtime) -> None:
    with Bus(0, "kvaser") as bus:
        vendors.channel("kvaser", "0").off = 1
        wait_until(lambda: bus.state is BusState.ERROR, "the bus knows")
        assert state_of(broker, NAME).reason == "bus-off"
        with pytest.raises(CanOperationError, match="cannot send 100#: bus-off"):
            bus.send(frame(0x100), timeout=10)
        vendors.channel("kvaser", "0").off = 0
        wait_until(lambda: bus.state is BusState.ACTIVE, "it has recovered")
        bus.send(frame(0x101), timeout=10)
        wait_until(vendors.seen, "it is sent")
        assert [seen.arbitration_id for seen in vendors.seen()] == [0x101]


def test_an_overrun_is_counted(vendors: VendorBus, broker: Runtime) -> None:
    with Bus(0, "kvaser") as bus:
        vendors.channel("kvaser", "0").queue = 3
        vendors.send([Frame(0, number, 0, b"") for number in range(200)])
        wait_until(lambda: state_of(broker, NAME).dropped > 0, "it is counted")
        vendors.channel("kvaser", "0").queue = 0
        vendors.send([Frame(0, 0x7FF, 0, b"")])
        while (message := bus.recv(10)) is not None and message.arbitration_id != 0x7FF:
            pass
        assert message is not None, "and reading goes on"
        assert bus.stats.dropped_upstream > 0
        assert bus.state is BusState.ACTIVE


def test_a_foreign_owner(vendors: VendorBus, broker: Runtime) -> None:
    parameters = {"exclusive": True}
    with Program(FOREIGN, channel=0, interface="kvaser", parameters=parameters) as owner:
        assert owner.said() == "open"
        with pytest.raises(CanInitializationError, match=r"kvaser 0.*No channels available"):
            Bus(0, "kvaser")
        owner.tell("end")
        assert owner.end() == 0
    with Bus(0, "kvaser") as bus:
        bus.send(frame(0x100), timeout=10)


def test_a_killed_actor(vendors: VendorBus, broker: Runtime) -> None:
    vendors.channel("kvaser", "0").frame_us = 1000
    with Bus(0, "kvaser") as bus:
        for number in range(2000):
            bus.send(numbered(0x100, number))
        os.kill(actor_of(broker, NAME), signal.SIGKILL)
        with pytest.raises(CanOperationError, match="not known to be sent"):
            bus.flush(20)
        assert bus.stats.sent + bus.stats.failed == 2000
        wait_until(lambda: bus.state is BusState.ACTIVE, "it is open again")
        bus.send(frame(0x7FF), timeout=10)
        wait_until(lambda: vendors.last() == 0x7FF, "new ones are sent")
        vendors.send([Frame(0, 0x456, 0, b"")])
        assert bus.recv(10) is not None
        assert bus.stats.restarts == 1
