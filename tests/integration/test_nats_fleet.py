"""Fifty benches on one server, and consumers of all of them that keep up."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = [pytest.mark.long, pytest.mark.timeout(120)]


@pytest.mark.parametrize("consumers", [1, 3])
def test_consumers_of_fifty_benches_keep_up(consumers: int) -> None:
    """Each frame is read once, and never has more waited than comes in two seconds."""
    load = ["--benches", "50", "--channels", "1", "--rate", "500", "--seconds", "6"]
    command = [sys.executable, "-m", "benchmarks.fleet", *load, "--consumers", str(consumers)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
