"""Every test of the contract runs over every kind of backend, and checks the order of locks."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from canbroker.transport.runtime import Runtime
from tests.support.benches import BENCHES, Bench
from tests.support.lock_order import checked_locks
from tests.support.remote import own_broker


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "plain_locks: locks are not checked, as a signal handler takes them wherever it strikes",
    )


@pytest.fixture
def runtime() -> Iterator[Runtime]:
    """As :func:`own_broker`."""
    with own_broker() as runtime:
        yield runtime


@pytest.fixture(autouse=True)
def lock_order(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fails a test in which a thread of this process takes locks out of their order."""
    if request.node.get_closest_marker("plain_locks"):
        yield
        return
    with pytest.MonkeyPatch.context() as patch, checked_locks(patch):
        yield


@pytest.fixture(params=BENCHES)
def bench(request: pytest.FixtureRequest, lock_order: None) -> Iterator[Bench]:
    with BENCHES[request.param]() as opened:
        yield opened
