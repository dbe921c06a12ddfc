"""What was on a channel is written to a file when its process crashes or its bus fails."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from canbroker import Bus, BusState, CanError, Message
from canbroker.broker.flight_records import MAX_RECORDS, FlightRecords
from canbroker.logs.formats import open_reader
from canbroker.logs.reader import LogReader
from canbroker.system import clock
from canbroker.system.entry_points import EntryPoint
from canbroker.transport.runtime import Runtime
from tests.support.brokers import status_of, wait_until
from tests.support.commands import run
from tests.support.ledger import serving
from tests.support.simulated import Simulated

VIRTUAL = ("x", "virtual")


def kill_actor(runtime: Runtime) -> None:
    (channel,) = status_of(runtime).channels
    assert channel.pid is not None
    os.kill(channel.pid, signal.SIGKILL)


def record_of(runtime: Runtime) -> Path:
    """The file of the one channel's record, when it is complete."""
    wait_until(lambda: status_of(runtime).channels[0].record, "there is a record", timeout=30)
    return Path(status_of(runtime).channels[0].record)


def numbers_in(path: Path) -> list[int]:
    with LogReader.open(path, strict=True) as log:
        return [int.from_bytes(bytes(entry.frame.data), "big") for entry in log]


def numbered(count: int) -> list[Message]:
    return [Message(arbitration_id=1, data=number.to_bytes(4, "big")) for number in range(count)]


def test_of_a_crash(runtime: Runtime) -> None:
    with Bus(*VIRTUAL) as bus:
        bus.send_batch(numbered(3000), 20)
        kill_actor(runtime)
        path = record_of(runtime)
        assert path.parent == runtime.directory / "records"
        assert path.name.startswith("virtual.x-20")
        assert path.name.endswith("Z-crash.log")
        assert numbers_in(path) == list(range(3000))
        shown = subprocess.run(
            EntryPoint.COMMAND.command("status"),
            capture_output=True,
            text=True,
            timeout=50,
            check=True,
        )
        assert f"virtual.x: recorded in {path}" in shown.stdout
    assert f"channel 'virtual.x': its last frames are in {path}" in runtime.log_path.read_text()


@pytest.mark.parametrize("kind", ["pcapng", "csv.gz"])
def test_in_the_format_of_the_configuration(runtime: Runtime, tmp_path: Path, kind: str) -> None:
    with (
        serving(runtime, tmp_path, f"[broker]\nrecord_format = '{kind}'\n"),
        Bus(*VIRTUAL) as bus,
    ):
        bus.send_batch(numbered(100), 20)
        kill_actor(runtime)
        path = record_of(runtime)
        assert path.name.endswith(f"Z-crash.{kind}")
        with open_reader(path) as reader:
            found = [int.from_bytes(bytes(record.frame.data), "big") for record in reader]
        assert found == list(range(100))


def test_a_format_that_is_unknown_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "bench.toml"
    file.write_text("[broker]\nrecord_format = 'dat'\n")
    result = run("serve", "-c", str(file))
    assert result.returncode == 1
    assert f"{file}, line 2, broker.record_format: format 'dat' is not one of log" in result.stderr


def test_of_an_adapter_that_is_gone_and_of_no_change_of_mode(
    runtime: Runtime, tmp_path: Path
) -> None:
    with Simulated(link=str(tmp_path / "tty CAN")) as adapter:
        channel = adapter.link
        with Bus(channel, "slcan", bitrate=500_000) as bus, Bus(channel, "slcan"):
            bus.send_batch(numbered(10), 20)
            bus.state = BusState.PASSIVE
            assert bus.state is BusState.PASSIVE
            bus.state = BusState.ACTIVE
            assert not runtime.records_path.exists()
            adapter.command("unplug")
            path = record_of(runtime)
            assert path.name.endswith("Z-error.log")
            assert set(path.name) <= set(f"{path.name}-._"), "no blanks, no slashes"
            assert numbers_in(path) == list(range(10))
            adapter.replug()


def test_a_record_that_cannot_be_written_harms_nobody(runtime: Runtime) -> None:
    runtime.prepare()
    runtime.records_path.write_text("not a directory")
    with Bus(*VIRTUAL) as bus, Bus(*VIRTUAL) as other:
        kill_actor(runtime)
        wait_until(
            lambda: "'virtual.x': no record of crash" in runtime.log_path.read_text(), "it is said"
        )
        wait_until(lambda: is_sent(bus), "it serves", timeout=20)
        assert other.recv(10) is not None
        assert status_of(runtime).channels[0].record == ""
    runtime.records_path.unlink()


def test_the_newest_are_kept_and_one_in_ten_seconds(runtime: Runtime) -> None:
    runtime.prepare()
    runtime.records_path.mkdir()
    for age in range(1, MAX_RECORDS + 5):
        old = runtime.records_path / f"old-{age:02}.log"
        old.touch()
        os.utime(old, (time.time() - age,) * 2)
    with Bus(*VIRTUAL):
        kill_actor(runtime)
        path = record_of(runtime)
        kept = {path.name, *(f"old-{age:02}.log" for age in range(1, MAX_RECORDS))}
        wait_until(lambda: names(runtime.records_path) == kept, "the oldest are removed")
        kill_actor(runtime)
        wait_until(lambda: is_restarted(runtime, 2), "it serves again")
        assert record_of(runtime) == path
        assert names(runtime.records_path) == kept


def is_sent(bus: Bus) -> bool:
    try:
        bus.send(Message(arbitration_id=1), 10)
    except CanError:
        return False
    return True


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def is_restarted(runtime: Runtime, times: int) -> bool:
    (channel,) = status_of(runtime).channels
    return channel.restarts == times and channel.phase == "running"


def test_a_channel_that_does_not_answer(runtime: Runtime, caplog: pytest.LogCaptureFixture) -> None:
    runtime.prepare()
    records = FlightRecords(runtime)
    records.begin("nowhere", "crash", clock.monotonic_ns())

    def is_told() -> bool:
        records.step()
        return bool(caplog.records)

    wait_until(is_told, "it has failed", timeout=30)
    assert "no record: canbroker: record: channel 'nowhere' does not answer" in caplog.text
    assert records.last("nowhere") == ""
    assert names(runtime.records_path) == set()
    records.begin("another", "crash", clock.monotonic_ns())
    records.close()  # ends the process that writes
    assert names(runtime.records_path) == set()


def test_what_a_killed_broker_has_left_is_removed(runtime: Runtime) -> None:
    runtime.prepare()
    runtime.records_path.mkdir()
    for name in ("a.part.log", "b.log"):
        (runtime.records_path / name).touch()
    FlightRecords(runtime).close()
    assert names(runtime.records_path) == {"b.log"}
