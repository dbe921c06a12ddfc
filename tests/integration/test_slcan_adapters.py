"""The slcan backend on simulated adapters: what each kind of firmware needs, and one thing each."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from canbroker import Bus, BusState, CanInitializationError, Message
from canbroker.backends import Backend, Transmit, parse_options
from canbroker.model.frame import EXTENDED, HARDWARE_TIMESTAMP, REMOTE, Frame
from canbroker.transport.runtime import Runtime
from tests.support.benches import send_all
from tests.support.brokers import status_of, wait_until
from tests.support.processes import busy
from tests.support.simulated import Simulated, collect, opened_slcan, read_count
from tests.support.systems import processors

pytestmark = pytest.mark.long

MUTE = "acknowledges nothing"


def sent(backend: Backend, *frames: Frame) -> None:
    """Sends frames and waits until they are done."""
    transmits = [Transmit(frame, "me", None, 0) for frame in frames]
    happened: list[Frame | Transmit] = []
    for transmit in transmits:
        collect(backend, lambda _: backend.room("me"), happened)
        backend.send([transmit])
    collect(backend, lambda got: all(one in got for one in transmits), happened)
    assert [one.failure for one in transmits] == [None] * len(frames)


# ----------------------------------------------------------------------------------------- opening


@pytest.mark.parametrize(
    ("firmware", "dialect", "words"),
    [
        ("lawicel", "lawicel", ["V1013", "NA123"]),
        ("canable", "canable", ["8ca5d39 https://github.com/normaldotcom/canable-fw.git", MUTE]),
        ("canable2", "canable2", ["b158aa7 github.com/normaldotcom/canable2-fw.git", MUTE]),
        ("canable2-lawicel", "lawicel", ["VL2K4", "N0001"]),
        ("candapter", "candapter", ["V0102"]),
        ("arduino", "sketch", ["V1234", "N1234"]),
        ("esp32", "sketch", ["V1234", "N2208"]),
    ],
)
def test_each_is_recognised_however_long_it_boots(
    firmware: str, dialect: str, words: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    with Simulated(firmware=firmware) as adapter, opened_slcan(adapter.path) as backend:
        assert backend._adapter.dialect.name == dialect  # type: ignore[attr-defined]
        assert all(word in backend.info for word in words), backend.info
        assert (MUTE in caplog.text) == (MUTE in words)
        sent(backend, Frame(0, 0x123, 0, b"\xaa"), Frame(0, 0x1ABCDEF0, EXTENDED, b"\x01"))
        wait_until(lambda: adapter.accepted() == ["123#AA", "1ABCDEF0#01"], "they are sent")


@pytest.mark.parametrize("firmware", ["lawicel", "canable", "candapter", "esp32"])
def test_answers_that_come_late(firmware: str, caplog: pytest.LogCaptureFixture) -> None:
    """As over Bluetooth or a serial server; several questions are on their way."""
    with (
        Simulated(firmware=firmware, answer_delay=0.6) as adapter,
        opened_slcan(adapter.path, bitrate=125_000) as backend,
    ):
        assert "did not answer" not in caplog.text
        sent(backend, Frame(0, 0x123, 0, b"\xaa"))
        wait_until(lambda: adapter.accepted() == ["123#AA"], "it is sent")


def test_a_silent_lawicel_is_taken_at_its_word(caplog: pytest.LogCaptureFixture) -> None:
    with Simulated(silent=True) as adapter, opened_slcan(adapter.path) as backend:
        assert MUTE in backend.info
        sent(backend, Frame(0, 0x123, 0, b"\xaa"))


@pytest.mark.parametrize(
    ("firmware", "parameters", "words"),
    [
        ("lawicel", {"bitrate": 750_000}, ["S7 is 800 kbit/s", "btr=", "dialect="]),
        ("lawicel", {"bitrate": 83_300}, ["83300", "btr="]),
        ("canable", {"bitrate": 800_000}, ["S7 is 750 kbit/s", "dialect="]),
        ("canable", {"bitrate": 83_300}, ["S9"]),
        ("canable", {"bitrate": None, "btr": "001C"}, ["btr"]),
        ("canable", {"fd": True}, ["FD"]),
        ("canable2", {"bitrate": 750_000}, ["1.43 Mbit/s"]),
        ("canable2", {"bitrate": 10_000}, ["S0"]),
        ("arduino", {"bitrate": 800_000}, ["refused 'S7'"]),
        ("esp32", {"bitrate": 50_000}, ["refused 'S2'"]),
        ("candapter", {"bitrate": None}, ["refused 'O'"]),
        ("candapter", {"listen_only": True}, ["refused 'L'"]),
        ("arduino", {"listen_only": True}, ["refused 'L'"]),
        ("canable", {"listen_only": True}, ["O undoes M1", "dialect=canable"]),
        ("canable2", {"listen_only": True}, ["O undoes M1", "dialect=canable2"]),
    ],
)
def test_what_an_adapter_cannot_do_is_refused(
    firmware: str, parameters: dict[str, Any], words: list[str]
) -> None:
    boot = 0.0 if firmware in ("arduino", "esp32") else None
    with Simulated(firmware=firmware, boot=boot) as adapter:
        with (
            pytest.raises(CanInitializationError) as caught,
            opened_slcan(adapter.path, **parameters),
        ):
            pass
        assert all(word in str(caught.value) for word in words), caught.value
        assert adapter.stats()["state"] == "closed"


@pytest.mark.parametrize(
    ("firmware", "bitrate", "dialect"),
    [
        ("canable", 750_000, "auto"),
        ("canable2", 83_300, "auto"),
        ("lawicel", 800_000, "auto"),
        ("candapter", 800_000, "auto"),
        ("lawicel", 750_000, "canable"),  # whoever says so knows better
    ],
)
def test_rates_that_only_some_have(firmware: str, bitrate: int, dialect: str) -> None:
    with (
        Simulated(firmware=firmware) as adapter,
        opened_slcan(adapter.path, bitrate=bitrate, dialect=dialect) as backend,
    ):
        assert backend.bitrate == bitrate


def test_a_canable_receives_listen_only_if_its_user_insists(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with (
        Simulated(firmware="canable") as adapter,
        opened_slcan(adapter.path, listen_only=True, dialect="canable") as backend,
    ):
        assert "O undoes M1" in caplog.text
        adapter.command("receive 123#AA")
        read_count(backend, 1)
        assert backend.room("me") == 0


def test_parameters_of_python_can() -> None:
    given = {"ttyBaudrate": 57_600, "sleep_after_open": 0.5, "poll_interval": 0.01}
    with Simulated() as adapter:
        began = time.monotonic()
        with opened_slcan(adapter.path, **given) as backend:
            assert time.monotonic() - began >= 0.5
            assert isinstance(backend, Backend)
    options = parse_options("slcan", {"channel": "/dev/x", "ttyBaudrate": 57_600, "timeout": 1})
    assert options.written()["tty_baudrate"] == 57_600
    with pytest.raises(CanInitializationError, match="another name of 'tty_baudrate'"):
        parse_options("slcan", {"channel": "/dev/x", "ttyBaudrate": 1, "tty_baudrate": 2})
    with pytest.raises(CanInitializationError, match="sleep_after_open must be 0 to 10 s"):
        parse_options("slcan", {"channel": "/dev/x", "sleep_after_open": -1.0})


# --------------------------------------------------------------------------------------- receiving


@pytest.mark.parametrize("firmware", ["canable", "canable2", "arduino", "esp32"])
def test_remote_frames_with_old_bytes_behind_them(firmware: str) -> None:
    boot = 0.0 if firmware in ("arduino", "esp32") else None
    with (
        Simulated(firmware=firmware, boot=boot) as adapter,
        opened_slcan(adapter.path, timestamps="off") as backend,
    ):
        adapter.command("receive 100#A1B2C3D4E5F60708")
        for dlc in range(9):
            adapter.command(f"receive 123#R{dlc}")
        _, *remote = read_count(backend, 10)
        assert all(isinstance(frame, Frame) and frame.flags == REMOTE for frame in remote)
        assert [frame.data for frame in remote if isinstance(frame, Frame)] == [*range(9)]


def test_an_end_of_line_is_no_acknowledgement() -> None:
    """esp32-slcan ends frames in CR CR LF after its command ``l``; bytes come one by one."""
    with (
        Simulated(firmware="esp32", boot=0.0) as adapter,
        opened_slcan(adapter.path, timestamps="off") as backend,
    ):
        backend._port.write(b"l\r")  # type: ignore[attr-defined]
        collect(backend, lambda _: backend.counters(), [])  # its answer, BEL
        adapter.command("split on\nnoack 1\nreceive 123#AA\nreceive 124#")
        read_count(backend, 2)
        transmit = Transmit(Frame(0, 0x55, 0, b""), "me", None, 0)
        backend.send([transmit])
        adapter.command("receive 125#\nreceive 126#")
        assert transmit not in read_count(backend, 2)
        assert transmit in backend.abandon()


def test_a_counter_that_is_no_clock_is_dropped(caplog: pytest.LogCaptureFixture) -> None:
    with (
        Simulated(firmware="arduino", boot=0.0) as adapter,
        opened_slcan(adapter.path) as backend,
    ):
        errors: list[float] = []
        flags: list[int] = []

        def is_dropped() -> bool:
            adapter.command("receive 123#")
            for item in read_count(backend, 1):
                assert isinstance(item, Frame)
                errors.append(abs(time.time() - item.timestamp_ns / 1e9))
                flags.append(item.flags)
            return not flags[-1] & HARDWARE_TIMESTAMP

        wait_until(is_dropped, "its stamps are no longer used")
        assert flags[0] & HARDWARE_TIMESTAMP
        assert caplog.text.count("do not keep time") == 1
        assert max(errors) < 1, "none was far off before"


@pytest.mark.parametrize("timestamps", ["auto", "on", "off"])
def test_stamps_of_a_clock(timestamps: str) -> None:
    with Simulated() as adapter, opened_slcan(adapter.path, timestamps=timestamps) as backend:
        adapter.command("receive 123#")
        (frame,) = read_count(backend, 1)
        assert isinstance(frame, Frame)
        assert bool(frame.flags & HARDWARE_TIMESTAMP) == (timestamps != "off")


# ------------------------------------------------------------------------------ another program


@pytest.fixture
def link(tmp_path: Path) -> str:
    return str(tmp_path / "ttyCAN")


def close_channel(adapter: Simulated) -> None:
    """As another program does that opens the device: the lock of pyserial's is heeded by few."""
    with Path(adapter.path).open("wb", buffering=0) as port:
        port.write(b"C\r")


