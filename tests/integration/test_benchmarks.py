"""What the benchmark starts; it is never asked how fast anything is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from multiprocessing import resource_tracker
from pathlib import Path

import pytest

from benchmarks import modes, remote
from benchmarks.figures import Figures, Found, Key
from canbroker import Bus
from canbroker.system.portable import PORTABLE, PORTABLE_VARIABLE
from tests.support.systems import processors


@pytest.fixture(scope="module", autouse=True)
def tracker() -> None:
    """A process that Python starts with the first child, and that lasts as long as this one."""
    resource_tracker.ensure_running()


def test_a_gateway_for_each_round(monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory(prefix="cb-bench-") as folder:  # short: sockets are in it
        monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
        monkeypatch.setenv("XDG_CONFIG_HOME", "/nowhere")  # `serving` sets it: to be restored
        for _ in range(2):
            with (
                remote.serving(Path(folder)) as gateway,
                Bus("bench", "virtual") as local,
                Bus("bench", "virtual", broker=gateway.address) as bus,
            ):
                assert bus.channel_info == local.channel_info


def what_it_is(scale: float) -> Iterator[Found]:
    """[a process of each mode] Says which mode it has, when it is asked, and in which directory."""
    for turn in range(2):
        yield {
            Key("this process", "it", f"is portable, {turn}", ""): float(PORTABLE),
            Key("this process", "it", f"directory, {turn}", ""): float(
                Path(os.environ["XDG_RUNTIME_DIR"]).name
            ),
            Key("this process", "it", f"scale, {turn}", ""): scale,
        }


@pytest.mark.parametrize("backwards", [False, True])
def test_each_mode_has_a_process_and_a_directory(
    backwards: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PORTABLE_VARIABLE, "0")
    figures = Figures()
    modes.measure_round(figures, what_it_is, tmp_path, 0.5, backwards=backwards)
    for turn in range(2):
        for who, mode in (("it", 0), (f"it{modes.PORTABLE}", 1)):
            assert figures.values("this process", who, f"is portable, {turn}") == [mode]
            assert figures.values("this process", who, f"directory, {turn}") == [mode]
            assert figures.values("this process", who, f"scale, {turn}") == [0.5]
    assert next(iter(figures)).who.endswith(modes.PORTABLE) == backwards
    assert os.environ[PORTABLE_VARIABLE] == "0"


@pytest.mark.long
@processors
def test_both_modes_measure_everything_and_lose_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks", "--portable", "--rounds", "1"]
    command += ["--scale", "0.02", "--results", str(tmp_path)]
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    report = json.loads((tmp_path / "portable" / "latest.json").read_text())
    keys = [(each["load"], each["who"], each["what"], each["unit"]) for each in report["figures"]]
    portable = [
        (load, who.removesuffix(modes.PORTABLE), *rest)
        for load, who, *rest in keys
        if who.endswith(modes.PORTABLE)
    ]
    assert portable == [key for key in keys if not key[1].endswith(modes.PORTABLE)]
    assert len(report["targets"]) == 23
    assert all(each["values"] for each in report["targets"])
    assert [each["values"] for each in report["targets"] if each["what"] == "lost"] == 11 * [[0]]
