"""Every test of the contract runs over every kind of backend, and checks the order of locks."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.benches import BENCHES, Bench
from tests.support.lock_order import Order, checked_locks


@pytest.fixture(autouse=True)
def lock_order() -> Iterator[Order]:
    """Fails a test in which a thread of this process takes locks out of their order."""
    with pytest.MonkeyPatch.context() as patch, checked_locks(patch) as order:
        yield order


@pytest.fixture(params=BENCHES)
def bench(request: pytest.FixtureRequest, lock_order: Order) -> Iterator[Bench]:
    with BENCHES[request.param]() as opened:
        yield opened
