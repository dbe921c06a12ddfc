"""python-can's PCAN driver over a double of PCAN-Basic."""

from __future__ import annotations

import itertools
import os
import signal

import psutil
import pytest

from canbroker import (
    Bus,
    BusState,
    CanInitializationError,
    CanOperationError,
    CanTimeoutError,
)
from canbroker.model.frame import ERROR, Frame
from canbroker.transport.runtime import Runtime
from tests.support.brokers import status_of, wait_until
from tests.support.processes import Program
from tests.vendor.bus import BUSHEAVY, BUSOFF, OVERRUN, VendorBus
from tests.vendor.channels import actor_of, busy_share, frame, numbered, state_of

pytestmark = pytest.mark.long

ONE, TWO = "PCAN_USBBUS1", "PCAN_USBBUS2"
NAME = f"pcan.{ONE}"

#: More than waits in the library (500), in the backend and in the credit of a client together.
MANY = 20_000


def test_two_channels_hear_each_other(vendors: VendorBus, broker: Runtime) -> None:
    with Bus(ONE, "pcan") as one, Bus(TWO, "pcan") as two, Bus(ONE, "pcan") as other:
        one.send(frame(0x123, b"\x01\x02"), timeout=10)
        for bus in (two, other):
            message = bus.recv(10)
            assert message is not None
            assert (message.arbitration_id, bytes(message.data)) == (0x123, b"\x01\x02")
        assert len(status_of(broker).channels) == 2


def test_a_full_bus_is_received_without_a_loss(vendors: VendorBus, broker: Runtime) -> None:
    """8,000 frames a second, as many as 1 Mbit/s has; ``make bench-vendor`` for a minute."""
    count = 16_000
    with Bus(ONE, "pcan") as bus:
        vendors.generate(8000, count)
        sent_ns = []
        for _ in range(count):
            message = bus.recv(10)
            assert message is not None
            sent_ns.append(int.from_bytes(message.data, "little"))
        assert sent_ns == sorted(sent_ns)
        assert len(set(sent_ns)) == count
        assert (bus.stats.lost, bus.stats.dropped_upstream) == (0, 0)
        assert vendors.channel("pcan", ONE).lost == 0


def test_a_full_transmit_queue_is_waited_for(vendors: VendorBus, broker: Runtime) -> None:
    vendors.channel("pcan", ONE).frame_us = 100
    with Bus(ONE, "pcan") as bus:
        for number in range(MANY):
            bus.send(numbered(0x100, number))
        bus.flush(30)
        assert (bus.stats.sent, bus.stats.failed) == (MANY, 0)
        wait_until(lambda: len(vendors.seen()) == MANY, "all are on the bus", timeout=20)
        numbers = [int.from_bytes(bytes(seen.data), "big") for seen in vendors.seen()]
        assert numbers == list(range(MANY))


def test_a_queue_that_stays_full_is_a_timeout(vendors: VendorBus, broker: Runtime) -> None:
    vendors.channel("pcan", ONE).silent = 1
    with Bus(ONE, "pcan") as bus:
        for number in range(500):
            bus.send(numbered(0x100, number), timeout=10)
        with pytest.raises(CanTimeoutError, match=r"200#.*expired while .*queue was full"):
            bus.send(frame(0x200), timeout=0.3)
        assert bus.state is BusState.ACTIVE
        vendors.channel("pcan", ONE).silent = 0
        bus.send(frame(0x300), timeout=10)
        wait_until(lambda: vendors.last() == 0x300, "it goes on")
        assert 0x200 not in {seen.arbitration_id for seen in vendors.seen()}


@pytest.mark.parametrize("told", [True, False], ids=["told once", "found out by sending"])
def test_bus_off(vendors: VendorBus, broker: Runtime, told: bool) -> None:
    with Bus(ONE, "pcan") as bus:
        vendors.channel("pcan", ONE).off = 1
        if told:
            vendors.report(ONE, BUSOFF)
        else:
            with pytest.raises(CanOperationError, match="bus-off"):
                bus.send(frame(0x100), timeout=10)
        wait_until(lambda: bus.state is BusState.ERROR, "the bus knows")
        wait_until(lambda: "auto_reset" in state_of(broker, NAME).reason, "what helps is named")
        with pytest.raises(CanOperationError, match=r"cannot send 101#.*bus-off"):
            bus.send(frame(0x101), timeout=10)
        vendors.channel("pcan", ONE).off = 0  # as with auto_reset
        wait_until(lambda: bus.state is BusState.ACTIVE, "it has recovered")
        bus.send(frame(0x102), timeout=10)
        assert bus.stats.interruptions == 0, "the adapter was there all the time"


