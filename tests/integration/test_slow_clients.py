"""Clients that receive too slowly, or not at all, disturb nobody and lose nothing but frames."""

from __future__ import annotations

import logging
import os
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from canbroker import Bus, CanLossError, CanOperationError, Message
from canbroker.system.entry_points import EntryPoint
from canbroker.transport.runtime import Runtime
from tests.support.brokers import status_of, wait_until
from tests.support.processes import Program

pytestmark = pytest.mark.long

OWNER = """
bus = Bus("x", "virtual")
task = bus.send_periodic(Message(arbitration_id=0x7, is_extended_id=False), 0.05)
say("ready")
hear()
bus.shutdown()
"""


@pytest.mark.timeout(90)
def test_who_never_receives_stays_and_keeps_its_tasks(runtime: Runtime) -> None:
    """Its queue fills, its connection stands still, and nothing may take that for its end."""
    with Bus("x", "virtual") as bus, Program(OWNER) as owner:
        assert owner.said() == "ready"
        batch = [Message(arbitration_id=0x100, data=bytes(64), is_fd=True)] * 64
        began = time.monotonic()
        # ZeroMQ's own heartbeats, which nobody answers on such a connection, would end it by then.
        while time.monotonic() - began < 21:
            bus.send_batch(batch, timeout=10)
            if time.monotonic() - began > 5:
                time.sleep(0.05)
        (channel,) = status_of(runtime).channels
        assert len(channel.clients) == 2
        bus.set_filters([{"can_id": 0x7, "can_mask": 0x7FF}])
        assert bus.recv(10) is not None
        wait_until(lambda: bus.recv(1) is not None, "the task goes on")
        owner.tell("end")
        assert owner.end() == 0


BURST = 40_000


def numbered(begin: int, end: int) -> list[Message]:
    return [Message(arbitration_id=n % 10, data=n.to_bytes(4, "big")) for n in range(begin, end)]


def burst(bus: Bus, begin: int = 0, end: int = BURST) -> None:
    """Sends so that each few frames are a batch of their own, many more than a queue holds."""
    for at in range(begin, end, 8):
        bus.send_batch(numbered(at, min(at + 8, end)), timeout=30)


def taken(bus: Bus, count: int) -> list[int]:
    """The numbers of ``count`` messages, less if no more come."""
    numbers: list[int] = []
    deadline = time.monotonic() + 30
    while len(numbers) < count and time.monotonic() < deadline:
        messages = bus.recv_batch(5000, 1)
        if not messages:
            break
        numbers += [int.from_bytes(message.data, "big") for message in messages]
    return numbers


@pytest.fixture
def sender(runtime: Runtime) -> Iterator[Bus]:
    with Bus("x", "virtual", can_filters=[{"can_id": 0x7FF, "can_mask": 0x7FF}]) as bus:
        yield bus


@pytest.fixture
def small_ring(runtime: Runtime, tmp_path: Path) -> Iterator[None]:
    """The broker keeps a MiB of frames a channel."""
    config = tmp_path / "small.toml"
    config.write_text("[broker]\nring_mb = 1\n")
    command = EntryPoint.COMMAND.command("serve", "-c", str(config))
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        assert any(b"ready at" in line for line in process.stderr)
        yield
        process.terminate()


