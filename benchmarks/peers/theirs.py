"""Buses that python-can can open."""

from __future__ import annotations

import time

import can

from benchmarks.peers import CLASSIC_BYTES, DATAGRAM_SILENCE_S, SILENCE_S, Receiver, Sender

#: Of IPv6's interface-local scope: neither datagrams nor reports of membership leave the machine.
GROUP = "ff11::6361:6e62:656e:6368"


class PythonCanPort(Sender, Receiver):
    """Sends with ``send``, receives with ``recv``."""

    def __init__(self, bus: can.BusABC, silence_s: float = SILENCE_S) -> None:
        self._bus = bus
        self._silence_s = silence_s

    def message(self, arbitration_id: int, data: bytes, *, extended: bool = False) -> can.Message:
        return can.Message(
            arbitration_id=arbitration_id,
            is_extended_id=extended,
            data=data,
            is_fd=len(data) > CLASSIC_BYTES,
        )

    def send(self, message: can.Message) -> None:
        self._bus.send(message)

    def count(self, expected: int) -> tuple[int, int]:
        recv, silence_s, now_ns = self._bus.recv, self._silence_s, time.monotonic_ns
        received = last = 0
        while received < expected and recv(silence_s) is not None:
            last = now_ns()
            received += 1
        return received, last

    def receive(self) -> bytes | None:
        message = self._bus.recv(self._silence_s)
        return None if message is None else bytes(message.data)

    def close(self) -> None:
        self._bus.shutdown()


def virtual(channel: str) -> PythonCanPort:
    return PythonCanPort(can.Bus(channel=channel, interface="virtual", ignore_config=True))


def udp_multicast(port: str) -> PythonCanPort:
    """Over the loopback alone: a hop limit of 0."""
    return PythonCanPort(
        can.Bus(
            channel=GROUP,
            interface="udp_multicast",
            port=int(port),
            hop_limit=0,
            ignore_config=True,
        ),
        DATAGRAM_SILENCE_S,
    )


def remote(url: str) -> PythonCanPort:
    return PythonCanPort(can.Bus(channel=url, interface="remote", ignore_config=True))
