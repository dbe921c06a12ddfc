"""What can be found: serial adapters, interfaces of the kernel, what python-can's drivers say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from serial.tools import list_ports
from serial.tools.list_ports_common import ListPortInfo

from canbroker import detect_available_configs
from canbroker.backends.configured import check
from canbroker.cli.scan import configuration
from canbroker.configuration import broker_file, detection
from tests.integration.test_cli import succeed
from tests.support.commands import run


def port(device: str, vendor: int | None, product: int | None) -> ListPortInfo:
    info = ListPortInfo(device)
    info.vid, info.pid = vendor, product
    return info


def test_serial_adapters_are_known_by_their_usb_number(monkeypatch: pytest.MonkeyPatch) -> None:
    ports = [
        port("/dev/ttyACM1", 0x16D0, 0x117E),
        port("/dev/ttyACM0", 0x04D8, 0x000A),
        port("/dev/ttyUSB0", 0x0403, 0x6001),  # any FTDI cable
        port("/dev/ttyS0", None, None),
    ]
    monkeypatch.setattr(list_ports, "comports", lambda: ports)
    assert detect_available_configs("slcan") == [
        {"interface": "slcan", "channel": "/dev/ttyACM0"},
        {"interface": "slcan", "channel": "/dev/ttyACM1"},
    ]


def test_interfaces_of_the_kernel_are_known_by_their_kind(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, kind in {"lo": 772, "eth0": 1, "vcan0": 280, "can0": 280}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "type").write_text(f"{kind}\n")
    (tmp_path / "bonding_masters").write_text("")
    monkeypatch.setattr(detection, "NETWORK", tmp_path)
    assert detect_available_configs(["socketcan"]) == [
        {"interface": "socketcan", "channel": "can0"},
        {"interface": "socketcan", "channel": "vcan0"},
    ]


def test_what_drivers_find_is_what_a_configuration_takes(plugins: None) -> None:
    found = [
        {"interface": "nasty", "channel": "dev/a b", "fd": True},
        {"interface": "nasty", "channel": 0, "serial": "A-1"},
    ]
    assert json.loads(succeed("scan", "--json", "-i", "nasty")) == found
    printed = succeed("scan", "-i", "nasty")
    channels = check(broker_file.parse(printed, "bench.toml"))
    assert {name: options.written() for name, (_, options) in channels.items()} == {
        "a-b": {"channel": "dev/a b", "fd": True},
        "nasty0": {"channel": "0", "serial": "A-1"},
    }


def test_a_driver_that_hangs_is_left_out(plugins: None, caplog: pytest.LogCaptureFixture) -> None:
    found = detect_available_configs(["nasty", "hanging"])
    assert {entry["interface"] for entry in found} == {"nasty"}
    assert "not all of python-can's drivers" in caplog.text


def test_nothing_found() -> None:
    assert detect_available_configs([]) == []
    done = run("scan", "-i", "virtual")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "no adapters found\n")
    assert json.loads(succeed("scan", "--json", "-i", "virtual")) == []


def test_channels_get_different_names() -> None:
    entry = {"interface": "slcan", "channel": "/dev/ttyACM0"}
    lines = configuration([entry, entry, entry, {"interface": "vector", "channel": "//"}])
    assert [line for line in lines if line.startswith("[")] == [
        "[channels.ttyACM0]",
        "[channels.ttyACM0-2]",
        "[channels.ttyACM0-3]",
        "[channels.vector]",
    ]
