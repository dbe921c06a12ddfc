"""The verdict on a run of kills: it sees what is missing, foreign, cut off or out of order."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from tests.nats_kills import judge
from tests.support.ledger import Sent
from tests.support.nats_stream import Found


def sent(numbers: Iterable[int], unknown: Iterable[int] = ()) -> Sent:
    return Sent({*numbers}, set(), set(), {*unknown}, 0, 0, 0.0)


@pytest.mark.parametrize(
    ("numbers", "begins", "lost", "exact"),
    [
        ([0, 1, 2, 3, 4, 5], [0], 0, True),
        ([0, 1, 2, 5], [0], 2, True),  # counted
        ([0, 1, 2, 5], [0], 1, False),  # one is not
        ([0, 1, 2, 5], [0, 3], 0, True),  # cut off with their channel
        ([0, 1, 2, 2, 3, 4, 5], [0], 0, False),
        ([0, 1, 3, 2, 4, 5], [0], 0, False),
        ([0, 1, 2, 3, 4, 5, 6], [0], 0, True),  # its sender does not know
        ([0, 1, 2, 3, 4, 5, 7], [0], 0, False),  # nobody has sent it
    ],
)
def test_verdicts(numbers: list[int], begins: list[int], lost: int, exact: bool) -> None:
    found = Found(numbers=numbers, begins=begins, lost=lost)
    assert judge(sent(range(6), [6]), found).is_exact is exact