def test_bus_off_fails_what_waits(vendors: VendorBus, broker: Runtime) -> None:
    vendors.channel("pcan", ONE).silent = 1
    with Bus(ONE, "pcan") as bus:
        for number in range(800):
            bus.send(numbered(0x100, number))
        wait_until(lambda: state_of(broker, NAME).transmitted == 500, "the driver's queue is full")
        vendors.channel("pcan", ONE).off = 1
        with pytest.raises(CanOperationError, match="bus-off"):
            bus.flush(10)
        assert bus.stats.sent + bus.stats.failed == 800


@pytest.mark.parametrize("told", [True, False], ids=["QOVERRUN", "OVERRUN"])
def test_an_overrun_is_counted(vendors: VendorBus, broker: Runtime, told: bool) -> None:
    with Bus(ONE, "pcan") as bus:
        if told:  # a queue that is full, as Windows says it
            vendors.channel("pcan", ONE).queue = 3
            vendors.send([Frame(0, number, 0, b"") for number in range(200)])
        else:  # a status, as Linux does
            vendors.report(ONE, OVERRUN)
        wait_until(lambda: state_of(broker, NAME).dropped > 0, "it is counted")
        vendors.channel("pcan", ONE).queue = 0
        vendors.send([Frame(0, 0x7FF, 0, b"")])
        while (message := bus.recv(10)) is not None and message.arbitration_id != 0x7FF:
            pass
        assert message is not None, "and reading goes on"
        assert bus.state is BusState.ACTIVE
        assert bus.stats.dropped_upstream > 0
        assert state_of(broker, NAME).counters["overruns"] > 0


def test_a_driver_that_logs_at_each_read(vendors: VendorBus, broker: Runtime) -> None:
    vendors.channel("pcan", ONE).heavy = 1
    with Bus(ONE, "pcan") as bus:
        wait_until(lambda: state_of(broker, NAME).reason == "error warning", "it is told")
        assert bus.state is BusState.ACTIVE
        reads = vendors.channel("pcan", ONE).reads
        assert busy_share(actor_of(broker, NAME), 2) < 0.3, "it does not spin"
        assert vendors.channel("pcan", ONE).reads - reads < 600
        lines = broker.log_path.read_text().count("'heavy'/'warning' limit")
        assert 1 <= lines <= 20, "and the log does not fill"
        vendors.send([Frame(0, 0x123, 0, b"\x01")])
        message = bus.recv(10)
        assert message is not None
        assert message.arbitration_id == 0x123
        vendors.channel("pcan", ONE).heavy = 0
        wait_until(lambda: state_of(broker, NAME).reason == "", "it is over")


def test_a_warning_that_is_told_once(vendors: VendorBus, broker: Runtime) -> None:
    with Bus(ONE, "pcan") as bus:
        vendors.report(ONE, BUSHEAVY)
        vendors.send([Frame(0, 0x123, 0, b"\x01")])
        assert bus.recv(10) is not None
        assert bus.state is BusState.ACTIVE


def test_error_frames_are_told_as_linux_does(vendors: VendorBus, broker: Runtime) -> None:
    """A form error while receiving, at place 24 of the SJA1000, 3 receive errors, 9 transmit."""
    with Bus(ONE, "pcan") as bus:
        vendors.send([Frame(0, 2, ERROR, bytes((1, 0x20 | 24, 3, 9)))])
        message = bus.recv(10)
        assert message is not None
        assert message.is_error_frame
        assert message.arbitration_id == 0x80 | 0x08 | 0x200
        assert bytes(message.data) == bytes((0, 0, 0x02, 24, 0, 0, 9, 3))
        wait_until(lambda: bus.error_counters == (9, 3), "the state has them, too")


