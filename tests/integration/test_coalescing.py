"""A bus that is full, from an adapter that gives its frames one by one."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from canbroker import Bus, CanInitializationError, Message
from canbroker.backends.slcan.codec import encode
from canbroker.model.frame import Frame
from canbroker.simulator.firmware import create
from canbroker.simulator.options import SimulatorOptions
from canbroker.transport.address import parse_ipc
from canbroker.transport.runtime import Runtime
from canbroker.transport.sockets import SharedContext
from canbroker.wire import stream
from canbroker.wire.topics import encode_channel
from tests.support.brokers import status_of
from tests.support.simulated import Peer

PATIENCE_S = 20.0
FULL_RATE = 8_800
COUNT = 4_000


@contextmanager
def adapter() -> Iterator[Peer]:
    """It answers what it is asked, on a thread of its own."""
    device = create(SimulatorOptions())

    def answer() -> None:
        while True:
            try:
                data = os.read(peer.master, 4096)
            except OSError:
                return
            if b"x" in data:
                return
            if answers := device.receive(data, time.monotonic_ns()):
                peer.say(answers)

    with Peer() as peer:
        thread = threading.Thread(target=answer)
        thread.start()
        try:
            yield peer
        finally:
            os.write(peer._slave, b"x")
            thread.join()


def inject(peer: Peer) -> None:
    """A second or so of a full bus, one frame at a time."""
    began = time.monotonic()
    for number in range(COUNT):
        time.sleep(max(0.0, began + number / FULL_RATE - time.monotonic()))
        peer.say(encode(Frame(0, 0x123, 0, number.to_bytes(8, "big"))))


def numbers(bus: Bus, count: int) -> list[int]:
    """The content of the next frames from the adapter; others are left out."""
    found: list[int] = []
    while len(found) < count and (message := bus.recv(PATIENCE_S)) is not None:
        if message.arbitration_id == 0x123:
            found.append(int.from_bytes(message.data, "big"))
    return found


@pytest.mark.parametrize("coalesce_us", [None, 0, 2_000])
def test_every_frame_arrives_in_order_with_true_times(
    runtime: Runtime, coalesce_us: int | None
) -> None:
    with (
        adapter() as peer,
        Bus(peer.path, "slcan", bitrate=1_000_000, coalesce_us=coalesce_us) as bus,
    ):
        began = time.time()
        injecting = threading.Thread(target=inject, args=(peer,))
        injecting.start()
        stamps: list[float] = []
        found: list[int] = []
        while len(found) < COUNT and (message := bus.recv(PATIENCE_S)) is not None:
            found.append(int.from_bytes(message.data, "big"))
            stamps.append(message.timestamp)
            assert message.timestamp <= time.time()
        injecting.join()
        assert found == list(range(COUNT))
        assert stamps == sorted(stamps)
        assert stamps[0] >= began
        assert bus.stats.lost == 0
        [channel] = status_of(runtime).channels
        assert channel.parameters.get("coalesce_us") == coalesce_us


def test_frames_are_published_several_at_a_time(runtime: Runtime) -> None:
    with (
        adapter() as peer,
        Bus(peer.path, "slcan", bitrate=1_000_000),
        closing(SharedContext()) as context,
    ):
        [channel] = status_of(runtime).channels
        with closing(context.subscriber(parse_ipc(channel.stream))) as socket:
            socket.subscribe(f"{encode_channel(channel.name)}/rx;".encode())
            socket.recv_multipart()  # a heartbeat: the subscription is in force
            injecting = threading.Thread(target=inject, args=(peer,))
            injecting.start()
            batches = frames = 0
            deadline = time.monotonic() + PATIENCE_S
            while frames < COUNT and time.monotonic() < deadline:
                if count := len(stream.decode_batch(socket.recv_multipart()[1]).payload):
                    batches, frames = batches + 1, frames + count
            injecting.join()
            assert frames == COUNT
            assert batches < COUNT / 2


def test_dialogues_beside_a_full_bus(runtime: Runtime) -> None:
    """What is sent is confirmed, and other clients have it, while the channel pauses."""
    with adapter() as peer, Bus(peer.path, "slcan", bitrate=1_000_000) as bus:
        with Bus(peer.path, "slcan", can_filters=[{"can_id": 0x7, "can_mask": 0x7FF}]) as other:
            injecting = threading.Thread(target=inject, args=(peer,))
            injecting.start()
            for number in range(50):
                bus.send(
                    Message(arbitration_id=0x7, is_extended_id=False, data=[number]), PATIENCE_S
                )
                answered = other.recv(PATIENCE_S)
                assert answered is not None
                assert answered.data[0] == number
            injecting.join()
            bus.flush(PATIENCE_S)
        assert numbers(bus, COUNT) == list(range(COUNT))


def test_the_parameter_belongs_to_the_channel(runtime: Runtime) -> None:
    with (
        Bus("x", "virtual", bitrate=500_000, coalesce_us=0) as bus,
        Bus("x", "virtual", coalesce_us=0),
    ):
        assert bus.channel_info
        with pytest.raises(CanInitializationError, match="coalesce_us=0, not coalesce_us=500"):
            Bus("x", "virtual", coalesce_us=500)
        with pytest.raises(CanInitializationError, match="coalesce_us must be 0 to 2000, got 5000"):
            Bus("x", "virtual", coalesce_us=5_000)
