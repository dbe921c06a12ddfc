"""Anything may happen in any order: what clients see is what a small model of the guarantees says.

The model is the list of what the bus had, and for each client what of it must come, and what may.
More examples: ``CANBROKER_MODEL_EXAMPLES=200``. Behind a gateway: ``make test-remote``.
"""

from __future__ import annotations

import os
import signal
from contextlib import ExitStack
from typing import Any, Final, NamedTuple, TypeAlias

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    multiple,
    rule,
)

from canbroker import CanInitializationError
from tests.support.brokers import status_of, wait_until
from tests.support.model_client import ModelClient, RemoteClient
from tests.support.remote import own_broker

CHANNELS: Final = ("a", "b")
IDENTIFIERS: Final = (0x10, 0x11, 0x12)
PATIENCE_S: Final = 20.0

Client: TypeAlias = ModelClient | RemoteClient

channels = st.sampled_from(CHANNELS)
filters = st.sets(st.sampled_from(IDENTIFIERS)).map(sorted)


class Due(NamedTuple):
    """A frame that a client has not taken yet. ``must``: it certainly has to come."""

    number: int
    identifier: int
    must: bool
    epoch: int


class Channel:
    """A channel of the model. ``epoch``: times that its actor was killed."""

    def __init__(self) -> None:
        self.clients: list[Attached] = []
        self.epoch = 0

    @property
    def holders(self) -> list[Attached]:
        return [client for client in self.clients if client.exclusive]


class Attached:
    """A client of the model, and the real one.

    ``expected``: what it has not taken yet, in the order of the bus. ``found``: the last epoch of
    which it has certainly received something, and ``sent``: in which it has sent; it is not known
    to be back before that.
    """

    def __init__(
        self, client: Client, channel: Channel, chosen: list[int], own: bool, exclusive: bool
    ) -> None:
        self.client = client
        self.channel = channel
        self.chosen = chosen
        self.own = own
        self.exclusive = exclusive
        self.expected: list[Due] = []
        self.found = self.sent = channel.epoch
        channel.clients.append(self)

    def gets(self, identifier: int, sender: Attached) -> bool:
        return (self.own or sender is not self) and self.passes(identifier)

    def passes(self, identifier: int) -> bool:
        return not self.chosen or identifier in self.chosen

    def check(self) -> None:
        """Takes what there is, and compares."""
        wanted = [due.number for due in self.expected if due.must]
        taken = self.client.take(wanted, PATIENCE_S)
        assert len(set(taken)) == len(taken), "Unique"
        assert not set(wanted) - set(taken), "Delivered or reported"
        order = {due.number: place for place, due in enumerate(self.expected)}
        assert not set(taken) - order.keys(), "Filtered exactly, Own frames only on request"
        places = [order[number] for number in taken]
        assert places == sorted(places), "Ordered"
        if any(due.must and due.epoch == self.channel.epoch for due in self.expected):
            self.found = self.channel.epoch
        self.expected = []


