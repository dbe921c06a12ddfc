"""The owners of tasks, and which of them are gone, with the time passed in."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from canbroker.actors.scheduler.journal import Journal
from canbroker.actors.scheduler.owners import Owners
from canbroker.system import processes
from canbroker.system.clock import SECOND
from canbroker.transport.ownership import RETURN_NS
from canbroker.transport.waiter import Waiter

NOW: Final = 1_000 * SECOND
OURS: Final = os.getpid()


class Clients:
    """Owners with a journal, and the clients that are connected to the scheduler."""

    def __init__(self, journal: Journal) -> None:
        self.connected: set[bytes] = set()
        self.waiter = Waiter()
        self.owners = Owners(self.waiter, journal, self.connected.__contains__)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal(tmp_path / "journal")
    yield journal
    journal.close()


@pytest.fixture
def clients(journal: Journal) -> Iterator[Clients]:
    clients = Clients(journal)
    yield clients
    clients.owners.close()


def test_a_client_is_known_by_its_id(clients: Clients) -> None:
    owners = clients.owners
    alice = owners.of("alice", OURS, NOW)
    assert owners.of("alice", OURS, NOW + 1) is alice
    assert owners.find("alice") is alice
    assert owners.find("bob") is None
    owners.remove(alice)
    assert len(owners) == 0


def test_a_client_that_was_not_seen_has_time_to_come_back(clients: Clients) -> None:
    alice = clients.owners.of("alice", OURS, NOW)
    assert not clients.owners.is_gone(alice, NOW + RETURN_NS - 1)
    assert clients.owners.is_gone(alice, NOW + RETURN_NS), "it is not connected"


def test_a_connected_client_is_asked_for_again(clients: Clients) -> None:
    clients.connected.add(b"alice")
    alice = clients.owners.of("alice", OURS, NOW)
    assert not clients.owners.is_gone(alice, NOW + RETURN_NS)
    clients.connected.clear()
    assert not clients.owners.is_gone(alice, NOW + 2 * RETURN_NS - 1), "it is asked seldom"
    assert clients.owners.is_gone(alice, NOW + 2 * RETURN_NS)


@pytest.mark.skipif(sys.platform != "linux", reason="needs descriptors of processes")
def test_the_end_of_a_process_ends_its_client_at_once(clients: Clients) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        alice = clients.owners.of("alice", process.pid, NOW)
        bob = clients.owners.of("bob", OURS, NOW)
        assert clients.owners.ended(clients.waiter.wait(0), NOW) == []
        process.kill()
        assert clients.owners.ended(clients.waiter.wait(10 * SECOND), NOW) == [alice]
    assert alice.ended
    assert clients.owners.is_gone(alice, NOW)
    assert not clients.owners.is_gone(bob, NOW)
    assert clients.waiter.wait(0) == set(), "it is not watched any more"


def test_a_process_that_has_ended_before_is_ended(clients: Clients) -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    alice = clients.owners.of("alice", process.pid, NOW)
    assert alice.ended
    assert clients.owners.is_gone(alice, NOW)
    assert processes.end_of(process.pid) is None


def test_a_client_without_a_process_is_there_while_it_is_connected(clients: Clients) -> None:
    clients.connected.add(b"alice")
    alice = clients.owners.of("alice", None, NOW)
    assert alice.started is None
    assert clients.owners.ended(set(), NOW + RETURN_NS) == []
    assert not clients.owners.is_gone(alice, NOW + RETURN_NS)
    clients.connected.clear()
    assert clients.owners.is_gone(alice, NOW + 2 * RETURN_NS)


def test_a_successor_knows_where_clients_were_seen(clients: Clients, journal: Journal) -> None:
    for client_id in ("alice", "bob", "carol"):
        clients.owners.of(client_id, OURS, NOW)
    clients.owners.see("x", 1, ["alice", "bob", "stranger"])
    clients.owners.see("x", 2, ["bob"])
    clients.owners.see("y", 5, ["carol"])
    successor = Owners(Waiter(), journal, lambda _: False)
    for client_id in ("alice", "bob", "carol"):
        successor.of(client_id, OURS, NOW)
    assert successor.last_seen("x") == (2, {"bob"})
    assert successor.last_seen("y") == (5, {"carol"})
    assert successor.last_seen("z") == (0, set())
    successor.close()
    clients.owners.remove(clients.owners.of("bob", OURS, NOW))
    assert journal.seen("bob") == {}


def test_another_journal_gets_what_was_seen(clients: Clients, tmp_path: Path) -> None:
    clients.owners.of("alice", OURS, NOW)
    clients.owners.see("x", 3, ["alice"])
    fresh = Journal(tmp_path / "fresh")
    clients.owners.use(fresh)
    assert fresh.seen("alice") == {"x": 3}
    fresh.close()
