"""What tests ask of a broker's channels."""

from __future__ import annotations

import time

import psutil

from canbroker import Message
from canbroker.transport.runtime import Runtime
from canbroker.wire.stream import StateEvent
from tests.support.brokers import status_of, wait_until


def frame(identifier: int, data: bytes = b"") -> Message:
    return Message(arbitration_id=identifier, data=data, is_extended_id=False)


def numbered(identifier: int, number: int) -> Message:
    return frame(identifier, number.to_bytes(8, "big"))


def state_of(runtime: Runtime, name: str) -> StateEvent:
    """What a channel last said of itself."""

    def state() -> StateEvent | None:
        [channel] = [one for one in status_of(runtime).channels if one.name == name]
        return channel.state

    wait_until(state, "the broker has heard of it")
    found = state()
    assert found is not None
    return found


def actor_of(runtime: Runtime, name: str) -> int:
    """The process of a channel."""
    [channel] = [one for one in status_of(runtime).channels if one.name == name]
    assert channel.pid is not None
    return channel.pid


def busy_share(pid: int, seconds: float) -> float:
    """The part of a processor that a process uses for some time."""
    process = psutil.Process(pid)
    began, used = time.monotonic(), sum(process.cpu_times()[:2])
    wait_until(lambda: time.monotonic() - began > seconds, "some time is over")
    return (sum(process.cpu_times()[:2]) - used) / (time.monotonic() - began)
