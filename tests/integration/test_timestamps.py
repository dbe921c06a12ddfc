"""``preserve_timestamps`` of python-can's virtual bus: whose time a message has."""

from __future__ import annotations

import math
from collections.abc import Iterator

import can
import pytest

import canbroker
from canbroker import Bus, CanInitializationError, Message
from canbroker.transport.runtime import Runtime
from tests.support.simulated import Simulated

PATIENCE_S = 20.0

#: Some day of 2021, to the last bit that a float has for it.
THEN = 1639739471.5565314


@pytest.fixture
def adapter() -> Iterator[Simulated]:
    with Simulated() as simulated:
        yield simulated


def received(bus: Bus) -> Message:
    message = bus.recv(PATIENCE_S)
    assert message is not None
    return message


def test_each_bus_decides_for_what_it_sends(runtime: Runtime) -> None:
    with (
        Bus("x", "virtual", preserve_timestamps=True, receive_own_messages=True) as keeps,
        Bus("x", "virtual") as other,
    ):
        keeps.send_batch([Message(THEN, 1), Message(0.0, 2)], PATIENCE_S)
        other.send(Message(THEN, 3), PATIENCE_S)
        there = [received(other) for _ in range(2)]
        assert [(message.arbitration_id, message.timestamp) for message in there] == [
            (1, THEN),
            (2, 0.0),
        ]
        own = [received(keeps) for _ in range(3)]
        assert [message.timestamp for message in own[:2]] == [THEN, 0.0]
        assert own[2].timestamp > THEN + 1


def test_a_frame_of_another_time_is_part_of_the_recent_past(runtime: Runtime) -> None:
    with Bus("x", "virtual", preserve_timestamps=True) as bus:
        bus.send(Message(THEN, 1), PATIENCE_S)
        with Bus("x", "virtual", history=60) as late:
            assert received(late).timestamp == THEN


def test_periodic_messages_have_the_time_of_their_sending(runtime: Runtime) -> None:
    with (
        Bus("x", "virtual", preserve_timestamps=True) as bus,
        Bus("x", "virtual") as other,
    ):
        bus.send_periodic(Message(THEN, 1), 0.01)
        bus.send_periodic(Message(THEN, 2), 0.01, modifier_callback=lambda _: None)
        seen: dict[int, float] = {}
        while len(seen) < 2:
            message = received(other)
            seen[message.arbitration_id] = message.timestamp
        assert min(seen.values()) > THEN + 1


@pytest.mark.parametrize("timestamp", [-1.0, math.nan])
def test_no_time_is_refused_before_anything_is_sent(runtime: Runtime, timestamp: float) -> None:
    with (
        Bus("x", "virtual", preserve_timestamps=True) as bus,
        Bus("x", "virtual") as other,
    ):
        with pytest.raises(ValueError, match="timestamp must be 0 to"):
            bus.send_batch([Message(1.0, 1), Message(timestamp, 2)])
        bus.send(Message(3.0, 3), PATIENCE_S)
        assert received(other).arbitration_id == 3


def test_through_python_can(runtime: Runtime) -> None:
    with (
        can.Bus("x", interface="canbroker", adapter="virtual", preserve_timestamps=True) as bus,
        Bus("x", "virtual") as other,
    ):
        bus.send(can.Message(THEN, 1))
        assert received(other).timestamp == THEN


def test_a_real_channel_refuses_it(
    runtime: Runtime, adapter: Simulated, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Bus(adapter.path, "slcan", bitrate=500_000):
        words = "preserve_timestamps is for interface virtual; .* is a channel of slcan"
        with pytest.raises(CanInitializationError, match=words):
            Bus(adapter.path, "slcan", preserve_timestamps=True)
        monkeypatch.setattr(canbroker, "rc", {"preserve_timestamps": True})
        with pytest.raises(CanInitializationError, match=f"{words}.*from canbroker.rc"):
            Bus(adapter.path, "slcan")