def test_a_channel_that_something_else_closed_is_opened_again(runtime: Runtime, link: str) -> None:
    with (
        Simulated(link=link) as adapter,
        Bus(link, "slcan", bitrate=500_000) as bus,
    ):
        close_channel(adapter)
        wait_until(lambda: bus.state is BusState.ERROR, "it is found out", timeout=20)
        [channel] = status_of(runtime).channels
        assert channel.state is not None
        assert "closed its channel" in channel.state.reason
        wait_until(lambda: bus.state is BusState.ACTIVE, "it is open again")
        adapter.command("receive 123#AA")
        assert bus.recv(10) is not None
        assert bus.stats.interruptions == 1


@pytest.mark.parametrize("firmware", ["canable", "canable2"])
def test_a_channel_that_cannot_say_that_it_is_closed_is_opened_now_and_then(
    runtime: Runtime, link: str, firmware: str
) -> None:
    with (
        Simulated(link=link, firmware=firmware) as adapter,
        Bus(link, "slcan", bitrate=500_000) as bus,
    ):
        close_channel(adapter)
        wait_until(lambda: adapter.stats()["opened"] == 2, "it is open again", timeout=20)
        adapter.command("receive 123#AA")
        assert bus.recv(10) is not None
        bus.send(Message(arbitration_id=1, data=b"\x01", is_extended_id=False), timeout=10)


