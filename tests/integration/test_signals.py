"""Signals by name, over a broker: latest values, waiting, captures."""

from __future__ import annotations

import asyncio
import os
import signal
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from canbroker import (
    Bus,
    CanInitializationError,
    CanOperationError,
    CanTimeoutError,
    Message,
    Signals,
)
from canbroker.bus.samples import Sample
from canbroker.transport.runtime import Runtime
from tests.support.brokers import private_runtime, status_of, wait_until
from tests.support.databases import CAR_DBC
from tests.support.remote import lab

cantools: Any = pytest.importorskip("cantools", reason="needs the extra signals; make ecosystem")

_SOON_S: Final = 20.0


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("databases") / "car.dbc"
    path.write_text(CAR_DBC)
    return str(path)


@pytest.fixture(scope="module")
def broker() -> Iterator[Runtime]:
    with private_runtime() as runtime, Bus("car", "virtual"):
        yield runtime


@pytest.fixture
def bus(broker: Runtime) -> Iterator[Bus]:
    with Bus("car", "virtual") as bus:
        yield bus


def motion(speed: float, gear: int = 4) -> Message:
    return message(0x123, struct.pack("<HB5x", round(speed * 10), gear))


def message(identifier: int, data: bytes, **kind: Any) -> Message:
    return Message(arbitration_id=identifier, data=data, is_extended_id=identifier > 0x7FF, **kind)


def test_latest_values_by_name(bus: Bus, database: str) -> None:
    with bus.signals(database) as signals:
        assert signals.latest("Slope") is None
        bus.send_batch([motion(50), motion(87.5), message(700, b"\x07\x09")])
        assert signals.wait("Pressure", 7, _SOON_S).unit == "bar"
        latest = signals.latest("Motion.Speed")
        assert isinstance(latest, Sample)
        assert (latest.value, latest.unit, latest.label) == (87.5, "km/h", None)
        assert (latest.message, latest.name, latest.arbitration_id) == ("Motion", "Speed", 0x123)
        assert str(latest) == "87.5 km/h"
        assert {name: str(sample) for name, sample in signals.snapshot().items()} == {
            "Motion.Speed": "87.5 km/h",
            "Motion.Gear": "Drive",
            "Motion.Slope": "0.0 %",
            "Brake.Pressure": "7 bar",
            "Brake.Speed": "9 m/s",
        }


def test_only_messages_of_the_signals_reach_the_process(
    broker: Runtime, bus: Bus, database: str
) -> None:
    with bus.signals(database, ["Gear", "Voltage", "EngineSpeed", "Number"]):

        def filters() -> list[str]:
            [channel] = status_of(broker).channels
            return [client.filters for client in channel.clients]

        expected = "s123:7ff^,s1f4:7ff^,x00ea0000:03ff0000^,x00f00400:03ffff00^"
        wait_until(lambda: expected in filters(), "the channel filters")


def test_waiting_for_a_value(bus: Bus, database: str) -> None:
    with bus.signals(database, ["Motion.Speed", "Gear"]) as signals:
        timer = threading.Timer(0.05, lambda: bus.send_batch([motion(40, 0), motion(60, 4)]))
        timer.start()
        assert signals.wait("Motion.Speed", lambda speed: speed > 50, _SOON_S).value == 60
        timer.join()
        assert signals.wait("Gear", "Drive", _SOON_S).value == 4, "it has that value already"
        with pytest.raises(CanTimeoutError, match=r"Motion\.Gear was not as awaited within 0\.05"):
            signals.wait("Gear", "Park", timeout=0.05)
        with pytest.raises(CanTimeoutError, match=r"its last value is 60\.0 km/h"):
            signals.wait("Motion.Speed", 1, timeout=0)


def test_what_was_never_received_is_told(bus: Bus, database: str) -> None:
    with (
        bus.signals(database) as signals,
        pytest.raises(CanTimeoutError, match="within 0 s: it was not received"),
    ):
        signals.wait("Outside", 1, timeout=0)


