"""Accounts of remote clients: exact through cuts of their connections, kills of the gateway, and a
slow line that loses packets.

``tests/support/ledger.py`` says what must agree. A local receiver tells what was on the bus.
``CANBROKER_CUTS`` sets how often the connections are cut; ``make test-remote`` has it 30.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest

from canbroker import Bus
from canbroker.transport.runtime import Runtime
from tests.support.brokers import wait_until
from tests.support.ledger import Received, Receiver, Sender, Sent, end_traffic, reconcile
from tests.support.remote import Lab, lab
from tests.support.rough_link import RoughLink

pytestmark = pytest.mark.long

CUTS: Final = int(os.environ.get("CANBROKER_CUTS", "5"))
KILLS: Final = 1 + CUTS // 10

#: One cut of so many is silent: heartbeats have to find it, which takes seconds.
SILENT: Final = 15

WAITING: Final = 0x100  # identifier of the sender that waits for the driver to take each frame
HASTY: Final = 0x200  # and of the one that does not
LOCAL: Final = 0x300  # and of one on the bench
RATE: Final = 300  # frames/s of each of them

VIRTUAL: Final = ("x", "virtual")


@pytest.fixture
def bench(runtime: Runtime, tmp_path: Path) -> Iterator[Lab]:
    with lab(runtime, tmp_path) as opened:
        yield opened


class Traffic:
    """Two senders and a receiver behind the gateway; a sender and a receiver on the bench."""

    def __init__(self, stack: ExitStack, remote: str, rate: int = RATE, each: int = 1) -> None:
        self._bus = stack.enter_context(Bus(*VIRTUAL))
        self._local = stack.enter_context(Receiver(VIRTUAL))
        self._remote = stack.enter_context(Receiver(VIRTUAL, broker=remote))
        self.senders = [
            Sender(VIRTUAL, WAITING, rate, each=each, timeout=20, broker=remote),
            Sender(VIRTUAL, HASTY, rate, each=each, broker=remote),
            Sender(VIRTUAL, LOCAL, rate, each=each),
        ]
        for sender in self.senders:
            stack.enter_context(sender)
        for sender in self.senders:
            sender.start()

    def flows(self) -> None:
        """Waits until a frame of each remote sender is on the bus that was not sent before."""
        since = time.time()
        missing = {WAITING, HASTY}

        def all_have_come() -> bool:
            for message in self._bus.recv_batch(1000, 0.1):
                if message.timestamp > since:
                    missing.discard(message.arbitration_id)
            return not missing

        wait_until(all_have_come, "both senders send again", timeout=30)

    def end(self) -> tuple[list[Sent], Received, Received]:
        """The accounts of the senders, of the local receiver and of the remote one."""
        accounts = [sender.stop() for sender in self.senders]
        end_traffic(self._bus)
        return accounts, self._local.account(), self._remote.account()


def check(senders: list[Sent], local: Received, remote: Received) -> None:
    """Nothing is lost unseen: neither what was sent, nor what was on the bus."""
    for identifier, sender in zip((WAITING, HASTY, LOCAL), senders, strict=True):
        reconcile(sender, local.numbers[identifier])
        arrived = remote.numbers[identifier]
        assert arrived == sorted(set(arrived)), "in order, none twice"
        assert set(arrived) <= set(local.numbers[identifier])
    assert local.lost == 0
    assert remote.received + remote.lost == local.received


def strike(
    times: int, traffic: Traffic, one: Callable[[int], None], pause: Callable[[], float]
) -> None:
    """Does ``one(number)`` so many times, whenever the traffic flows, after a ``pause()``."""
    for number in range(times):
        traffic.flows()
        threading.Event().wait(pause())
        one(number)
    traffic.flows()


# Each time until traffic flows again, also after a silence that only heartbeats find.
@pytest.mark.timeout(240)
def test_connections_are_cut_at_random_moments(bench: Lab) -> None:
    chance = random.Random(19)

    def cut(number: int) -> None:
        silent = number % SILENT == 1
        assert link.swallow() if silent else link.cut()

    with ExitStack() as stack, RoughLink(bench.endpoint, delay_s=0.002) as link:
        traffic = Traffic(stack, bench.through(link))
        strike(CUTS, traffic, cut, lambda: chance.uniform(0.0, 0.5))
        senders, local, remote = traffic.end()
    check(senders, local, remote)
    assert remote.lost == 0, "the ring had it all"
    assert remote.repaired > 0


@pytest.mark.timeout(180)
def test_the_gateway_is_killed(bench: Lab) -> None:
    with ExitStack() as stack:
        traffic = Traffic(stack, bench.address)
        strike(KILLS, traffic, lambda _: bench.kill_gateway(), lambda: 0.5)
        check(*traffic.end())


@pytest.mark.timeout(180)
def test_a_slow_line_that_loses_packets(bench: Lab) -> None:
    """50 ms there and back, and one packet in a hundred is lost."""
    with ExitStack() as stack, RoughLink(bench.endpoint, delay_s=0.025, loss=0.01) as link:
        traffic = Traffic(stack, bench.through(link), rate=100, each=20)
        wait_until(lambda: link.lost > CUTS, "packets are lost", timeout=120)
        senders, local, remote = traffic.end()
    check(senders, local, remote)
    assert remote.lost == 0
    for sender in senders:
        assert not sender.refused | sender.unknown
        assert sender.failed == 0
