"""What the channel actor pays: for routes that nothing matches, and for a fully loaded bus."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from multiprocessing.connection import Connection
from typing import Any, Final

from benchmarks.figures import US, Key
from benchmarks.peers import Delivery
from benchmarks.streams import cpu_per_frame, rate
from benchmarks.team import PATIENCE_S, Team
from benchmarks.usage import cpu_s, resident_mb
from canbroker import Bus, Message
from canbroker.demo.broker import BrokerView
from canbroker.transport.address import parse_ipc
from canbroker.transport.sockets import SharedContext
from canbroker.wire.status import ChannelStatus
from canbroker.wire.topics import encode_channel

#: What a bus of 1 Mbit/s carries when it is full, of frames of 8 bytes with few stuff bits.
FULL_RATE: Final = 8_800
FULL_BITRATE: Final = 1_000_000
_FEW_STUFF_BITS: Final = b"\x55" * 8
_CHUNK: Final = 0.01  # seconds of traffic that are handed over at once

_ROUTES_CHANNEL: Final = "routes"
_IDENTIFIERS: Final = 100
_UNMATCHED: Final = 0x10000000  # extended identifiers from here on are not sent


def status_of(broker: BrokerView, channel: str) -> ChannelStatus:
    """Of a channel that is open; ``channel`` as its interface calls it."""
    channels = broker.status().channels
    return next(status for status in channels if status.parameters["channel"] == channel)


def actor_of(broker: BrokerView, channel: str) -> int:
    """The process of such a channel."""
    pid = status_of(broker, channel).pid
    if pid is None:
        raise RuntimeError(f"channel {channel!r} has no process")
    return pid


def routes(broker: BrokerView, number: int, count: int) -> dict[Key, float]:
    """``count`` frames on a channel with so many routes, none of which carries them."""
    load = f"{number:,} routes, none matching"
    # The sender's own route is one of them.
    unmatched = [{"can_id": _UNMATCHED, "can_mask": 0x1FFFFFFF, "extended": True}]
    messages = [
        Message(arbitration_id=n % _IDENTIFIERS, is_extended_id=False, data=bytes(8))
        for n in range(count)
    ]
    with (
        Bus(_ROUTES_CHANNEL, "virtual", can_filters=unmatched) as bus,
        _subscriptions(broker, number - 1),
    ):
        pid = actor_of(broker, _ROUTES_CHANNEL)
        bus.send_batch(messages[:_IDENTIFIERS])  # an identifier's routes are looked for once
        bus.flush(PATIENCE_S)
        began, cpu = time.monotonic(), cpu_s(pid)
        bus.send_batch(messages)
        bus.flush(PATIENCE_S)
        taken, cpu = time.monotonic() - began, cpu_s(pid) - cpu
        memory = resident_mb(pid)
    return {
        Key(load, US, "rate", "frames/s"): count / taken,
        Key(load, US, "CPU in the middle", "µs/frame"): cpu * 1e6 / count,
        Key(load, US, "memory in the middle", "MB"): memory,
    }


def full_bus(broker: BrokerView, seconds: float) -> dict[Key, float]:
    """A virtual bus of 1 Mbit/s with as much traffic as a real one takes, and one client."""
    load, channel = "full bus of 1 Mbit/s", "full"
    count = int(FULL_RATE * seconds)
    message = Message(arbitration_id=0x123, is_extended_id=False, data=_FEW_STUFF_BITS)
    with Team() as team, Bus(channel, "virtual", bitrate=FULL_BITRATE) as bus:
        team.start(_count, channel, count)
        team.hear()
        pid = actor_of(broker, channel)
        began, cpu, own = time.monotonic(), cpu_s(pid), time.process_time_ns()
        began_ns = time.monotonic_ns()
        size = int(FULL_RATE * _CHUNK)
        for sent in range(0, count, size):
            time.sleep(max(0.0, began + sent / FULL_RATE - time.monotonic()))
            bus.send_batch([message] * min(size, count - sent))
        bus.flush(PATIENCE_S)
        taken, cpu = time.monotonic() - began, cpu_s(pid) - cpu
        own = time.process_time_ns() - own
        deliveries = team.hear()
    found = rate(load, US, count, began_ns, deliveries)
    found |= cpu_per_frame(load, US, own / count, deliveries)
    found[Key(load, US, "CPU in the middle", "% core")] = 100 * cpu / taken
    found[Key(load, US, "CPU in the middle", "µs/frame")] = cpu * 1e6 / count
    return found


@contextmanager
def _subscriptions(broker: BrokerView, number: int) -> Iterator[None]:
    """So many routes more on the channel, as a subscriber in any language opens them."""
    status = status_of(broker, _ROUTES_CHANNEL)
    prefix = encode_channel(status.name)
    with (
        closing(SharedContext()) as context,
        closing(context.subscriber(parse_ipc(status.stream))) as socket,
    ):
        for identifier in range(_UNMATCHED + 1, _UNMATCHED + 1 + number):
            topic = f"{prefix}/rx?x{identifier:08x}:1fffffff;"
            socket.subscribe(topic.encode())
        deadline = time.monotonic() + PATIENCE_S
        while (state := status_of(broker, _ROUTES_CHANNEL).state) is None or state.routes <= number:
            if time.monotonic() > deadline:
                raise TimeoutError(f"channel {_ROUTES_CHANNEL!r} does not open {number} routes")
            time.sleep(0.05)
        yield


def _count(pipe: Connection[Any, Any], channel: str, count: int) -> None:
    with Bus(channel, "virtual", bitrate=FULL_BITRATE) as bus:
        pipe.send(None)
        began = time.process_time_ns()
        received = last = 0
        while received < count and bus.recv(PATIENCE_S / 2) is not None:
            last = time.monotonic_ns()
            received += 1
        pipe.send(Delivery(received, last, time.process_time_ns() - began))
