"""Configuration from environment and files: what ``canbroker config show`` tells, and Bus does."""

from __future__ import annotations

import json
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import can
import pytest
import zmq

import canbroker
from canbroker import Bus, Message
from canbroker.bus.brokers import channel_names
from canbroker.errors import CanInitializationError, CanInterfaceNotImplementedError
from canbroker.system.lock import BrokerLock
from canbroker.transport.runtime import Runtime
from tests.support.brokers import status_of, wait_until
from tests.support.commands import run
from tests.support.simulated import Simulated
from tests.support.systems import natively

TIMING = can.BitTiming.from_sample_point(f_clock=8_000_000, bitrate=250_000, sample_point=80)
TIMING_FD = can.BitTimingFd.from_sample_point(
    f_clock=80_000_000,
    nom_bitrate=500_000,
    nom_sample_point=80,
    data_bitrate=2_000_000,
    data_sample_point=75,
)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user who has configured nothing."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(canbroker, "rc", {})
    for name in [name for name in os.environ if name.startswith("CAN_")]:
        monkeypatch.delenv(name)
    return tmp_path


def show(*arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = run("config", "show", *arguments)
    assert done.returncode == code, done.stderr
    return done


def shown(*arguments: str) -> dict[str, tuple[Any, str]]:
    """Value and origin by key, of what is shown for programs."""
    document = json.loads(show(*arguments, "--json").stdout)
    return {key: (found["value"], found["origin"]) for key, found in document["values"].items()}


# ------------------------------------------------------------------------------------ the command


@pytest.mark.usefixtures("runtime")
def test_each_value_is_shown_with_its_origin(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = home / ".canrc"
    file.write_text("[default]\ninterface = slcan\nbitrate = 1\n\n[bench]\nchannel = /dev/x\n")
    monkeypatch.setenv("CAN_BITRATE", "500000")
    monkeypatch.setenv("COLUMNS", "500")
    lines = show("--context", "bench").stdout.splitlines()
    rows = [line.split(maxsplit=2) for line in lines]
    for row in (
        ["interface", "slcan", f"{file}:2 [default]"],
        ["channel", "/dev/x", f"{file}:6 [bench]"],
        ["bitrate", "500000", "environment variable CAN_BITRATE"],
    ):
        assert row in [[word.strip() for word in words] for words in rows]
    assert shown("--context", "bench") == {
        "interface": ("slcan", f"{file}:2 [default]"),
        "channel": ("/dev/x", f"{file}:6 [bench]"),
        "bitrate": (500_000, "environment variable CAN_BITRATE"),
    }


def test_where_nothing_is_configured_it_says_what_was_looked_at(home: Path) -> None:
    done = show()
    assert done.stdout == ""
    assert done.stderr.startswith("no channel is configured; looked at: ")
    for place in ("canbroker.rc", "CAN_INTERFACE", f"{home}/.canrc (not there)"):
        assert place in done.stderr
    document = json.loads(show("--context", "X", "--json").stdout)
    assert document["values"] == {}
    assert "CAN_CONFIG_X" in document["looked_at"]


def test_what_no_bus_can_be_opened_with_is_shown_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CAN_BITRATE", "500000")
    assert shown() == {"bitrate": (500_000, "environment variable CAN_BITRATE")}
    assert "no channel is configured" in show().stderr


def test_a_broken_file_ends_it_with_one_line(home: Path) -> None:
    (home / ".can").write_text("[default]\nbitrate\n")
    done = show(code=1)
    assert done.stdout == ""
    assert done.stderr == (
        f"canbroker: config: {home}/.can, line 2: neither [SECTION] nor KEY = VALUE\n"
    )


@pytest.mark.usefixtures("runtime")
def test_a_channel_of_the_broker_is_shown_as_one(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / ".canrc").write_text("[default]\ninterface = slcan\nbitrate = 500000\n")
    monkeypatch.setenv("CAN_CHANNEL", "virtual.x")
    channel = ("virtual.x", "environment variable CAN_CHANNEL")
    assert shown().keys() == {"channel", "interface", "bitrate"}
    with Bus("x", "virtual", ignore_config=True):
        assert shown() == {"channel": channel}


# -------------------------------------------------------------------------------------------- Bus


@pytest.mark.usefixtures("runtime")
def test_a_bus_is_opened_with_what_is_configured(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / ".canrc").write_text("[bench]\ninterface = virtual\nreceive_own_messages = true\n")
    monkeypatch.setenv("CAN_CONFIG", json.dumps({"can_filters": [{"can_id": 2, "can_mask": 2}]}))
    canbroker.rc["channel"] = 7
    with Bus(config_context="bench") as bus:
        bus.send(Message(arbitration_id=1))
        bus.send(Message(arbitration_id=2))
        received = bus.recv(timeout=10)
        assert received is not None
        assert (received.arbitration_id, received.channel) == (2, 7)
    with Bus(None, None, "bench", receive_own_messages=False, can_filters=[]) as bus:
        bus.send(Message(arbitration_id=2))
        bus.flush()
        assert bus.recv(0) is None
    with pytest.raises(CanInterfaceNotImplementedError, match="ignore_config"):
        Bus(None, None, "bench", True)


@pytest.mark.usefixtures("runtime")
def test_a_name_of_the_brokers_is_meant_whatever_files_say(home: Path) -> None:
    file = home / ".canrc"
    file.write_text("[default]\ninterface = slcan\nbitrate = 500000\n")
    with Bus("x", "virtual", ignore_config=True) as first, Bus("virtual.x") as second:
        first.send(Message(arbitration_id=5))
        received = second.recv(timeout=10)
        assert received is not None
        assert received.arbitration_id == 5
        with pytest.raises(CanInitializationError, match=r"/nowhere/at/all"):
            Bus("/nowhere/at/all")


@pytest.mark.usefixtures("runtime")
def test_an_error_says_where_the_value_is_from(home: Path) -> None:
    file = home / "can.conf"
    file.write_text("[default]\nbitrate = fast\n")
    with pytest.raises(CanInitializationError) as raised:
        Bus("x", "virtual")
    assert str(raised.value).endswith(f"(bitrate is from {file}:2 [default])")
    file.write_text("[default]\nsurely_unknown = 1\n")
    with pytest.raises(CanInitializationError, match=r"no parameter 'surely_unknown'") as raised:
        Bus("x", "virtual")
    assert f"(surely_unknown is from {file}:2 [default])" in str(raised.value)


@pytest.mark.usefixtures("runtime")
def test_nothing_given_names_the_channels_of_the_broker(runtime: Runtime) -> None:
    with pytest.raises(CanInterfaceNotImplementedError, match="channels of the broker: none"):
        Bus()
    assert not runtime.directory.exists()
    with Bus("x", "virtual"):
        with pytest.raises(CanInterfaceNotImplementedError) as raised:
            Bus(broker=str(runtime.address))
        assert str(raised.value).endswith("; channels of the broker: 'virtual.x'")


@natively  # the broker here is a socket of the test, at the Unix socket's place
def test_a_broker_that_leaves_when_it_is_asked_has_no_channels(runtime: Runtime) -> None:
    runtime.prepare()
    lock = BrokerLock.take(runtime.lock_path)
    assert lock is not None
    with (
        ThreadPoolExecutor(1) as pool,
        zmq.Context() as context,
        context.socket(zmq.ROUTER) as leaving,
    ):
        leaving.linger = 0
        leaving.bind(str(runtime.address))
        names = pool.submit(channel_names, None)
        assert leaving.poll(10_000), "it was not asked"
        leaving.close()
        (runtime.directory / "broker").unlink()
        lock.release()
        assert names.result(timeout=10) == []


@pytest.mark.usefixtures("runtime")
def test_a_timing_is_as_good_as_its_bitrate() -> None:
    with Bus("x", "virtual", timing=TIMING), Bus("x", "virtual", bitrate="250000"):
        with pytest.raises(CanInitializationError, match="bitrate=250000, not bitrate=500000"):
            Bus("x", "virtual", bitrate=500_000)
        with Bus("virtual.x", timing=dict(TIMING)) as named:
            assert named.channel_info.startswith("virtual.x")


@pytest.mark.usefixtures("plugins")
@pytest.mark.parametrize("timing", [TIMING, TIMING_FD], ids=["classic", "fd"])
def test_a_driver_of_python_can_gets_the_timing_itself(
    runtime: Runtime, timing: can.BitTiming | can.BitTimingFd
) -> None:
    with Bus("0", "nasty", timing=timing) as bus, Bus("0", "nasty", timing=dict(timing)):
        assert repr(timing) in bus.channel_info
        with pytest.raises(CanInitializationError, match="f_clock"):
            Bus("0", "nasty", timing=dict(timing) | {"f_clock": 16_000_000})


def states_bitrate(runtime: Runtime) -> int | None:
    """Of the only channel; ``None`` also before its first state has arrived."""
    [channel] = status_of(runtime).channels
    return None if channel.state is None else channel.state.bitrate


def test_a_serial_adapter_is_set_to_the_registers(runtime: Runtime) -> None:
    with Simulated() as adapter, Bus(adapter.path, "slcan", timing=TIMING) as bus:
        [channel] = status_of(runtime).channels
        assert channel.parameters["btr"] == f"{TIMING.btr0:02X}{TIMING.btr1:02X}"
        wait_until(lambda: states_bitrate(runtime) == 250_000, "its state says the bitrate")
        with Bus(adapter.path, "slcan", timing=dict(TIMING)) as other:
            other.send(canbroker.Message(arbitration_id=5), timeout=10)
            received = bus.recv(10)
            assert received is not None
            assert received.arbitration_id == 5


@pytest.mark.usefixtures("runtime")
def test_what_python_cans_tools_pass_is_accepted() -> None:
    with Bus(interface="virtual", channel="x", single_handle=True, fd=True) as bus:
        assert bus.protocol is canbroker.CanProtocol.CAN_FD
