"""What only a kernel of one's own can do: a full transmit queue, and a clock that jumps, in the
middle of traffic. ``tests/integration/test_failures.py`` has the rest of the failure table."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest

from canbroker import Bus, Message, recording
from canbroker.actors.recorder.side_file import read_all
from canbroker.logs.formats import open_reader
from canbroker.model.frame import Frame
from canbroker.transport.runtime import Runtime
from tests.support.brokers import status_of, wait_until
from tests.support.ledger import Receiver, Sender, end_traffic, reconcile
from tests.support.vcan import VCAN, Node, ip, needs_can

#: A kernel in user mode is slow on a busy machine.
pytestmark = [needs_can, pytest.mark.timeout(180)]

#: can0 and can1 of ``can-vm --slcan``: one bus of 500 kbit/s.
PAIR: Final = Path("/sys/class/net/can1")
QUEUE: Final = 3

HOUR_S: Final = 3600


@pytest.fixture
def short_queue() -> Iterator[None]:
    before = Path("/sys/class/net/can0/tx_queue_len").read_text().strip()
    ip("set", "can0", "txqueuelen", str(QUEUE))
    yield
    ip("set", "can0", "txqueuelen", before)


@pytest.mark.skipif(not PAIR.exists(), reason="no can0 and can1 of can-vm --slcan")
def test_a_queue_that_is_full_all_the_time(runtime: Runtime, short_queue: None) -> None:
    """The kernel says ENOBUFS (a program without canbroker sees that), and nobody loses a frame."""
    bus = ("can0", "socketcan")
    with Node("can0") as outsider, ExitStack() as stack:
        receivers = [Receiver(("can1", "socketcan")), Receiver(bus)]
        # More than the bus takes, which is 4,000 at best.
        senders = [Sender(bus, 0x100, 8000), Sender(bus, 0x200, 8000, timeout=30)]
        for program in (*receivers, *senders):
            stack.enter_context(program)
        own = stack.enter_context(Bus(*bus))
        for sender in senders:
            sender.start()
        refused = 0
        deadline = time.monotonic() + 20
        while refused < 5:
            assert time.monotonic() < deadline, "the queue is full"
            refused += is_full(outsider)
        accounts = [sender.stop() for sender in senders]
        end_traffic(own)
        for receiver in receivers:
            received = receiver.account()
            assert (received.lost, received.errors) == (0, [])
            for identifier, account in zip((0x100, 0x200), accounts, strict=True):
                assert account.failed == 0
                assert not account.refused
                assert reconcile(account, received.numbers.get(identifier, [])) == 0


def is_full(outsider: Node) -> bool:
    """Whether the kernel refuses a frame of a program that takes no care."""
    try:
        outsider.send([Frame(0, 0x666, 0, b"")])
    except OSError as error:
        if error.errno != errno.ENOBUFS:
            raise
        return True
    return False


@pytest.mark.skipif("CAN_VM" not in os.environ, reason="sets the clock: only in tools/can-vm")
@pytest.mark.parametrize("step", [HOUR_S, -HOUR_S])
def test_the_clock_jumps(runtime: Runtime, tmp_path: Path, step: int) -> None:
    bus = (VCAN, "socketcan")
    with ExitStack() as stack:
        receiver = stack.enter_context(Receiver(bus))
        (channel,) = status_of(runtime).channels
        recorder = stack.enter_context(ExitStack())
        recorder.enter_context(recording(channel.name, tmp_path, name="r"))
        senders = [Sender(bus, 0x100, 100), Sender(bus, 0x200, 100, timeout=10)]
        for sender in senders:
            stack.enter_context(sender).start()
        own = stack.enter_context(Bus(*bus, receive_own_messages=True))
        own.send_periodic(Message(arbitration_id=1, data=bytes(4), is_extended_id=False), 0.01)
        flow(own, 0.5)
        jump(step)
        try:
            wait_until(lambda: is_now(own), "timestamps are those of the clock as it is", 60)
            flow(own, 7)  # longer than anything that waits: for signs of life, answers, due frames
            own.set_filters([{"can_id": 0x7FE, "can_mask": 0x7FF}])
            began = time.monotonic()
            assert own.recv(0.2) is None
            assert 0.2 <= time.monotonic() - began < HOUR_S / 60
        finally:
            jump(-step)
        own.stop_all_periodic_tasks()
        accounts = [sender.stop() for sender in senders]
        end_traffic(own)
        received = receiver.account()
        status = status_of(runtime)
        recorder.close()
    (side,) = read_all(tmp_path, "r")
    way = "forward" if step > 0 else "back"
    clocks = [note.text for note in side.notes if note.what == "clock"]
    assert f"the clock of this host was set {way} by 3600." in clocks[0]
    assert side.lost == 0
    for identifier, account in zip((0x100, 0x200), accounts, strict=True):
        assert reconcile(account, numbers(tmp_path / side.file, identifier)) == 0
    assert (received.lost, received.restarts, received.errors) == (0, 0, [])
    for identifier, account in zip((0x100, 0x200), accounts, strict=True):
        assert account.failed == 0
        assert not account.refused
        assert reconcile(account, received.numbers.get(identifier, [])) == 0
    assert len(received.numbers[1]) > 200, "the task goes on in its rhythm"
    assert (status.channels[0].restarts, status.scheduler.restarts) == (0, 0)


def is_now(bus: Bus) -> bool:
    """Whether what is received has timestamps of about now."""
    messages = bus.recv_batch(1000, 0.05)
    return any(abs(message.timestamp - time.time()) < HOUR_S / 60 for message in messages)


def flow(bus: Bus, seconds: float) -> None:
    """Receives for so long."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        bus.recv_batch(1000, 0.05)


def jump(seconds: int) -> None:
    """Sets the wall clock; the monotonic one goes on."""
    time.clock_settime(time.CLOCK_REALTIME, time.time() + seconds)


def numbers(path: Path, identifier: int) -> list[int]:
    """Those of the ledger's frames with this identifier in a recorded file, in its order."""
    with open_reader(path) as reader:
        frames = [record.frame for record in reader if record.frame.arbitration_id == identifier]
    return [int.from_bytes(bytes(frame.data), "big") for frame in frames]
