"""Ten seconds of a soak, and that its judgement finds what is wrong. ``make soak`` takes longer."""

from __future__ import annotations

from pathlib import Path

import pytest

from canbroker.transport.runtime import Runtime
from tests.soak.accounts import faults_of, faults_of_sender
from tests.soak.run import Soak
from tests.soak.samples import GROWTH_MB, Sample, growth
from tests.support.ledger import Received, Sent

pytestmark = pytest.mark.long

SENT = Sent(
    sent={*range(100)},
    handed=set(),
    refused={100},
    unknown={101},
    confirmed=100,
    failed=1,
    rate=100,
)


def received(numbers: list[int], lost: int = 0, restarts: int = 0) -> Received:
    return Received({1: numbers}, [], len(numbers), lost, 0, restarts, 0)


@pytest.mark.timeout(120)
def test_ten_seconds(runtime: Runtime, tmp_path: Path) -> None:
    lines: list[str] = []
    held = Soak(runtime, tmp_path, lines.append).run(10, seed=6, report_s=1)
    print("\n".join(lines))  # noqa: T201 - pytest shows it when the test fails
    assert held
    assert len([line for line in lines if line.endswith("exact") and "receiver" in line]) == 6


@pytest.mark.parametrize(
    ("account", "found"),
    [
        (received([*range(100)]), ""),
        (received([*range(100), 101]), ""),  # of unknown fate
        (received([*range(90)], lost=10), ""),
        (received([*range(40), *range(60, 100)], restarts=1), ""),
        (received([*range(90)]), "100 sent, 90 received"),
        (received([*range(90)], lost=9), "90 received, 9 told"),
        (received([*range(10), *range(20, 40), *range(60, 100)], restarts=1), "2 stretches"),
        (received([0, *range(100)]), "twice"),
        (received([1, 0, *range(2, 100)]), "out of order"),
        (received([*range(101)]), "never sent"),
    ],
)
def test_a_receivers_account(account: Received, found: str) -> None:
    faults = "; ".join(faults_of(account, {1: SENT}))
    assert found in faults
    assert bool(faults) == bool(found)


def test_a_senders_account() -> None:
    assert faults_of_sender(SENT) == []
    untold = Sent({1, 2}, set(), set(), set(), confirmed=1, failed=0, rate=1)
    assert faults_of_sender(untold) == ["2 handed over, 0 refused, 1 told of"]


def test_memory_that_grows_in_the_second_half_only() -> None:
    def at(second: int) -> Sample:
        return Sample(second, "leaky", 1, 50.0, 20.0 + max(0, second - 50) * 0.2, 10, 3)

    assert growth(map(at, range(50))) == {"leaky": pytest.approx(0)}
    assert growth(map(at, range(100)))["leaky"] > GROWTH_MB