def test_many_tasks_wait_at_a_time(bus: Bus, database: str) -> None:
    async def wait(signals: Signals) -> list[Sample]:
        waiting = [
            asyncio.create_task(signals.wait_for("Gear", "Drive", _SOON_S)),
            asyncio.create_task(signals.wait_for("Pressure", lambda p: p > 5, _SOON_S)),
            asyncio.create_task(signals.wait_for("Pressure", 3, _SOON_S)),
            asyncio.create_task(signals.wait_for("Outside", lambda _: True, timeout=0.1)),
        ]
        await asyncio.sleep(0)
        bus.send_batch([message(700, b"\x03\0"), message(700, b"\x06\0"), motion(1, 4)])
        with pytest.raises(CanTimeoutError):
            await waiting.pop()
        return await asyncio.gather(*waiting)

    with bus.signals(database) as signals:
        assert [sample.value for sample in asyncio.run(wait(signals))] == [4, 6, 3]


def test_threads_wait_at_a_time(bus: Bus, database: str) -> None:
    found: dict[str, float] = {}
    with bus.signals(database) as signals:

        def wait(name: str, value: float) -> None:
            found[name] = signals.wait(name, value, _SOON_S).value

        threads = [
            threading.Thread(target=wait, args=each)
            for each in (("Pressure", 9), ("Gear", 4), ("Slope", 0))
        ]
        for thread in threads:
            thread.start()
        bus.send_batch([message(700, b"\x09\0"), motion(1, 4)])
        for thread in threads:
            thread.join()
    assert found == {"Pressure": 9, "Gear": 4, "Slope": 0}


def test_a_capture_has_exactly_what_was_between_two_points(bus: Bus, database: str) -> None:
    with Bus("car", "virtual") as other, bus.signals(database) as signals:
        other.send(motion(10, 0))
        other.flush()
        with signals.capture() as seen:
            bus.send_batch([motion(20, 0), motion(21, 4), motion(22, 4), motion(23, 0)])
        other.send(motion(30))
        other.flush()
        signals.wait("Motion.Speed", 30, _SOON_S)
    assert seen.values("Motion.Speed") == [20, 21, 22, 23]
    assert seen.changes("Gear") == ["Park", "Drive", "Park"]
    assert [str(sample) for sample in seen["Gear"]] == ["Park", "Drive", "Drive", "Park"]
    assert "Slope" in seen
    assert "Outside" not in seen
    assert seen.lost == 0


def test_a_capture_waits_for_what_comes_after_its_beginning(bus: Bus, database: str) -> None:
    async def answered(signals: Signals) -> Sample:
        with signals.capture() as seen:
            bus.send(motion(2))
            await seen.wait_for("Motion.Speed", 2, _SOON_S)  # the task may have been faster
            sample = await seen.wait_for("Pressure", lambda _: True, _SOON_S)
            assert seen.values("Motion.Speed") == [2]
            return sample

    with bus.signals(database) as signals:
        bus.send(message(700, b"\x01\0"))
        signals.wait("Pressure", 1, _SOON_S)
        with signals.capture() as seen:
            with pytest.raises(CanTimeoutError):
                seen.wait("Pressure", 1, timeout=0)  # that was before
            bus.send(message(700, b"\x02\0"))
            assert seen.wait("Pressure", lambda _: True, _SOON_S).value == 2
        task = bus.send_periodic(message(700, b"\x05\0"), 0.02)
        assert asyncio.run(answered(signals)).value == 5
        task.stop()


def send_when_there(bus: Bus, speed: float) -> None:
    """Sends as soon as the channel has a process again."""
    deadline = time.monotonic() + _SOON_S
    while True:
        try:
            bus.send(motion(speed))
            bus.flush()
        except CanOperationError:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        else:
            return


def test_a_capture_outlives_the_channels_process(database: str) -> None:
    with (
        private_runtime() as runtime,
        Bus("car", "virtual") as bus,
        bus.signals(database, ["Motion.Speed"]) as signals,
    ):
        bus.send(motion(1))
        with signals.capture() as seen:
            send_when_there(bus, 2)
            [channel] = status_of(runtime).channels
            assert channel.pid is not None
            os.kill(channel.pid, signal.SIGKILL)
            wait_until(
                lambda: status_of(runtime).channels[0].pid not in {None, channel.pid},
                "another process runs",
            )
            send_when_there(bus, 3)
        send_when_there(bus, 4)
        signals.wait("Motion.Speed", 4, _SOON_S)
    assert seen.values("Motion.Speed") == [2, 3]
    assert seen.lost == 0


