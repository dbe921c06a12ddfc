"""One exception of a signal handler, wherever it strikes: no hang, nothing left, and it is heard.

``make interruptions`` does it with real signals, some hundred times each.
"""

from __future__ import annotations

import functools
import random
import sys
import warnings
from collections.abc import Callable
from typing import Final

import pytest

from canbroker import Bus
from canbroker.transport.runtime import Runtime
from tests.interruptions import (
    OPERATIONS,
    Operation,
    assert_as_before,
    interrupt,
    resources_at_rest,
)
from tests.support.strikes import calls_in, struck

pytestmark = pytest.mark.long

#: Places in each operation at which an exception strikes, of the hundreds that there are.
PLACES: Final = 12


@pytest.mark.parametrize("name", OPERATIONS)
def test_nothing_is_left(runtime: Runtime, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    warnings.simplefilter("ignore", ResourceWarning)
    # pytest's keeps what a finalizer has raised, and with it the object.
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)
    make = OPERATIONS[name]
    with Bus("x", "virtual"):
        before = resources_at_rest()
        _uninterrupted(make())
        assert_as_before(before, name)
        places = _uninterrupted(make())
        heard = 0
        for place in _some_of(places):
            operation = make()
            hits: list[bool] = []
            interrupt(operation, functools.partial(_strike, place, hits))
            del operation
            assert_as_before(before, f"{name} at {place} of {places}")
            heard += hits[0]
        # In a finalizer Python swallows it.
        assert heard > PLACES // 2 or name == "collect"


def _some_of(places: int) -> list[int]:
    """The first and last ones, where most goes wrong, and others."""
    edges = {*range(6), *range(max(0, places - 6), places)}
    return sorted(edges | {random.randrange(places) for _ in range(PLACES)})


def _strike(place: int, hits: list[bool], job: Callable[[], None]) -> None:
    hits.append(struck(place, job))


def _uninterrupted(operation: Operation) -> int:
    """How many places there are."""
    counts: list[int] = []
    interrupt(operation, lambda job: counts.append(calls_in(functools.partial(job))))
    return counts[0]
