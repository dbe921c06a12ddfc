"""Tests on a real CAN stack: ``make test-socketcan``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from canbroker.backends import open_backend, parse_options
from canbroker.backends.base import Backend
from tests.support import vcan

Open = Callable[..., Backend]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """``pytest -k socketcan`` takes these tests too, as it does the contract's."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.extra_keyword_matches.add("socketcan")


@pytest.fixture
def open_interface() -> Iterator[Open]:
    """Opens the backend ``socketcan``; what it returned is closed in the end."""
    with ExitStack() as stack:

        def open_it(channel: str = vcan.VCAN, **parameters: object) -> Backend:
            options = parse_options("socketcan", {"channel": channel, **parameters})
            backend = open_backend("socketcan", options)
            stack.callback(backend.close)
            return backend

        yield open_it


@pytest.fixture
def node() -> Iterator[vcan.Node]:
    with vcan.Node() as opened:
        yield opened


@pytest.fixture
def own_interface() -> Iterator[str]:
    """A virtual interface that the test may take down and delete."""
    name = "cbtest0"
    vcan.ip("add", name, "type", "vcan")
    vcan.ip("set", name, "up")
    yield name
    if vcan.exists(name):
        vcan.ip("del", name)