def test_what_was_missed_is_received_in_its_place(
    runtime: Runtime, sender: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", "canbroker.bus"), Bus("x", "virtual") as bus:
        burst(sender)
        assert taken(bus, BURST) == list(range(BURST))
        stats = bus.stats
        # A busy machine asks twice.
        wait_until(lambda: served(runtime)[0] >= stats.repaired, "the channel says so")
        assert served(runtime)[1] == 0
        bus.shutdown()
    assert stats.lost == 0
    assert stats.repaired > 0  # else the burst was none
    assert stats.received == BURST
    said = f"bus on channel 'x': of {BURST} frames 0 were lost and {stats.repaired} repaired"
    assert [said in record.message for record in told(caplog)] == [True]
    assert told(caplog)[0].levelname == "INFO"


def served(runtime: Runtime) -> tuple[int, int]:
    """Frames that the channel's clients were given once more, and those that were gone."""
    (channel,) = status_of(runtime).channels
    clients = channel.clients
    return sum(client.replayed for client in clients), sum(client.gone for client in clients)


def told(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """What buses have said of their losses when they were shut down."""
    return [record for record in caplog.records if " were lost and " in record.message]


def test_other_filters_do_not_lose_what_was_missed_before(sender: Bus) -> None:
    with Bus("x", "virtual") as bus:
        burst(sender)
        first = bus.recv(10)
        bus.set_filters([{"can_id": 3, "can_mask": 0x1FFFFFFF}])
        burst(sender, BURST, BURST + 100)
        rest = taken(bus, BURST // 10 + 10)
        assert first is not None
        assert rest == list(range(3, BURST + 100, 10))
        assert bus.stats.lost == 0
        assert bus.stats.repaired > 0


def test_a_descriptor_wakes_for_what_is_repaired(sender: Bus) -> None:
    with Bus("x", "virtual") as bus:
        descriptor = bus.fileno()
        burst(sender)
        numbers: list[int] = []
        while len(numbers) < BURST and select.select([descriptor], [], [], 10)[0]:
            message = bus.recv(0)
            if message is not None:
                numbers.append(int.from_bytes(message.data, "big"))
        assert numbers == list(range(BURST))
        assert bus.stats.repaired > 0


@pytest.mark.usefixtures("small_ring")
def test_what_the_ring_does_not_have_is_lost_to_the_frame(
    runtime: Runtime, sender: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    total = 3 * BURST
    with Bus("x", "virtual") as bus:
        burst(sender, 0, total)
        numbers = taken(bus, total)
        assert numbers == sorted(set(numbers))
        stats = bus.stats
        wait_until(lambda: served(runtime)[1] >= stats.lost, "the channel says so")
    assert [record.levelname for record in told(caplog)] == ["WARNING"]
    assert f"{stats.lost} were lost" in caplog.text
    assert stats.lost > 0
    assert stats.repaired > 0
    assert stats.received == len(numbers) == total - stats.lost


@pytest.mark.usefixtures("small_ring")
def test_a_loss_is_raised_once_where_it_is(sender: Bus) -> None:
    with Bus("x", "virtual", on_loss="raise") as bus:
        burst(sender, 0, 3 * BURST)
        numbers: list[int] = []
        losses: list[CanLossError] = []
        while len(numbers) < 3 * BURST:
            try:
                messages = bus.recv_batch(1000, 5)
            except CanLossError as error:
                losses.append(error)
                numbers += range(error.first, error.first + (error.count or 0))
            else:
                numbers += [int.from_bytes(message.data, "big") for message in messages]
        assert numbers == list(range(3 * BURST))
        assert losses
        assert losses[0].epoch > 0
        assert "does not have them any more" in str(losses[0])
        assert sum(loss.count or 0 for loss in losses) == bus.stats.lost
        sender.send(Message(arbitration_id=5))  # the bus goes on
        assert bus.recv(10) is not None


def test_the_latest_of_each_identifier(sender: Bus) -> None:
    with Bus("x", "virtual", on_slow="latest") as bus:
        burst(sender)
        last = list(range(BURST - 10, BURST))
        seen = taken(bus, 10)
        while seen[-10:] != last:  # a heartbeat tells of the last ones
            seen += taken(bus, 10)
        assert seen == sorted(set(seen))
        assert bus.stats.lost == 0
        assert bus.stats.skipped == BURST - len(seen)


def test_a_slow_client_may_be_disconnected(sender: Bus) -> None:
    with Bus("x", "virtual", on_slow="disconnect") as bus, Bus("x", "virtual") as other:
        burst(sender)
        with pytest.raises(CanOperationError, match=r"too slow and is disconnected: \d+ frames"):
            taken(bus, BURST)
        assert bus.stats.lost > 0
        with pytest.raises(CanOperationError, match="disconnected"):
            bus.send(Message())
        assert taken(other, BURST) == list(range(BURST))


def test_a_bus_may_begin_with_the_past(sender: Bus) -> None:
    burst(sender, 0, 100)  # nobody has asked for these: they are not kept
    with Bus("x", "virtual") as first, Program(STREAM) as stream:
        assert stream.said() == "ready"
        assert taken(first, 2000)[:2000] == list(range(2000))
        with Bus("x", "virtual", history=60) as bus:
            stream.tell("end")
            total = stream.said()
            numbers = taken(bus, total)
            assert numbers == list(range(total))  # none twice where past and present meet
            assert bus.stats.received == total
            assert stream.end() == 0
        with Bus("x", "virtual", history=60, can_filters=[{"can_id": 3, "can_mask": 0xF}]) as some:
            assert taken(some, total) == list(range(3, total, 10))
        with Bus("x", "virtual", history=0.0) as none:
            assert none.recv(0.2) is None


STREAM = """
import select
bus = Bus("x", "virtual", can_filters=[{"can_id": 0x7FF, "can_mask": 0x7FF}])
say("ready")
number = 0
while not select.select([sys.stdin], [], [], 0)[0]:
    bus.send(Message(arbitration_id=number % 10, data=number.to_bytes(4, "big")))
    number += 1
bus.shutdown()
say(number)
"""


def test_an_actor_that_had_no_frames_has_lost_none(runtime: Runtime, sender: Bus) -> None:
    with Bus("x", "virtual", on_loss="raise") as bus:
        (channel,) = status_of(runtime).channels
        assert channel.pid is not None
        os.kill(channel.pid, signal.SIGKILL)
        wait_until(lambda: is_quiet(bus) and bus.stats.restarts == 1, "it is replaced")
        wait_until(lambda: is_sent(sender, Message(arbitration_id=3)), "it sends again")
        assert bus.recv(10) is not None  # and nothing was raised
        assert bus.stats.lost == 0


def is_quiet(bus: Bus) -> bool:
    try:
        return bus.recv(0.01) is None
    except CanLossError:
        raise
    except CanOperationError:  # a busy machine takes its time to replace an actor
        return False


def is_sent(bus: Bus, message: Message) -> bool:
    try:
        bus.send(message, timeout=10)
    except CanOperationError:  # by the actor that was killed
        return False
    return True


@pytest.mark.parametrize(
    "arguments",
    [
        {"on_loss": "ignore"},
        {"on_slow": 1},
        {"history": -1},
        {"history": "soon"},
        {"history": float("nan")},
    ],
)
def test_wrong_wishes_are_refused_by_name(runtime: Runtime, arguments: dict[str, Any]) -> None:
    (name,) = arguments
    with pytest.raises(ValueError, match=name):
        Bus("x", "virtual", **arguments)
