"""A serial adapter that misbehaves, seen by the clients of the broker that owns it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from canbroker import Bus, BusState, CanInitializationError, CanOperationError, Message
from canbroker.runtime import Runtime
from tests.conftest import status_of, wait_until
from tests.simulated import Simulated


@pytest.fixture
def link(tmp_path: Path) -> str:
    """The adapter's path, which stays the same when it is plugged in again."""
    return str(tmp_path / "ttyCAN")


@pytest.fixture
def adapter(link: str) -> Iterator[Simulated]:
    with Simulated(link=link) as simulated:
        yield simulated


def frame(identifier: int, data: bytes = b"") -> Message:
    return Message(arbitration_id=identifier, data=data, is_extended_id=False)


def test_unplugged_and_plugged_in_again(runtime: Runtime, adapter: Simulated, link: str) -> None:
    with Bus(link, "slcan", bitrate=500_000) as bus:
        bus.send(frame(0x100), timeout=10)
        adapter.command("unplug")
        wait_until(lambda: bus.state is BusState.ERROR, "the bus knows")
        with pytest.raises(CanOperationError, match=r"101#.*gone"):
            bus.send(frame(0x101))
        adapter.replug()
        wait_until(lambda: bus.state is BusState.ACTIVE, "the adapter is open again")
        adapter.command("inject t2221AB")
        message = bus.recv(10)
        assert message is not None
        assert message.arbitration_id == 0x222
        bus.send(frame(0x102), timeout=10)
        assert adapter.accepted() == ["100#", "102#"], "nothing stale was sent"
        assert bus.stats.restarts == 0, "the actor lives on"


def test_what_was_on_its_way_when_it_was_unplugged_is_reported(
    runtime: Runtime, adapter: Simulated, link: str
) -> None:
    with Bus(link, "slcan", bitrate=10_000) as bus:
        for number in range(300):
            bus.send(frame(number, bytes(8)))
        adapter.command("unplug")
        with pytest.raises(CanOperationError, match=r"was not sent: .*gone.*and \d+ more"):
            bus.flush(20)
        stats = bus.stats
        assert stats.sent + stats.failed == 300
        assert stats.failed > 0


def test_a_hung_adapter_is_given_up_and_opened_again(
    runtime: Runtime, adapter: Simulated, link: str
) -> None:
    with Bus(link, "slcan", bitrate=500_000) as bus:
        adapter.command("hang 3")
        bus.send(frame(0x100))
        with pytest.raises(CanOperationError, match=r"100#.*did not acknowledge"):
            bus.flush(20)
        wait_until(lambda: bus.state is BusState.ACTIVE, "it is open again", timeout=30)
        bus.send(frame(0x101), timeout=10)


def test_listen_only_by_state_and_back(runtime: Runtime, adapter: Simulated, link: str) -> None:
    with (
        Bus(link, "slcan", bitrate=500_000) as bus,
        Bus(link, "slcan") as other,
    ):
        bus.state = BusState.PASSIVE
        assert bus.state is BusState.PASSIVE
        wait_until(lambda: other.state is BusState.PASSIVE, "the others know")
        with pytest.raises(CanOperationError, match="listen-only"):
            other.send(frame(0x100), timeout=10)
        adapter.command("inject t2220")
        message = other.recv(10)
        assert message is not None
        bus.state = BusState.ACTIVE
        bus.send(frame(0x100), timeout=10)
        assert adapter.accepted() == ["100#"]


def test_noise_on_the_line_is_counted_and_nothing_else(
    runtime: Runtime, adapter: Simulated, link: str
) -> None:
    with Bus(link, "slcan", bitrate=500_000) as bus:
        for line in ("t12G0", "t1239", "x", "t123211", "t8000", "\xe9\xe9", "t1231AA"):
            adapter.command(f"inject {line}")
        message = bus.recv(10)
        assert message is not None
        assert bytes(message.data) == b"\xaa"
        wait_until(lambda: counted(runtime) >= 6, "each is counted")


def counted(runtime: Runtime) -> int:
    (channel,) = status_of(runtime).channels
    return sum(channel.state.counters.values()) if channel.state else 0


def test_a_channel_without_an_adapter_is_refused_by_name(runtime: Runtime, tmp_path: Path) -> None:
    not_an_adapter = tmp_path / "file"
    not_an_adapter.write_text("no adapter")
    with pytest.raises(CanInitializationError, match=str(not_an_adapter)):
        Bus(str(not_an_adapter), "slcan", bitrate=500_000)


def test_conflicting_parameters_of_a_second_opener(
    runtime: Runtime, adapter: Simulated, link: str
) -> None:
    with Bus(link, "slcan", bitrate=500_000):
        with pytest.raises(CanInitializationError, match=r"bitrate=500000.*bitrate=125000"):
            Bus(link, "slcan", bitrate=125_000)
        with pytest.raises(CanInitializationError, match=r"listen_only=False.*listen_only=True"):
            Bus(link, "slcan", listen_only=True)
