"""A channel's slot in the broker: which clients it knows, by what they and the channel say."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import cast

import pytest

from canbroker.backends import parse_options
from canbroker.broker.channel_slot import ChannelSlot, Client
from canbroker.broker.flight_records import FlightRecords
from canbroker.configuration.broker_file import BrokerConfig
from canbroker.delivery.publisher import MAX_CLIENTS
from canbroker.delivery.state_feed import StateFeed
from canbroker.transport.runtime import Runtime
from canbroker.wire.stream import ClientInfo, StateEvent, encode_event


class Script:
    """What the channel says of its state, one event after the other."""

    def __init__(self) -> None:
        self.said: deque[bytes] = deque()

    def says(self, *client_ids: str) -> None:
        clients = [ClientInfo(client_id, "") for client_id in client_ids]
        self.said.append(encode_event(1, StateEvent(state="active", clients=clients)))

    def receive(self) -> bytes | None:
        return self.said.popleft() if self.said else None


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def slot(script: Script, tmp_path: Path) -> ChannelSlot:
    runtime = Runtime.at(f"ipc://{tmp_path}/broker")
    options = parse_options("virtual", {"channel": "x"})
    records = cast(FlightRecords, None)  # it is not told anything
    made = ChannelSlot(
        runtime.place,
        "x",
        "virtual",
        options,
        configured=True,
        broker=BrokerConfig(),
        records=records,
    )
    made.feed = cast(StateFeed, script)
    return made


def known(slot: ChannelSlot) -> set[str]:
    slot.follow_state(0)
    return set(slot.clients)


def test_a_client_is_known_until_the_channel_does_not_name_it(
    slot: ChannelSlot, script: Script
) -> None:
    slot.clients["a"] = Client(1, "p", 0)
    script.says()
    assert known(slot) == {"a"}  # it was not seen yet
    script.says("a", "b")
    assert known(slot) == {"a", "b"}
    script.says("b")
    assert known(slot) == {"b"}


def test_a_client_that_has_said_that_it_leaves_is_not_known_by_an_older_state(
    slot: ChannelSlot, script: Script
) -> None:
    slot.clients["a"] = Client(1, "p", 0)
    slot.forget("a")
    script.says("a", "b")
    assert known(slot) == {"b"}
    slot.forget("stranger")  # that it does not know may still come
    script.says("stranger")
    assert known(slot) == {"stranger"}


def test_what_it_keeps_of_those_that_have_left_is_bounded(
    slot: ChannelSlot, script: Script
) -> None:
    for number in range(2 * MAX_CLIENTS):
        slot.clients[f"c{number}"] = Client(1, "p", 0)
        slot.forget(f"c{number}")
    script.says("c0", f"c{2 * MAX_CLIENTS - 1}")
    assert known(slot) == {"c0"}
