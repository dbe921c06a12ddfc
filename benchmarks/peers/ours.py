"""canbroker: over a virtual channel and its actor."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

from benchmarks.figures import US
from benchmarks.peers import CLASSIC_BYTES, LAST_ID, SILENCE_S, Peer, Receiver, Sender
from canbroker import Bus, Message

_BATCH: Final = 1000
_FLUSH_S: Final = 20.0


class BrokerPort(Sender, Receiver):
    """Sends with ``send_batch``, receives by iterating the bus."""

    def __init__(self, channel: str, broker: str | None = None) -> None:
        self.bus = Bus(channel, "virtual", broker=broker)

    def message(self, arbitration_id: int, data: bytes, *, extended: bool = False) -> Message:
        return Message(
            arbitration_id=arbitration_id,
            is_extended_id=extended,
            data=data,
            is_fd=len(data) > CLASSIC_BYTES,
        )

    def send(self, message: Message) -> None:
        self.bus.send(message)

    def send_all(self, messages: Sequence[Message]) -> None:
        self.bus.send_batch(messages)

    def flush(self) -> None:
        self.bus.flush(_FLUSH_S)

    def count(self, expected: int) -> tuple[int, int]:  # noqa: ARG002 - the last one is marked
        received = 0
        for message in self.bus:
            received += 1
            if message.arbitration_id == LAST_ID:
                break
        return received, time.monotonic_ns()

    def receive(self) -> bytes | None:
        message = self.bus.recv(SILENCE_S)
        return None if message is None else bytes(message.data)

    def close(self) -> None:
        self.bus.shutdown()


class SinglePort(BrokerPort):
    """Sends with ``send``, frame by frame."""

    def send_all(self, messages: Sequence[Message]) -> None:
        for message in messages:
            self.bus.send(message)


class BatchPort(BrokerPort):
    """Receives with ``recv_batch``."""

    def count(self, expected: int) -> tuple[int, int]:
        received = last = 0
        while received < expected and (messages := self.bus.recv_batch(_BATCH, SILENCE_S)):
            last = time.monotonic_ns()
            received += len(messages)
        return received, last


def peers(channel: str, actor: int | None) -> tuple[Peer, Peer, Peer]:
    """Clients of a channel: ``send_batch`` and iteration, then ``send``, then ``recv_batch``."""
    return (
        Peer(US, channel, BrokerPort, BrokerPort, actor),
        Peer(f"{US}, send", channel, SinglePort, BrokerPort, actor),
        Peer(f"{US}, recv_batch", channel, BrokerPort, BatchPort, actor),
    )
