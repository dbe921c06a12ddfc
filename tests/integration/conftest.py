"""What integration tests share: a place for a socket, and a ZeroMQ context."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator

import pytest

from canbroker.fabric.sockets import Context


@pytest.fixture
def endpoint() -> Iterator[str]:
    directory = tempfile.mkdtemp(prefix="cb-", dir="/tmp")
    yield f"ipc://{directory}/can0.rx"
    shutil.rmtree(directory)


@pytest.fixture
def context() -> Iterator[Context]:
    context = Context()
    yield context
    context.close()