def test_a_capture_reports_a_channel_that_is_gone(bus: Bus, database: str) -> None:
    signals = bus.signals(database)
    capture = signals.capture()
    signals.close()
    with pytest.raises(CanOperationError, match="shut down"):
        capture.__enter__()
    with pytest.raises(CanOperationError, match="shut down"):
        signals.latest("Gear")


def test_multiplexed_fd_and_j1939_messages(bus: Bus, database: str) -> None:
    with bus.signals(database) as signals, signals.capture() as seen:
        bus.send(message(500, b"\x00\x0c\x00"))
        bus.send(message(500, b"\x01\x0a\x00"))
        bus.send(message(600, bytes([255] * 20), is_fd=True))
        bus.send(message(601, bytes(9) + b"\x07\xcc\xcc", is_fd=True))
        for source in (0x27, 0x03):
            bus.send(message(0x0CF00400 | source, struct.pack("<3xH3x", 8000)))
        bus.flush()
    assert (seen.values("Voltage"), seen.values("Current")) == ([12], [5.0])
    assert (seen.values("Counter"), seen.values("Tail")) == ([2**64 - 1], [7])
    senders = [(each.value, each.arbitration_id & 0xFF) for each in seen["EngineSpeed"]]
    assert senders == [(1000.0, 0x27), (1000.0, 0x03)]


def test_what_does_not_decode_is_counted(bus: Bus, database: str) -> None:
    with bus.signals(database) as signals:
        with signals.capture():
            bus.send_batch([message(0x123, b"\1"), message(500, b"\x07\0\0"), motion(1)])
            bus.send(message(0x123, b"\2"))
        assert signals.undecoded == {"Motion": 2, "Probe": 1}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Spede", r"no signal 'Spede' in car\.dbc; did you mean 'Speed'"),
        ("speed", r"no signal 'speed' in car\.dbc; did you mean 'Speed'"),
        ("Motion.Geer", r"did you mean 'Motion\.Gear'"),
        ("Xyzzy", r"no signal 'Xyzzy' in car\.dbc$"),
        ("Speed", r"several messages have a signal 'Speed': say 'Motion\.Speed' or 'Brake\.Speed'"),
    ],
)
def test_an_unknown_signal_is_told_with_its_neighbours(
    bus: Bus, database: str, name: str, said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        bus.signals(database, [name])
    with bus.signals(database) as signals:
        for look in (signals.latest, lambda name: signals.wait(name, 1)):
            with pytest.raises(ValueError, match=said):
                look(name)


def test_wrong_arguments_are_told(bus: Bus, database: str) -> None:
    with bus.signals(database, ["Gear"]) as signals:
        with pytest.raises(ValueError, match="'Slope' is not one of those that were asked for"):
            signals.latest("Slope")
        with pytest.raises(ValueError, match="has no value 'Reverse'; it has 'Park', 'Drive'"):
            signals.wait("Gear", "Reverse")
    with pytest.raises(ValueError, match="names must be a list of names, got 'Gear'"):
        bus.signals(database, "Gear")
    with pytest.raises(ValueError, match="database must be a path"):
        bus.signals(7)
    with pytest.raises(CanInitializationError, match="has no database: give one"):
        bus.signals()


def test_a_database_that_cantools_has_loaded(bus: Bus, database: str) -> None:
    loaded = cantools.database.load_file(database)
    with bus.signals(loaded, ["Gear"]) as signals, signals.capture() as seen:
        bus.send(motion(1, 4))
    assert seen.changes("Gear") == ["Drive"]


def test_the_same_on_another_host(tmp_path: Path) -> None:
    (tmp_path / "car.dbc").write_text(CAR_DBC)
    config = '[channels.can0]\ninterface = "virtual"\ndatabase = "car.dbc"\n'
    with (
        private_runtime() as runtime,
        lab(runtime, tmp_path, config=config) as opened,
        Bus("can0", broker=opened.address) as bus,
        bus.signals() as signals,
    ):
        with signals.capture() as seen:
            bus.send_batch([motion(20), motion(21)])
        assert seen.values("Motion.Speed") == [20, 21]
        assert asyncio.run(signals.wait_for("Gear", "Drive", _SOON_S)).value == 4
