"""A client on a host that booted at another time: its deadlines are those that it meant."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from canbroker import Bus, Message
from canbroker.transport.runtime import Runtime
from tests.support.namespaces import booted_earlier, skip_without_time
from tests.support.processes import Program
from tests.support.remote import Lab, lab

HOUR: Final = 3_600

#: A bus that takes some 10 ms for a frame.
SLOW: Final = 10_000

#: Of the client: an hour before the bench, and an hour after it.
BOOTED: Final = {"earlier": 3 * HOUR, "later": HOUR}

TIMED_SENDS = """
with Bus("slow", "virtual", broker=arguments["broker"], bitrate=arguments["bitrate"]) as bus:
    def message(identifier):
        return Message(arbitration_id=identifier, data=bytes(8), is_extended_id=False)

    for number in range(100):
        bus.send(message(number), timeout=None)
    try:
        bus.send(message(0x700), timeout=0.05)
        late = "sent"
    except canbroker.CanTimeoutError:
        late = "expired"
    bus.send(message(0x701), timeout=30)
    say([late, bus.stats.sent])
"""

TASK = """
with Bus("x", "virtual", broker=arguments["broker"]) as bus:
    message = Message(arbitration_id=0x10, data=bytes(1), is_extended_id=False)
    task = bus.send_periodic(message, 0.05, duration=1.0)
    say("started")
    hear()
"""

LEASE = """
def outcome(timeout):
    began = time.monotonic()
    try:
        with canbroker.lease("spare", timeout, broker=arguments["broker"]) as lease:
            return lease.channel
    except canbroker.CanTimeoutError:
        return round(time.monotonic() - began)

say(outcome(1))
hear()
say(outcome(20))
"""

HOLD = """
with canbroker.lease("spare", 5, broker=arguments["broker"]) as lease:
    say(lease.channel)
    hear()
"""

CONFIG: Final = '[channels.s1]\ninterface = "virtual"\npool = "spare"\n'


@pytest.fixture
def bench(runtime: Runtime, tmp_path: Path) -> Iterator[Lab]:
    """Booted two hours before this host."""
    skip_without_time()
    with lab(runtime, tmp_path, *booted_earlier(2 * HOUR), config=CONFIG) as opened:
        yield opened


@pytest.fixture(params=BOOTED)
def host(request: pytest.FixtureRequest) -> tuple[str, ...]:
    return booted_earlier(BOOTED[request.param])


def until(bus: Bus, identifier: int) -> list[Message]:
    """What comes until a frame with that identifier does."""
    seen: list[Message] = []
    while not seen or seen[-1].arbitration_id != identifier:
        message = bus.recv(20)
        assert message is not None, f"only {[str(message) for message in seen[-5:]]}"
        seen.append(message)
    return seen


def test_a_send_expires_when_its_program_meant_it_to(bench: Lab, host: tuple[str, ...]) -> None:
    with (
        Bus("slow", "virtual", broker=bench.address, bitrate=SLOW) as witness,
        Program(TIMED_SENDS, *host, broker=bench.address, bitrate=SLOW) as program,
    ):
        assert program.said() == ["expired", 101]
        seen = [message.arbitration_id for message in until(witness, 0x701)]
    assert seen == [*range(100), 0x701]


def test_a_task_begins_at_once_and_ends_after_its_duration(
    bench: Lab, host: tuple[str, ...]
) -> None:
    with (
        Bus("x", "virtual", broker=bench.address) as witness,
        Program(TASK, *host, broker=bench.address) as program,
    ):
        assert program.said() == "started"
        frames: list[Message] = []
        while (message := witness.recv(2)) is not None:
            frames.append(message)
        program.tell("end")
        program.end()
    assert len(frames) in {20, 21}
    gaps = [b.timestamp - a.timestamp for a, b in itertools.pairwise(frames)]
    assert sum(gaps) == pytest.approx(1.0, abs=0.2)


def test_a_lease_is_waited_for_as_long_as_was_meant(bench: Lab, host: tuple[str, ...]) -> None:
    with Program(HOLD, broker=bench.address) as first:
        assert first.said() == "s1"
        with Program(LEASE, *host, broker=bench.address) as program:
            assert program.said() in {1, 2}
            first.tell("give it back")
            program.tell("again")
            assert program.said() == "s1"
