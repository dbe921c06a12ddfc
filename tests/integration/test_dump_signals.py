"""``canbroker dump`` with databases: the same text as that of ``cantools decode``."""

from __future__ import annotations

import io
import json
import random
import runpy
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from canbroker import Bus, Message
from canbroker.transport.runtime import Runtime
from tests.support.arxml import car_arxml
from tests.support.brokers import private_runtime, status_of, wait_until
from tests.support.commands import run
from tests.support.databases import CAR_DBC
from tests.support.ledger import serving
from tests.support.remote import lab

pytest.importorskip("cantools", reason="needs the extra signals; make ecosystem has it")

_CHANNEL: Final = """
[channels.can0]
interface = "virtual"
"""
_CONFIG: Final = f'{_CHANNEL}database = "car.dbc"\n'
_COUNT: Final = 200


def traffic() -> list[Message]:
    """Frames of which most decode."""
    chance = random.Random(1)
    lengths = {0x123: 8, 0x18FEF1FE: 3, 0x1F4: 3, 0x2BC: 2, 0x7FF: 4}
    messages = []
    for _ in range(_COUNT):
        identifier, length = chance.choice(list(lengths.items()))
        if chance.random() < 0.1:
            length = chance.randrange(9)
        data = bytes(chance.choice((0, 1, 4, chance.randrange(256))) for _ in range(length))
        messages.append(
            Message(arbitration_id=identifier, data=data, is_extended_id=identifier > 0x7FF)
        )
    return messages


@contextmanager
def dumping(runtime: Runtime, *options: str) -> Iterator[subprocess.Popen[str]]:
    """``canbroker dump`` of :func:`traffic`, which is sent when it has attached."""
    command = [sys.executable, "-m", "canbroker.cli", "dump", "-n", str(_COUNT), *options, "can0"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        wait_until(lambda: status_of(runtime).channels[0].clients, "it has attached", timeout=20)
        with Bus("can0") as bus:
            bus.send_batch(traffic())
        yield process


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("databases")
    (directory / "car.dbc").write_text(CAR_DBC)
    return directory


@pytest.fixture(scope="module")
def broker(directory: Path) -> Iterator[Runtime]:
    with private_runtime() as runtime, serving(runtime, directory, _CONFIG):
        yield runtime


@pytest.mark.parametrize("form", [(), ("-L",), ("-t", "a")])
def test_the_lines_are_those_of_cantools_decode(
    broker: Runtime, directory: Path, form: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    database = str(directory / "car.dbc")
    with dumping(broker, "--dbc", database, *form) as process:
        output, errors = process.communicate(timeout=30)
    lines = output.splitlines()
    assert len(lines) == _COUNT
    raw = "".join(f"{line.partition(' :: ')[0]}\n" for line in lines)
    with pytest.MonkeyPatch.context() as patch:  # in this process, which has imported it already
        patch.setattr("sys.argv", ["cantools", "decode", "--single-line", database])
        patch.setattr("sys.stdin", io.StringIO(raw))
        runpy.run_module("cantools", run_name="__main__")
    assert lines == capsys.readouterr().out.splitlines()
    assert "frames did not decode: " in errors


def test_the_channels_own_database_decodes(broker: Runtime) -> None:
    with dumping(broker, "--decode", "--json") as process:
        output, _ = process.communicate(timeout=30)
    rows = [json.loads(line) for line in output.splitlines()]
    assert {row["message"] for row in rows} == {"Motion", "Climate", "Probe", "Brake", None}
    brakes = [row for row in rows if row["message"] == "Brake" and "problem" not in row]
    assert brakes
    assert all(row["signals"].keys() == {"Pressure", "Speed"} for row in brakes)


def test_a_description_of_autosar_comes_from_the_broker(tmp_path: Path) -> None:
    (tmp_path / "car.arxml").write_text(car_arxml())
    config = f'{_CHANNEL}database = "car.arxml"\n'
    with (
        private_runtime() as runtime,
        serving(runtime, tmp_path, config),
        dumping(runtime, "--decode", "--json") as process,
    ):
        output, _ = process.communicate(timeout=30)
    rows = [row for row in map(json.loads, output.splitlines()) if row["message"] == "Motion"]
    assert rows
    decoded = [row["signals"].keys() for row in rows if "problem" not in row]
    assert {"Speed", "Gear", "Slope", "Torque"} in decoded


def test_status_names_the_databases(broker: Runtime) -> None:
    [channel] = json.loads(run("status", "--json").stdout)["channels"]
    [database] = channel["databases"]
    assert (database["path"], database["size"]) == ("car.dbc", len(CAR_DBC))
    assert len(database["sha256"]) == 64


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--dbc", "none.dbc"), "File 'none.dbc' does not exist"),
        (("--json", "-L"), "--json cannot be combined with -L or -t"),
        (("--json", "-t", "a"), "--json cannot be combined with -L or -t"),
    ],
)
def test_wrong_options_are_refused(broker: Runtime, options: tuple[str, ...], said: str) -> None:
    done = run("dump", *options, "can0")
    assert done.returncode != 0
    assert said in done.stderr


def test_a_channel_without_a_database_says_how_to_give_one(broker: Runtime) -> None:
    done = run("dump", "--decode", "-i", "virtual", "other")
    assert done.returncode == 1
    assert "channel 'other' has no database: give one with --dbc" in done.stderr


def test_a_broken_database_is_an_error_of_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "car.dbc").write_text("BO_ nonsense")
    config = tmp_path / "bench.toml"
    config.write_text(_CONFIG)
    with private_runtime():
        done = run("serve", "-c", str(config))
    assert done.returncode == 1
    assert f"{config}, line 4, channels.can0.database: car.dbc is not a database" in done.stderr


def test_a_client_on_another_host_needs_no_file(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "car.dbc").write_text(CAR_DBC)
    with private_runtime() as runtime, lab(runtime, tmp_path, config=_CONFIG) as opened:
        monkeypatch.setenv("CANBROKER_ADDRESS", opened.address)
        with dumping(runtime, "--decode") as process:
            output, _ = process.communicate(timeout=30)
    assert " :: Brake(Pressure: " in output
