"""What integration tests share: a place for a socket, and a ZeroMQ context."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import tests.plugins
from canbroker.transport.sockets import Context


@pytest.fixture
def endpoint() -> Iterator[str]:
    directory = tempfile.mkdtemp(prefix="cb-", dir="/tmp")
    yield f"ipc://{directory}/can0.rx"
    shutil.rmtree(directory)


@pytest.fixture
def context() -> Iterator[Context]:
    context = Context()
    yield context
    # With the sockets that a test has left open when it failed: term() would wait for them.
    context._context.destroy(linger=0)


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets processes that start from here on find our plugins, installed as plugins are."""
    installed = tmp_path / "nasty_can-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: nasty-can\nVersion: 1.0\n")
    (installed / "entry_points.txt").write_text(
        "[can.interface]\nnasty = nasty_can:NastyBus\nhanging = nasty_can:HangingBus\n"
        "stormy = stormy_can:StormyBus\n"
    )
    [directory] = tests.plugins.__path__
    monkeypatch.setenv("PYTHONPATH", f"{directory}{os.pathsep}{tmp_path}")
