"""Where a device's relative path leads."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from canbroker.backends.configured import check
from canbroker.configuration.broker_file import load
from canbroker.configuration.devices import resolved


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    link = tmp_path / "adapter"
    link.symlink_to("/dev/null")  # a character device, as a serial port is
    monkeypatch.chdir(tmp_path)
    return link


@pytest.mark.parametrize("written", ["adapter", "./adapter", "../{}/adapter"])
def test_a_relative_path_is_from_the_working_directory(device: Path, written: str) -> None:
    path = Path(resolved("slcan", written.format(device.parent.name)))
    assert path.is_absolute()
    assert path.samefile(device)


def test_a_driver_of_python_cans_gets_a_path_only_for_a_device(device: Path) -> None:
    (device.parent / "0").touch()
    assert resolved("vector", "0") == "0"
    assert resolved("seeedstudio", "adapter") == str(device)
    assert resolved("gs_usb", "canable/gs_usb 1") == "canable/gs_usb 1"


@pytest.mark.parametrize(
    ("interface", "channel"),
    [
        (None, "adapter"),
        ("virtual", "adapter"),
        ("socketcan", "adapter"),
        ("slcan", "socket://localhost:5"),
        ("slcan", "/dev/ttyACM0"),
        ("slcan", "COM3"),
        ("slcan", ""),
        ("slcan", "x" * 5000),
        ("slcan", "a\0b"),
    ],
)
def test_other_channels_stay_as_they_are(device: Path, interface: str | None, channel: str) -> None:
    assert resolved(interface, channel) == channel


def test_a_missing_device_is_named_by_its_whole_path(device: Path) -> None:
    assert resolved("slcan", "./missing") == str(device.with_name("missing"))


def test_a_working_directory_that_was_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert resolved("slcan", "./x") == "./x"
    os.chdir(tmp_path)


def test_in_a_file_a_relative_path_is_from_where_that_is(
    device: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = device.with_name("bench.toml")
    file.write_text('[channels.a]\ninterface = "slcan"\nchannel = "./adapter"\nbitrate = 500000\n')
    monkeypatch.chdir("/")
    _, options = check(load(file))["a"]
    assert options.channel == str(device)
    monkeypatch.chdir(device.parent)
    _, options = check(load("bench.toml"))["a"]
    assert options.channel == str(device)
