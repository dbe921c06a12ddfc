"""Every test of the contract runs over every kind of backend."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.benches import BENCHES, Bench


@pytest.fixture(params=BENCHES)
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    with BENCHES[request.param]() as opened:
        yield opened
