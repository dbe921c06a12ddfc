"""A bench and its client on two hosts with a network between them, which fails."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from canbroker import Bus
from canbroker.transport.runtime import Runtime
from tests.support.brokers import status_of, wait_until
from tests.support.ledger import Receiver, Sender, end_traffic, reconcile
from tests.support.namespaces import Host, two_hosts
from tests.support.remote import Lab, lab

pytestmark = pytest.mark.long

VIRTUAL: Final = ("x", "virtual")
IDENTIFIER: Final = 0x100
LOCAL: Final = 0x200


class Hosts(NamedTuple):
    client: Host
    bench: Host
    lab: Lab


@pytest.fixture(params=["ipv4", "ipv6"])
def hosts(request: pytest.FixtureRequest, runtime: Runtime, tmp_path: Path) -> Iterator[Hosts]:
    with two_hosts() as (client, bench):
        host = getattr(bench, request.param)
        with lab(runtime, tmp_path, *bench.command, host=host) as opened:
            yield Hosts(client, bench, opened)


def clients_of(runtime: Runtime) -> int:
    (channel,) = status_of(runtime).channels
    return len(channel.clients)


# Silence is found by heartbeats, which takes seconds.
@pytest.mark.timeout(120)
def test_a_cable_is_out_for_some_seconds(hosts: Hosts, runtime: Runtime) -> None:
    away = hosts.client.command
    remote = hosts.lab.address
    with (
        Bus(*VIRTUAL) as bus,
        Receiver(VIRTUAL) as local_receiver,
        Receiver(VIRTUAL, *away, broker=remote) as receiver,
        Sender(VIRTUAL, IDENTIFIER, 200, *away, timeout=20, broker=remote) as sender,
        Sender(VIRTUAL, LOCAL, 200) as local_sender,
    ):
        clients = clients_of(runtime)
        sender.start()
        local_sender.start()
        wait_until(lambda: IDENTIFIER in identifiers(bus), "frames come")
        hosts.bench.set_link("down")
        wait_until(lambda: clients_of(runtime) == clients - 2, "their sessions end", timeout=30)
        hosts.bench.set_link("up")
        wait_until(lambda: clients_of(runtime) == clients, "they are back", timeout=30)
        bus.recv_batch(100_000, 0)
        wait_until(lambda: IDENTIFIER in identifiers(bus), "frames come again", timeout=30)
        sent, local_sent = sender.stop(), local_sender.stop()
        end_traffic(bus)
        on_the_bus, received = local_receiver.account(), receiver.account()
    reconcile(sent, on_the_bus.numbers[IDENTIFIER])
    reconcile(local_sent, on_the_bus.numbers[LOCAL])
    assert on_the_bus.lost == 0
    for identifier, numbers in on_the_bus.numbers.items():
        arrived = received.numbers[identifier]
        assert arrived == sorted(set(arrived)), "in order, none twice"
        assert set(arrived) <= set(numbers)
    assert received.received + received.lost == on_the_bus.received


def identifiers(bus: Bus) -> set[int]:
    return {message.arbitration_id for message in bus.recv_batch(1000, 0.1)}
