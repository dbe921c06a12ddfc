"""The benchmark starts its broker anew in each round."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from benchmarks import remote
from canbroker import Bus


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
