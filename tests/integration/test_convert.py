"""``canbroker convert`` as a process."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path
from typing import Final

import pytest

from canbroker.logs.formats import open_reader, open_writer
from canbroker.system.entry_points import EntryPoint
from tests.support.brokers import wait_until
from tests.support.recordings import examples

_COUNT: Final = 300_000


@pytest.fixture
def long_drive(tmp_path: Path) -> Path:
    path = tmp_path / "drive.pcapng"
    records = examples()[:1] * 1000
    with open_writer(path) as writer:
        for _ in range(_COUNT // 1000):
            writer.write(records)
    return path


def test_an_interrupted_conversion_leaves_a_valid_file(long_drive: Path, tmp_path: Path) -> None:
    target = tmp_path / "drive.log"
    part = tmp_path / "drive.log.part"
    with subprocess.Popen(
        EntryPoint.COMMAND.command("convert", str(long_drive), str(target)),
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        wait_until(lambda: part.exists() and part.stat().st_size > 0, "some is written")
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert said.endswith("canbroker: convert: interrupted\n")
    assert not part.exists()
    with open_reader(target) as reader:
        count = sum(map(len, reader.batches()))
        assert reader.end is None
    assert 0 < count < _COUNT
    assert f"{count:,} frames in {target}" in said
