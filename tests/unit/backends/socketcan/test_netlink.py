"""What the kernel says of interfaces, from bytes laid out as its headers say."""

from __future__ import annotations

import struct
from contextlib import suppress

import pytest

from canbroker.backends import open_backend, parse_options
from canbroker.backends.socketcan.interface import command, mismatch
from canbroker.backends.socketcan.netlink import (
    NetDevice,
    find_link,
    list_links,
    parse_attributes,
    parse_link,
)
from canbroker.backends.socketcan.options import SocketcanOptions
from canbroker.errors import CanInitializationError
from canbroker.model.error_counters import ErrorCounters
from tests.support.systems import socketcan


def attribute(kind: int, value: bytes) -> bytes:
    length = 4 + len(value)
    return struct.pack("=HH", length, kind) + value + bytes(-length % 4)


def link_message(*attributes: bytes, hardware: int = 280, flags: int = 0x10041) -> bytes:
    return struct.pack("=BxHiII", 0, hardware, 7, flags, 0) + b"".join(attributes)


def bittiming(bitrate: int) -> bytes:
    return struct.pack("=8I", bitrate, 875, 125, 6, 7, 2, 1, 1)


CONTROLLER = link_message(
    attribute(3, b"can0\0"),
    attribute(4, struct.pack("=I", 72)),
    attribute(23, struct.pack("=24Q", 10, 20, *range(22))),
    attribute(56, b"1-2:1.0\0"),
    attribute(
        18 | 0x8000,  # nested
        attribute(1, b"can\0")
        + attribute(
            2,
            attribute(1, bittiming(500_000))
            + attribute(9, bittiming(2_000_000))
            + attribute(4, struct.pack("=I", 2))
            + attribute(5, struct.pack("=II", 0, 0x22))
            + attribute(6, struct.pack("=I", 100))
            + attribute(8, struct.pack("=HH", 260, 17)),
        ),
    ),
    flags=0x50041,
)

CAN0 = NetDevice(
    index=7,
    name="can0",
    kind="can",
    up=True,
    mtu=72,
    echoes=True,
    transmitted=20,
    bitrate=500_000,
    data_bitrate=2_000_000,
    fd=True,
    listen_only=True,
    state="passive",
    restart_ms=100,
    errors=ErrorCounters(260, 17),
    device="1-2:1.0",
)


def test_a_controller_is_described_whole() -> None:
    assert parse_link(CONTROLLER) == CAN0


def test_an_interface_without_controller_has_no_rates() -> None:
    info = attribute(1, b"vxcan\0") + attribute(2, attribute(1, bittiming(1)))
    message = link_message(attribute(3, b"vxcan0\0"), attribute(18, info), flags=0)
    assert parse_link(message) == NetDevice(index=7, name="vxcan0", kind="vxcan", up=False, mtu=0)


def test_an_ethernet_card_is_none() -> None:
    assert parse_link(link_message(attribute(3, b"eth0\0"), hardware=1)) is None


@pytest.mark.parametrize("end", range(1, len(CONTROLLER), 5))
def test_a_cut_message_is_refused_or_says_less(end: int) -> None:
    """Nothing but ``ValueError`` may come of it."""
    with suppress(ValueError):
        assert parse_link(CONTROLLER[:end]) != CAN0


def test_a_length_that_does_not_fit_is_refused() -> None:
    for length in (0, 3, 9, 0xFFFF):
        with pytest.raises(ValueError, match="attribute of"):
            parse_attributes(struct.pack("=HH", length, 1) + b"\0\0\0\0")


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (SocketcanOptions(channel="can0", bitrate=250_000), "can0 has bitrate 500000, not 250000"),
        (
            SocketcanOptions(channel="can0", fd=True, data_bitrate=5_000_000),
            "can0 has data_bitrate 2000000, not 5000000",
        ),
    ],
)
def test_what_differs_is_named_with_both_values_and_the_command(
    asked: SocketcanOptions, words: str
) -> None:
    found = mismatch(asked, CAN0)
    assert found is not None
    assert found.startswith(f"interface {words}")
    assert "ip link set can0 type can" in found


def test_the_command_for_fd_has_both_rates() -> None:
    """``ip`` refuses FD with one alone."""
    asked = SocketcanOptions(channel="can0", fd=True, data_bitrate=5_000_000)
    assert "type can bitrate 500000 dbitrate 5000000 fd on" in command(asked, CAN0)


def test_fd_listen_only_and_down_are_checked() -> None:
    classic = NetDevice(index=1, name="can0", kind="can", up=True, mtu=16, bitrate=500_000)
    virtual = NetDevice(index=1, name="vcan0", kind="vcan", up=True, mtu=16)
    down = NetDevice(index=1, name="vcan0", kind="vcan", up=False, mtu=72)
    fd = SocketcanOptions(channel="can0", fd=True)
    assert "fd on" in (mismatch(fd, classic) or "")
    assert "ip link set vcan0 mtu 72" in (mismatch(fd, virtual) or "")
    quiet = SocketcanOptions(channel="can0", listen_only=True)
    assert "listen-only on" in (mismatch(quiet, classic) or "")
    assert mismatch(quiet, virtual) is None
    assert (mismatch(quiet, down) or "").endswith("ip link set vcan0 up")


def test_what_agrees_is_fine_and_a_virtual_one_agrees_with_any_rate() -> None:
    asked = SocketcanOptions(channel="can0", bitrate=500_000, fd=True, data_bitrate=2_000_000)
    assert mismatch(asked, CAN0) is None
    assert mismatch(SocketcanOptions(channel="can0"), CAN0) is None
    virtual = NetDevice(index=1, name="vcan0", kind="vcan", up=True, mtu=72)
    assert mismatch(asked, virtual) is None


def test_the_command_says_all_that_was_asked_for() -> None:
    asked = SocketcanOptions(
        channel="can0", bitrate=500_000, fd=True, data_bitrate=2_000_000, listen_only=True
    )
    assert command(asked, CAN0) == (
        "ip link set can0 down && ip link set can0 type can bitrate 500000 dbitrate 2000000"
        " fd on listen-only on && ip link set can0 up"
    )


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"channel": ""}, "channel"),
        ({"channel": "a" * 128}, "channel"),
        ({"channel": "a/b"}, "channel"),
        ({"channel": "can 0"}, "channel"),
        ({"channel": "can0", "bitrate": 0}, "bitrate"),
        ({"channel": "can0", "data_bitrate": 1}, "data_bitrate needs fd"),
        ({"channel": "can0", "sample_point": 1}, "sample_point"),
    ],
)
def test_bad_options_are_named(parameters: dict[str, object], words: str) -> None:
    with pytest.raises(CanInitializationError, match=words):
        parse_options("socketcan", parameters)


@socketcan
def test_the_kernel_of_this_machine_answers() -> None:
    """Any Linux has the loopback interface, which is no CAN interface."""
    assert find_link("lo") is None
    assert find_link("nosuch0") is None
    assert find_link("a-name-that-only-an-altname-can-have") is None
    assert all(link.name and link.index for link in list_links())


@socketcan
def test_an_interface_that_is_not_there_is_named() -> None:
    options = parse_options("socketcan", {"channel": "nosuch0"})
    with pytest.raises(CanInitializationError, match="no CAN interface 'nosuch0'"):
        open_backend("socketcan", options)
