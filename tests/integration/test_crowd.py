"""A hundred clients that attach, filter and leave in random order, at load.

``CANBROKER_CROWD_S=300`` lets them do so for five minutes. ``-s`` shows the figures.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import Final

import psutil
import pytest

from canbroker import Bus
from canbroker.transport.runtime import Runtime
from tests.support.brokers import status_of, wait_until
from tests.support.ledger import END, Sender, end_traffic
from tests.support.processes import DEADLINE_S, Program

pytestmark = pytest.mark.long

SECONDS: Final = float(os.environ.get("CANBROKER_CROWD_S", "8"))
PROGRAMS: Final = 4
CLIENTS: Final = 25  # of each program

RATE: Final = 2_000  # frames/s
IDENTIFIERS: Final = 8  # frame n has identifier n modulo 8

#: Each client follows one identifier at a time, of which it must receive every frame.
CLIENT = """
import random
chance = random.Random(arguments["seed"])
buses, account = {}, {"attached": 0, "filtered": 0, "received": 0, "wrong": [], "lost": 0}

class Client:
    def __init__(self):
        self.identifier = chance.randrange(arguments["identifiers"])
        self.bus = Bus("x", "virtual", can_filters=self.filters())
        self.last = None
        account["attached"] += 1

    def filters(self):
        return [{"can_id": self.identifier, "can_mask": 0x1FFFFFFF, "extended": False},
                {"can_id": arguments["end"], "can_mask": 0x1FFFFFFF, "extended": False}]

    def receive(self, timeout=0):
        for message in self.bus.recv_batch(1000, timeout):
            number = int.from_bytes(message.data, "big")
            if message.arbitration_id == arguments["end"]:
                return True
            account["received"] += 1
            expected = number if self.last is None else self.last + arguments["identifiers"]
            if (message.arbitration_id, number) != (self.identifier, expected):
                account["wrong"].append([str(message), self.identifier, self.last])
            self.last = number
        return False

    def change(self):
        self.receive()
        others = set(range(arguments["identifiers"])) - {self.identifier}
        self.identifier, self.last = chance.choice(sorted(others)), None
        self.bus.set_filters(self.filters())
        account["filtered"] += 1

    def leave(self):
        self.receive()
        account["lost"] += self.bus.stats.lost
        self.bus.shutdown()

clients = [Client() for _ in range(arguments["clients"])]
say("ready")
until = time.monotonic() + hear()
while time.monotonic() < until:
    for client in clients:
        client.receive()
    at = chance.randrange(len(clients))
    if chance.random() < 0.5:
        clients[at].change()
    else:
        clients[at].leave()
        clients[at] = Client()
say("done")
for client in clients:
    while not client.receive(10):
        pass
say([[client.identifier, client.last] for client in clients])
while clients:
    clients.pop(chance.randrange(len(clients))).leave()
say(account)
"""


def usage(runtime: Runtime) -> tuple[int, int, int, int]:
    """Descriptors of the broker and of the actor, routes and clients of the channel."""
    wait_until(lambda: status_of(runtime).channels[0].state is not None, "the broker has its state")
    status = status_of(runtime)
    (channel,) = status.channels
    assert channel.state is not None
    pids = status.pid, channel.pid
    broker, actor = (psutil.Process(pid).num_fds() for pid in pids)
    return broker, actor, channel.state.routes, len(channel.clients)


@pytest.mark.timeout(SECONDS + 60)
def test_a_hundred_clients_come_and_go(runtime: Runtime) -> None:
    bus = ("x", "virtual")
    with (
        Bus(*bus, can_filters=[{"can_id": 0x7FE, "can_mask": 0x7FF}]) as own,
        ExitStack() as stack,
    ):
        wait_until(lambda: usage(runtime)[2:] == (1, 1), "our own is known")
        before = usage(runtime)
        sender = Sender(bus, 0, RATE, each=IDENTIFIERS, identifiers=IDENTIFIERS)
        stack.enter_context(sender)
        programs = [
            Program(CLIENT, seed=seed, clients=CLIENTS, identifiers=IDENTIFIERS, end=END)
            for seed in range(PROGRAMS)
        ]
        for program in programs:
            stack.enter_context(program)
        assert [program.said() for program in programs] == ["ready"] * PROGRAMS
        sender.start()
        for program in programs:
            program.tell(SECONDS)
        assert [program.said(SECONDS + DEADLINE_S) for program in programs] == ["done"] * PROGRAMS
        clients, routes = usage(runtime)[3] - 2, usage(runtime)[2]
        sent = sender.stop()
        end_traffic(own)
        last = max(sent.handed)
        for program in programs:
            for identifier, number in program.said():
                assert number in {None, last - (last - identifier) % IDENTIFIERS}
        accounts = [program.said() for program in programs]
        wait_until(lambda: usage(runtime) == before, f"all is as it was: {before}")
    total = {
        name: sum(account[name] for account in accounts) for name in accounts[0] if name != "wrong"
    }
    print(f"{clients} clients, {routes} routes, {sent.rate:.0f} frames/s, {total}")  # noqa: T201
    assert [account["wrong"] for account in accounts] == [[]] * PROGRAMS
    assert total["lost"] == 0
    assert sent.confirmed == len(sent.handed)
    assert clients == PROGRAMS * CLIENTS