def test_a_quiet_adapter_that_hangs_is_found_out(runtime: Runtime, link: str) -> None:
    with (
        Simulated(link=link) as adapter,
        Bus(link, "slcan", bitrate=500_000) as bus,
    ):
        adapter.command("hang 6")
        wait_until(lambda: bus.state is BusState.ERROR, "nobody has sent anything", timeout=20)
        wait_until(lambda: bus.state is BusState.ACTIVE, "it is open again", timeout=30)


def test_checkups_disturb_nobody(runtime: Runtime, link: str) -> None:
    """Frames that are sent while the adapter is asked are neither lost nor refused."""
    with (
        Simulated(link=link) as adapter,
        Bus(link, "slcan", bitrate=500_000) as bus,
    ):
        count = 0
        until = time.monotonic() + 5
        while time.monotonic() < until:
            bus.send(Message(arbitration_id=1, is_extended_id=False), timeout=10)
            count += 1
            time.sleep(0.05 if count % 2 else 2.0)
        assert bus.stats.failed == 0
        assert adapter.stats()["accepted"] == count
        assert adapter.stats()["refused"] == 0


# ------------------------------------------------------------------- adapters that say nothing


@processors
def test_a_simulated_adapter_that_gets_no_processor_loses_nothing() -> None:
    """It has room for 27 frames, and loses others without a word."""
    processor = min(os.sched_getaffinity(0))
    frames = [Frame(0, number, 0, bytes(8)) for number in range(300)]
    with (
        Simulated(firmware="canable") as adapter,
        opened_slcan(adapter.path, bitrate=250_000) as backend,
        busy(processor, 3),
    ):
        process = psutil.Process(adapter.process.pid)
        process.cpu_affinity([processor])
        process.nice(19)
        with ThreadPoolExecutor(1) as pool:
            transmits = [Transmit(frame, "me", None, 0) for frame in frames]
            sending = pool.submit(send_all, backend, transmits)
            collect(backend, lambda got: len(got) >= len(frames), [])
            sending.result()
        wait_until(lambda: len(adapter.accepted()) == len(frames), "all are on the bus", 30)