class Guarantees(RuleBasedStateMachine):
    clients: Bundle[Attached] = Bundle("clients")

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.numbers = 0

    @initialize()
    def begin(self) -> None:
        self.runtime = self.stack.enter_context(own_broker())
        self.channels = {name: Channel() for name in CHANNELS}

    def teardown(self) -> None:
        with self.stack:
            for channel in getattr(self, "channels", {}).values():
                for attached in list(channel.clients):
                    self._leave(attached)

    # ---------------------------------------------------------------------------------- rules

    @rule(target=clients, name=channels, chosen=filters, own=st.booleans(), remote=st.booleans())
    def attach(self, name: str, chosen: list[int], own: bool, remote: bool) -> Any:
        return self._attach(name, chosen, own, exclusive=False, remote=remote)

    @rule(target=clients, name=channels)
    def attach_exclusively(self, name: str) -> Any:
        if not self.channels[name].holders:
            return self._attach(name, [], own=False, exclusive=True, remote=False)
        if all(holder.found == holder.channel.epoch for holder in self.channels[name].holders):
            with pytest.raises(CanInitializationError, match="exclusive"):
                ModelClient(name, [], own=False, exclusive=True)
        return multiple()

    @rule(attached=clients, identifier=st.sampled_from(IDENTIFIERS), count=st.integers(1, 300))
    def send(self, attached: Attached, identifier: int, count: int) -> None:
        if self._is_open(attached):
            self._send(attached, identifier, count, PATIENCE_S)

    @rule(attached=clients)
    def receive(self, attached: Attached) -> None:
        if self._is_open(attached):
            attached.check()

    @rule(attached=clients, chosen=filters)
    def choose(self, attached: Attached, chosen: list[int]) -> None:
        if self._is_open(attached):
            attached.client.choose(chosen)
            attached.chosen = chosen
            attached.expected = [
                due for due in attached.expected if attached.passes(due.identifier)
            ]

    @rule(name=channels)
    def kill_actor(self, name: str) -> None:
        pid = self._actor(name)
        if pid is None:
            return
        channel = self.channels[name]
        os.kill(pid, signal.SIGKILL)
        for attached in channel.clients:
            if attached.found < channel.epoch:  # what it was to get of an actor it never found
                attached.expected = [
                    due._replace(must=due.must and due.epoch < channel.epoch)
                    for due in attached.expected
                ]
        channel.epoch += 1
        wait_until(lambda: self._actor(name) not in {None, pid}, "it is replaced", PATIENCE_S)

    @rule(attached=clients, identifier=st.sampled_from(IDENTIFIERS))
    def stop_actor(self, attached: Attached, identifier: int) -> None:
        """What is sent meanwhile is late: it is sent, or it never is."""
        if not self._is_open(attached):
            return
        name = next(name for name, chan in self.channels.items() if chan is attached.channel)
        pid = self._actor(name)
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        try:
            self._send(attached, identifier, 5, 0.05, slow=True)
        finally:
            os.kill(pid, signal.SIGCONT)

    @rule(attached=clients, sender=clients, count=st.integers(1, 300))
    def stop_client(self, attached: Attached, sender: Attached, count: int) -> None:
        if not self._is_open(attached) or not self._is_open(sender) or sender is attached:
            return
        if isinstance(attached.client, RemoteClient):
            attached.client.program.signal(signal.SIGSTOP)
            try:
                self._send(sender, IDENTIFIERS[0], count, PATIENCE_S)
            finally:
                attached.client.program.signal(signal.SIGCONT)
            attached.check()

    @rule(attached=consumes(clients), killed=st.booleans())
    def detach(self, attached: Attached, killed: bool) -> None:
        if not self._is_open(attached):
            return
        if killed and isinstance(attached.client, RemoteClient):
            attached.client.program.kill()
            attached.channel.clients.remove(attached)
        else:
            self._leave(attached)

    # -------------------------------------------------------------------------------- helpers

    def _attach(
        self, name: str, chosen: list[int], own: bool, *, exclusive: bool, remote: bool
    ) -> Attached:
        kind = RemoteClient if remote else ModelClient
        client = kind(name, chosen, own, exclusive)
        return Attached(client, self.channels[name], chosen, own, exclusive)

    def _leave(self, attached: Attached) -> None:
        attached.channel.clients.remove(attached)
        attached.check()
        assert attached.client.lost() == 0
        attached.client.close()

    def _is_open(self, attached: Attached) -> bool:
        return attached in attached.channel.clients

    def _actor(self, name: str) -> int | None:
        """The process of a channel that has clients."""
        if not self.runtime.directory.exists() or not self.channels[name].clients:
            return None
        for channel in status_of(self.runtime).channels:
            if channel.name == f"virtual.{name}" and channel.phase == "running":
                return channel.pid
        return None

    def _send(
        self, attached: Attached, identifier: int, count: int, timeout: float, *, slow: bool = False
    ) -> None:
        channel = attached.channel
        disturbed = slow or attached.sent < channel.epoch
        numbers = list(range(self.numbers, self.numbers + count))
        self.numbers += count
        fate, why = attached.client.send(identifier, numbers, timeout)
        if not slow:  # else it may not have heard of the epoch yet
            attached.sent = channel.epoch
        locked = [holder for holder in channel.holders if holder is not attached]
        if locked and all(holder.found == channel.epoch for holder in locked) and not slow:
            assert fate != "sent", "Lease exclusive"
        elif not disturbed and not locked:
            assert fate == "sent", why
        if fate == "refused":
            return  # No stale transmit: whoever sees one of them fails
        for client in channel.clients:
            if client.gets(identifier, attached):
                client.expected += [
                    Due(number, identifier, fate == "sent", channel.epoch) for number in numbers
                ]


Guarantees.TestCase.settings = settings(
    max_examples=int(os.environ.get("CANBROKER_MODEL_EXAMPLES", "6")),
    stateful_step_count=25,
    deadline=None,
    phases=[Phase.generate],  # each example is a broker of its own: shrinking takes too long
    suppress_health_check=list(HealthCheck),
)
TestGuarantees = Guarantees.TestCase