def test_the_wrong_names_and_rates_are_refused(vendors: VendorBus, broker: Runtime) -> None:
    with pytest.raises(CanInitializationError, match="no channel 'PCAN_USBBUS99'"):
        Bus("PCAN_USBBUS99", "pcan")
    with pytest.raises(CanInitializationError, match=r"333333 bit/s.*250000, 500000"):
        Bus(ONE, "pcan", bitrate=333_333)
    with pytest.raises(CanInitializationError, match=r"bitrate must be a number.*'500k'"):
        Bus(ONE, "pcan", bitrate="500k")
    assert not vendors.is_open("pcan", ONE)
    with Bus(ONE, "pcan", bitrate=500_000):
        assert state_of(broker, NAME).bitrate == 500_000


def test_a_device_id_opens_no_other_channel(vendors: VendorBus, broker: Runtime) -> None:
    with pytest.raises(CanInitializationError, match=f"device_id 1 is {ONE}"):
        Bus(TWO, "pcan", device_id=1)
    assert not vendors.is_open("pcan", ONE)
    with Bus(ONE, "pcan", device_id=1), Bus(ONE, "pcan"):
        assert len(status_of(broker).channels) == 1
    with Bus("left", "pcan", device_id=1) as bus, Bus("door", "pcan", device_id=1):
        bus.send(frame(0x100), timeout=10)
        wait_until(lambda: vendors.channel("pcan", ONE).sent == 1, "by the first one")
        assert [one.name for one in status_of(broker).channels if one.clients] == ["pcan.left"]


#: Opens a channel with python-can alone, and keeps it.
FOREIGN = """
import can
bus = can.Bus(arguments["channel"], interface=arguments["interface"], ignore_config=True,
              **arguments["parameters"])
say("open")
while hear() != "end":
    pass
bus.shutdown()
"""


def test_a_foreign_owner(vendors: VendorBus, broker: Runtime) -> None:
    parameters = {"bitrate": 250_000}
    with Program(FOREIGN, channel=ONE, interface="pcan", parameters=parameters) as owner:
        assert owner.said() == "open"
        with pytest.raises(CanInitializationError, match="initialization process has failed"):
            Bus(ONE, "pcan", bitrate=500_000)
        owner.tell("end")
        assert owner.end() == 0
    with Bus(ONE, "pcan", bitrate=500_000) as bus:
        bus.send(frame(0x100), timeout=10)


def test_a_killed_actor(vendors: VendorBus, broker: Runtime) -> None:
    vendors.channel("pcan", ONE).frame_us = 1000
    with Bus(ONE, "pcan") as bus, Bus(ONE, "pcan") as other:
        for number in range(2000):
            bus.send(numbered(0x100, number))
        os.kill(actor_of(broker, NAME), signal.SIGKILL)
        with pytest.raises(CanOperationError, match="not known to be sent"):
            bus.flush(20)
        assert bus.stats.sent + bus.stats.failed == 2000
        wait_until(lambda: bus.state is BusState.ACTIVE, "it is open again")
        bus.send(frame(0x7FF), timeout=10)
        wait_until(lambda: vendors.last() == 0x7FF, "new ones are sent")
        numbers = [int.from_bytes(bytes(seen.data), "big") for seen in vendors.seen()[:-1]]
        assert numbers == list(range(len(numbers))), "nothing twice, nothing from before"
        vendors.send([Frame(0, 0x456, 0, b"")])
        received = []
        while (message := other.recv(5)) is not None:
            received.append(message.arbitration_id)
            if received[-1] == 0x456:
                break
        assert received[-2:] == [0x7FF, 0x456]
        assert other.stats.restarts == 1


def test_time_stamps_since_boot_are_kept(vendors: VendorBus, broker: Runtime) -> None:
    """Frames that are read together were not on the bus together."""
    with Bus(ONE, "pcan") as bus:
        vendors.send([Frame(0, 0x7FF, 0, b"")])
        assert bus.recv(10) is not None
        actor = psutil.Process(actor_of(broker, NAME))
        actor.suspend()
        vendors.generate(500, 30)
        actor.resume()
        late, stamps = [], []
        for _ in range(30):
            message = bus.recv(10)
            assert message is not None
            stamps.append(message.timestamp)
            late.append(message.timestamp - int.from_bytes(message.data, "little") / 1e9)
        gaps = [later - earlier for earlier, later in itertools.pairwise(stamps)]
        assert sorted(gaps)[len(gaps) // 2] == pytest.approx(0.002, abs=0.0005)
        assert max(late) - min(late) < 0.01, "each by when it was on the bus"
