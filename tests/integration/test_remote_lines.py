"""What a long line costs: round trips, which are counted, and never deadlines that it misses."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from canbroker import Bus, Message
from canbroker.transport.runtime import Runtime
from tests.support.remote import Lab, lab
from tests.support.rough_link import RoughLink

#: Seconds there and back. Long, so that what the machine does is little beside it.
ROUND_TRIP_S: Final = 0.3

#: One second at 50 ms.
ROUND_TRIPS_TO_OPEN: Final = 20


@pytest.fixture
def bench(runtime: Runtime, tmp_path: Path) -> Iterator[Lab]:
    with lab(runtime, tmp_path) as opened:
        yield opened


def test_opening_a_bus_takes_few_round_trips(bench: Lab) -> None:
    with (
        Bus("x", "virtual"),
        RoughLink(bench.endpoint, delay_s=ROUND_TRIP_S / 2) as link,
    ):
        began = time.monotonic()
        with Bus("x", "virtual", broker=bench.through(link)) as bus:
            round_trips = (time.monotonic() - began) / ROUND_TRIP_S
            bus.send(Message(arbitration_id=0x123), timeout=20)
    assert round_trips <= ROUND_TRIPS_TO_OPEN
