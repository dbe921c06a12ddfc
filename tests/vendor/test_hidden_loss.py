"""Devices whose drivers say nothing when they are gone: gs_usb, and a socketcand server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from canbroker import Bus, BusState, CanInitializationError, CanOperationError
from canbroker.model.frame import EXTENDED, Frame
from canbroker.transport.runtime import Runtime
from tests.support.brokers import status_of, wait_until
from tests.vendor.channels import actor_of, busy_share, frame, state_of
from tests.vendor.gs_usb import GsUsbAdapter, plugged_in
from tests.vendor.socketcand import Server, serving


@pytest.fixture
def adapter() -> Iterator[GsUsbAdapter]:
    with plugged_in() as one:
        yield one


@pytest.fixture
def usb(adapter: GsUsbAdapter, runtime: Runtime) -> Runtime:
    """A broker that ends before the adapter does."""
    return runtime


def until_error(bus: Bus) -> None:
    """Waits until the bus knows that its adapter is gone: 2 s, on a machine that is not busy."""
    wait_until(lambda: bus.state is BusState.ERROR, "the bus knows", timeout=5)


def test_gs_usb(adapter: GsUsbAdapter, usb: Runtime) -> None:
    with Bus(0, "gs_usb", bitrate=500_000) as bus, Bus(0, "gs_usb", index=0) as other:
        assert len(status_of(usb).channels) == 1, "index is what the channel is"
        bus.send(frame(0x123, b"\x01"), timeout=10)
        wait_until(lambda: adapter.seen() == [0x123], "it is sent")
        message = other.recv(10)
        assert message is not None
        assert message.arbitration_id == 0x123
        adapter.inject([Frame(0, 0x12345678, EXTENDED, b"\x02\x03")])
        for one in (bus, other):
            message = one.recv(10)
            assert message is not None
            assert (message.arbitration_id, bytes(message.data)) == (0x12345678, b"\x02\x03")
        for number in (2, 3):
            adapter.unplug()
            until_error(bus)
            assert "does not wait for it" in state_of(usb, "gs_usb.0").reason
            assert busy_share(actor_of(usb, "gs_usb.0"), 1) < 0.5
            adapter.plug()
            wait_until(lambda: bus.state is BusState.ACTIVE, "it is open again")
            bus.send(frame(0x200 + number), timeout=10)
            adapter.inject([Frame(0, 0x300, 0, b"")])
            message = other.recv(10)
            while message is not None and message.arbitration_id != 0x300:
                message = other.recv(10)
            assert message is not None
        wait_until(lambda: adapter.seen() == [0x123, 0x202, 0x203], "all are sent, none twice")
        assert bus.stats.interruptions == 2


def test_gs_usb_is_gone_as_soon_as_something_is_sent(adapter: GsUsbAdapter, usb: Runtime) -> None:
    with Bus(0, "gs_usb", bitrate=500_000) as bus:
        adapter.unplug()
        with pytest.raises(CanOperationError, match="gone"):
            bus.send(frame(0x123), timeout=10)
        wait_until(lambda: bus.state is BusState.ERROR, "the bus knows")


def test_fd_is_refused_where_the_driver_has_none(adapter: GsUsbAdapter, usb: Runtime) -> None:
    with pytest.raises(CanInitializationError, match="gs_usb 0: its driver has no CAN FD"):
        Bus(0, "gs_usb", bitrate=500_000, fd=True)
    with Bus(0, "gs_usb", bitrate=500_000) as bus:
        assert not state_of(usb, "gs_usb.0").fd
        bus.send(frame(0x123), timeout=10)


def test_a_socketcand_server_that_ends(runtime: Runtime) -> None:
    with serving() as server:
        port = server.port
        bus = Bus("vcan0", "socketcand", host="127.0.0.1", port=port)
        name = status_of(runtime).channels[0].name
        exchanged(bus, server, 0x123)
    with bus:
        until_error(bus)
        assert busy_share(actor_of(runtime, name), 1) < 0.5, "nor does it spin to connect again"
        with serving(port) as server:
            wait_until(lambda: bus.state is BusState.ACTIVE, "it is connected again")
            wait_until(server.is_open, "and receives")
            exchanged(bus, server, 0x456)
            assert bus.stats.interruptions == 1
            bus.shutdown()


def exchanged(bus: Bus, server: Server, identifier: int) -> None:
    """A frame goes each way."""
    bus.send(frame(identifier, b"\x01\x02"), timeout=10)
    wait_until(lambda: server.seen == [f"send {identifier:03X} 2 1 2"], "it is sent")
    server.inject([Frame(0, identifier + 1, 0, b"\x03")])
    message = bus.recv(10)
    assert message is not None
    assert (message.arbitration_id, bytes(message.data)) == (identifier + 1, b"\x03")


def test_no_socketcand_server(runtime: Runtime) -> None:
    with serving() as server:
        port = server.port
    with pytest.raises(CanInitializationError, match=f"127.0.0.1:{port}.*[Rr]efused"):
        Bus("vcan0", "socketcand", host="127.0.0.1", port=port)
