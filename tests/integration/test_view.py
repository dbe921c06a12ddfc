"""What a display follows of a real channel."""

from __future__ import annotations

import os
import signal

import pytest

from canbroker import Bus, CanOperationError, Message
from canbroker.delivery.tap import Event, Frames
from canbroker.system import clock
from canbroker.transport.runtime import Runtime
from canbroker.view.follower import Follower
from tests.support.brokers import status_of, wait_until


def message(arbitration_id: int, data: bytes = b"") -> Message:
    return Message(arbitration_id=arbitration_id, data=data, is_extended_id=False)


def counts(follower: Follower) -> dict[int, int]:
    with follower.lock:
        rows = follower.view.table.rows.values()
        return {row.last.arbitration_id: row.count for row in rows}


def test_a_follower_counts_what_was_sent_and_hears_states(runtime: Runtime) -> None:
    heard: list[Event] = []
    with (
        Bus("x", "virtual", bitrate=500_000) as sender,
        Follower("x", Bus("x", "virtual", bitrate=500_000), heard.extend) as follower,
    ):
        sender.send_batch([message(0x100 + number % 10) for number in range(1000)], timeout=20)
        expected = {0x100 + number: 100 for number in range(10)}
        wait_until(lambda: counts(follower) == expected, "all are counted")
        wait_until(lambda: any(each.load for each in follower.view.load.samples), "load is told")
        with follower.lock:
            state = follower.view.state
            follower.view.table.tick(clock.monotonic_ns())
    assert state is not None
    assert state.bitrate == 500_000
    frames = [event.frames for event in heard if isinstance(event, Frames)]
    assert sum(map(len, frames)) == 1000
    assert {row.is_sent for row in follower.view.table.rows.values()} == {True}


def test_a_follower_goes_on_after_a_kill(runtime: Runtime) -> None:
    with Bus("x", "virtual") as sender, Follower("x", Bus("x", "virtual")) as follower:
        sender.send(message(1), timeout=5)
        wait_until(lambda: counts(follower) == {1: 1}, "the first frame")
        (channel,) = status_of(runtime).channels
        assert channel.pid is not None
        os.kill(channel.pid, signal.SIGKILL)
        wait_until(lambda: follower.view.restarts == 1, "it hears of the restart", timeout=20)
        wait_until(lambda: is_sent(sender, message(2)), "the sender, too, has heard of it")
        wait_until(lambda: counts(follower).get(2), "a frame of the successor")
        assert not follower.view.ended


def is_sent(bus: Bus, frame: Message) -> bool:
    try:
        bus.send(frame, timeout=5)
    except CanOperationError:
        return False
    return True


@pytest.mark.parametrize("times", [1, 2])
def test_closing_ends_thread_and_bus(runtime: Runtime, times: int) -> None:
    follower = Follower("x", Bus("x", "virtual"))
    for _ in range(times):
        follower.close()
    wait_until(
        lambda: not status_of(runtime).channels or not status_of(runtime).channels[0].clients,
        "the client has left",
    )
