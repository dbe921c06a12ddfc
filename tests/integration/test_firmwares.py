"""A broker on adapters with the firmware that is out there, to the last frame.

``CANBROKER_FIRMWARE_FRAMES`` multiplies the number of frames; `make firmwares` has it ten.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from canbroker import Bus, BusState, CanOperationError, Message
from canbroker.transport.runtime import Runtime
from tests.support.brokers import status_of, wait_until
from tests.support.simulated import Simulated

pytestmark = pytest.mark.long

TIMES = int(os.environ.get("CANBROKER_FIRMWARE_FRAMES", "1"))
OUT = 500 * TIMES
IN = 2_000 * TIMES
#: Frames that arrive together: fewer than an adapter's and a system's buffers hold.
BURST = 50

#: Slow enough for a simulated adapter whose process has to wait for a processor: a real one has
#: its own.
BITRATE = 125_000

#: Each with the number of frames that it drops when its channel is closed, as the successor of a
#: killed actor does first: they were written to it and acknowledged by nobody.
FIRMWARES = {
    "lawicel": 0,
    "canable": 3,
    "canable2": 3,
    "canable2-lawicel": 0,
    "candapter": 0,
    "arduino": 3,
    "esp32": 1,
}


@pytest.fixture(params=FIRMWARES)
def firmware(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def adapter(firmware: str, tmp_path: Path) -> Iterator[Simulated]:
    boot = 0.2 if firmware in ("arduino", "esp32") else None
    with Simulated(tmp_path, firmware=firmware, boot=boot) as simulated:
        yield simulated


def number_of(message: Message) -> int:
    return int.from_bytes(message.data[:4], "big")


def numbered(number: int) -> Message:
    data = number.to_bytes(4, "big") + bytes(number % 5)
    return Message(arbitration_id=0x100 + number % 0x100, data=data, is_extended_id=False)


def log_text(number: int) -> str:
    return f"{0x300 + number % 0x100:03X}#{number:08X}"


class Sending:
    """Sends numbered frames from a thread of its own, whatever becomes of them."""

    def __init__(self, bus: Bus, numbers: range) -> None:
        self._bus = bus
        self._numbers = numbers
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def join(self) -> None:
        self._thread.join()

    def _run(self) -> None:
        for number in self._numbers:
            self._send(number)
        self._settle()

    def _send(self, number: int) -> None:
        # What fails later is raised by the next call, which has not sent its own frame then.
        while True:
            try:
                self._bus.send(numbered(number))
            except CanOperationError:
                time.sleep(0.01)  # the actor is being started again
            else:
                return

    def _settle(self) -> None:
        while True:
            try:
                self._bus.flush()
            except CanOperationError:
                continue
            return


def feed(adapter: Simulated, receiver: Bus, numbers: range) -> None:
    """Puts numbered frames on the adapter's bus, and receives each of them once, in order."""
    for start in range(numbers.start, numbers.stop, BURST):
        burst = range(start, min(start + BURST, numbers.stop))
        adapter.command("\n".join(f"receive {log_text(number)}" for number in burst))
        received: list[int] = []
        while len(received) < len(burst):
            batch = receiver.recv_batch(BURST, 20)
            assert batch, f"only {len(received)} of {len(burst)} have arrived"
            received += [number_of(message) for message in batch]
        assert received == [*burst]


def accepted(adapter: Simulated) -> list[int]:
    """The numbers of the frames that the adapter has sent on its bus, in order."""
    return [int(text.partition("#")[2][:8], 16) for text in adapter.accepted()]


def test_every_frame_and_none_that_nobody_sent(
    runtime: Runtime, adapter: Simulated, firmware: str
) -> None:
    inbound = [{"can_id": 0x300, "can_mask": 0x700, "extended": False}]
    with (
        Bus(adapter.link, "slcan", bitrate=BITRATE) as sender,
        Bus(adapter.link, "slcan", can_filters=inbound) as receiver,
    ):
        sending = Sending(sender, range(OUT // 2))
        feed(adapter, receiver, range(IN // 2))
        sending.join()
        wait_until(lambda: len(accepted(adapter)) >= OUT // 2, "all are on the bus")
        assert accepted(adapter) == [*range(OUT // 2)]
        assert (sender.stats.sent, sender.stats.failed) == (OUT // 2, 0)

        sending = Sending(sender, range(OUT // 2, OUT))
        wait_until(lambda: len(accepted(adapter)) > OUT // 2, "it is sending")
        [channel] = status_of(runtime).channels
        assert channel.pid is not None
        os.kill(channel.pid, 9)
        wait_until(
            lambda: receiver.recv(0) is None and receiver.stats.restarts == 1,
            "it was started again",
        )
        wait_until(lambda: receiver.state is BusState.ACTIVE, "and is open")
        feed(adapter, receiver, range(IN // 2, IN))
        sending.join()
        stats = sender.stats
        least = OUT - stats.failed - FIRMWARES[firmware]
        wait_until(lambda: len(accepted(adapter)) >= least, "all are on the bus")

    account = accepted(adapter)
    assert account == sorted(set(account)), "none twice, none before its turn"
    assert set(account) <= set(range(OUT)), "none that nobody sent"
    assert stats.sent + stats.failed >= OUT
    assert stats.sent <= len(account) + FIRMWARES[firmware]


def test_nothing_is_made_of_half_a_line(
    runtime: Runtime, adapter: Simulated, firmware: str
) -> None:
    """As a program leaves it that is killed while it writes; another one sent a frame before."""
    with Path(adapter.link).open("wb", buffering=0) as port:
        port.write(b"C\rS4\rO\rt0FF2AABB\rt1232AA")
    with Bus(adapter.link, "slcan", bitrate=BITRATE) as bus:
        bus.send(numbered(1), timeout=10)
        wait_until(lambda: adapter.accepted()[-1:] == ["101#0000000100"], "it is sent")
    before = [] if firmware in ("arduino", "esp32") else ["0FF#AABB"]  # those were booting
    assert adapter.accepted() == [*before, "101#0000000100"]
