"""What a scan finds is what a configuration opens: over the doubles of PCAN and Kvaser."""

from __future__ import annotations

from pathlib import Path

import pytest

from canbroker import Bus, detect_available_configs
from canbroker.transport.runtime import Runtime
from tests.integration.test_cli import serving, succeed
from tests.support.brokers import wait_until
from tests.vendor.bus import VendorBus
from tests.vendor.channels import frame


@pytest.mark.parametrize(
    ("interface", "channel", "name"),
    [
        ("pcan", "PCAN_USBBUS1", "PCAN_USBBUS1"),
        ("pcan", "PCAN_USBBUS2", "PCAN_USBBUS2"),
        ("kvaser", "1", "kvaser1"),
    ],
)
def test_what_is_scanned_is_served(
    vendors: VendorBus, broker: Runtime, tmp_path: Path, interface: str, channel: str, name: str
) -> None:
    """Both channels of the PCAN adapter have one device number."""
    file = tmp_path / "bench.toml"
    file.write_text(succeed("scan", "-i", interface))
    with serving(tmp_path, "-c", str(file)):
        with Bus(name) as bus:
            bus.send(frame(0x123), timeout=10)
            wait_until(vendors.seen, "it is sent")
        with Bus(channel, interface) as bus:
            bus.send(frame(0x124), timeout=10)
    assert vendors.channel(interface, channel).sent == 2, "by the one that was named"
    assert len(vendors.seen()) == 2


def test_only_what_opening_needs(vendors: VendorBus) -> None:
    assert detect_available_configs(["pcan", "kvaser"]) == [
        {"interface": "kvaser", "channel": 0},
        {"interface": "kvaser", "channel": 1},
        {"interface": "pcan", "channel": "PCAN_USBBUS1"},
        {"interface": "pcan", "channel": "PCAN_USBBUS2"},
    ]
