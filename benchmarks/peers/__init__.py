"""What a user could pick to share a bus, and ZeroMQ alone: all behind one interface."""

from __future__ import annotations

import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

from benchmarks.usage import cpu_s

#: A receiver that lacks frames gives up after so much silence: they are lost. The server of many
#: clients may serve one of them late; a datagram comes at once, or never.
SILENCE_S: Final = 5.0
DATAGRAM_SILENCE_S: Final = 1.0

#: Identifier of the last frame of a stream, whose receivers stop there.
LAST_ID: Final = 0x7FF

#: Bytes from which on a frame is a CAN FD one.
CLASSIC_BYTES: Final = 8

#: A server is started within this time.
_START_S: Final = 20.0


class Delivery(NamedTuple):
    """What one receiver got of a stream; the monotonic time at which it had the last of it, and
    the processor time that it has spent."""

    frames: int
    last_ns: int
    cpu_ns: int = 0


class Port(ABC):
    """One program's end of a bus, until it is left."""

    @abstractmethod
    def close(self) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class Sender(Port):
    """One that sends."""

    @abstractmethod
    def message(self, arbitration_id: int, data: bytes, *, extended: bool = False) -> Any:
        """What :meth:`send` takes."""

    @abstractmethod
    def send(self, message: Any) -> None: ...

    def send_all(self, messages: Sequence[Any]) -> None:
        """Sends them in the quickest way."""
        for message in messages:
            self.send(message)

    def flush(self) -> None:
        """Returns when what was sent is known to be on the bus, if that can be known."""

    def wait_for(self, receivers: int) -> None:
        """Returns when so many others receive what is sent."""


class Receiver(Port):
    """One that receives."""

    @abstractmethod
    def count(self, expected: int) -> tuple[int, int]:
        """Receives a stream; returns the number of frames, and the time of the last one."""

    @abstractmethod
    def receive(self) -> bytes | None:
        """The data of the next frame, ``None`` if none came for too long."""

    def drain(self, expected: int) -> Delivery:
        """Receives a stream of so many frames, the last of which is :data:`LAST_ID`."""
        began = time.process_time_ns()
        frames, last_ns = self.count(expected)
        return Delivery(frames, last_ns, time.process_time_ns() - began)


@dataclass(frozen=True)
class Peer:
    """One way to share a bus; other processes get a copy of it.

    ``middle`` is the process between the clients, if there is one. ``alone``: clients are in one
    process and one thread. ``classic_only``: no frames of CAN FD. ``sender`` and ``receiver`` make
    ports from ``address``.
    """

    name: str
    address: str
    sender: Callable[[str], Sender]
    receiver: Callable[[str], Receiver]
    middle: int | None = None
    alone: bool = False
    classic_only: bool = False

    def open_sender(self) -> Sender:
        return self.sender(self.address)

    def open_receiver(self) -> Receiver:
        return self.receiver(self.address)

    def middle_cpu_s(self) -> float:
        """Processor time of the process between the clients so far."""
        return 0.0 if self.middle is None else cpu_s(self.middle)


def free_port() -> int:
    """A port of this host that nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        number: int = listening.getsockname()[1]
    return number


def await_port(port: int) -> None:
    """Returns when somebody listens at that port of this host.

    :raises ConnectionRefusedError: nobody does for 20 s.
    """
    deadline = time.monotonic() + _START_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return
