"""Test benches: an open backend with the rest of a CAN bus around it."""

from __future__ import annotations

import select
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import ClassVar

import can
import pytest

from canbroker.backends import open_backend, parse_options, python_can
from canbroker.backends.base import Backend, Transmit
from canbroker.backends.python_can.messages import to_frame, to_message
from canbroker.model.frame import FD, HARDWARE_TIMESTAMP, REMOTE, Frame, describe
from canbroker.system import clock
from tests.support import vcan
from tests.support.simulated import FIRMWARES, Simulated

PATIENCE_NS = 20 * clock.SECOND

Item = Frame | Transmit
Content = tuple[int, int, bytes | int]


def content(frame: Frame) -> Content:
    """What a frame says, without when and how exactly it was received."""
    return frame.arbitration_id, frame.flags & ~HARDWARE_TIMESTAMP, frame.data


def transmit(frame: Frame, origin: str = "client", *, expires_ns: int = 0) -> Transmit:
    return Transmit(frame, origin, None, clock.monotonic_ns(), expires_ns)


def is_readable(backend: Backend) -> bool:
    return bool(select.select([backend.fileno()], [], [], 0)[0])


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Polls; for conditions that other threads or processes make true."""
    deadline = clock.monotonic_ns() + PATIENCE_NS
    pause = threading.Event()
    while not condition():
        assert clock.monotonic_ns() < deadline, f"timed out: {what}"
        pause.wait(0.001)


def collect(backend: Backend, is_enough: Callable[[list[Item]], bool]) -> list[Item]:
    """What :meth:`Backend.read` returns until that is enough; waits as the actor's thread does."""
    items: list[Item] = []
    deadline = clock.monotonic_ns() + PATIENCE_NS
    while not is_enough(items):
        now = clock.monotonic_ns()
        assert now < deadline, f"timed out with {len(items)} items: {items[-5:]}"
        due = backend.due_ns()
        wait_ns = min(clock.SECOND // 2, deadline - now, *([] if due is None else [due - now]))
        select.select([backend.fileno()], [], [], max(0, wait_ns) / clock.SECOND)
        items.extend(backend.read())
    return items


def send_all(backend: Backend, transmits: Sequence[Transmit]) -> None:
    """Hands one client's transmits over, as many at a time as there is room for.

    Needs someone who reads at the same time when there are many.
    """
    origin = transmits[0].origin
    rest = list(transmits)
    while rest:
        wait_until(lambda: backend.room(origin) > 0, "room")
        room = backend.room(origin)
        backend.send(rest[:room])
        del rest[:room]


class Bench(ABC):
    """One kind of backend, open, and another node on its bus. A context manager."""

    interface: ClassVar[str]
    #: Parameters that cannot be opened, and what the error names.
    unusable: ClassVar[Sequence[tuple[dict[str, object], str]]]
    has_listen_only: ClassVar[bool] = False
    carries_fd: ClassVar[bool] = True
    carries_remote: ClassVar[bool] = True
    #: The error state indicator survives the way to the bus and back.
    carries_error_state: ClassVar[bool] = True

    def __init__(self) -> None:
        self.backend = self.open()

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *_: object) -> None:
        self.backend.close()

    @property
    @abstractmethod
    def parameters(self) -> dict[str, object]:
        """What a user would write, with CAN FD where it is carried."""

    def carries(self, frame: Frame) -> bool:
        """Whether the adapter knows frames of this kind."""
        is_carried = self.carries_fd or not frame.flags & FD
        return is_carried and (self.carries_remote or not frame.flags & REMOTE)

    @abstractmethod
    def inject(self, frames: Sequence[Frame]) -> None:
        """The other node sends frames. Any thread; returns before they have arrived."""

    @abstractmethod
    def arrived(self, items: Sequence[Item]) -> list[Frame]:
        """Those of the items that the other node has sent."""

    @abstractmethod
    def seen(self) -> list[str] | None:
        """What the other node has received, as :func:`describe` writes it; ``None`` if it is
        not independent of the backend."""

    def open(self, **changes: object) -> Backend:
        """Opens a backend with other parameters; the caller closes it."""
        parameters = self.parameters | changes
        return open_backend(self.interface, parse_options(self.interface, parameters))

    def reopen(self, **changes: object) -> Backend:
        """Opens the bench's backend again with other parameters."""
        self.backend.close()
        self.backend = self.open(**changes)
        return self.backend


class VirtualBench(Bench):
    """The other node is another client of the bus."""

    interface = "virtual"
    unusable: ClassVar = [({"channel": ""}, "channel"), ({"bitrate": 1}, "bitrate")]

    @property
    def parameters(self) -> dict[str, object]:
        return {"channel": "bench"}

    def inject(self, frames: Sequence[Frame]) -> None:
        send_all(self.backend, [transmit(frame, "node") for frame in frames])

    def arrived(self, items: Sequence[Item]) -> list[Frame]:
        return [
            item.frame for item in items if isinstance(item, Transmit) and item.origin == "node"
        ]

    def seen(self) -> None:
        return None  # it would say what the backend says


class TimedVirtualBench(VirtualBench):
    @property
    def parameters(self) -> dict[str, object]:
        return {"channel": "bench", "bitrate": 1_000_000, "data_bitrate": 8_000_000}


class SlcanBench(Bench):
    """A simulated adapter in a process of its own, and the bus behind it."""

    interface = "slcan"
    unusable: ClassVar = [
        ({}, "/dev/|socket:"),  # it is in use: the bench has it open
        ({"channel": "/nonexistent/tty"}, "/nonexistent/tty"),
        ({"channel": "/dev/null"}, "/dev/null"),
        ({"bitrate": 123}, "bitrate"),
    ]
    has_listen_only = True
    carries_error_state = False
    firmware: ClassVar = "canable2-lawicel"
    bitrates: ClassVar = {"bitrate": 1_000_000, "fd": True, "data_bitrate": 5_000_000}

    def __init__(self) -> None:
        with ExitStack() as stack:
            # A board boots for 2 s, which each test would wait for.
            boot = 0.1 if self.firmware in ("arduino", "esp32") else None
            self._adapter = stack.enter_context(Simulated(firmware=self.firmware, boot=boot))
            super().__init__()
            self._cleanup = stack.pop_all()

    def __exit__(self, *_: object) -> None:
        with self._cleanup:
            self.backend.close()

    @property
    def parameters(self) -> dict[str, object]:
        return {"channel": self._adapter.path, **self.bitrates}

    def inject(self, frames: Sequence[Frame]) -> None:
        self._adapter.command("\n".join(f"receive {describe(frame)}" for frame in frames))

    def arrived(self, items: Sequence[Item]) -> list[Frame]:
        return [item for item in items if isinstance(item, Frame)]

    def seen(self) -> list[str]:
        return self._adapter.accepted()


class ClassicSlcanBench(SlcanBench):
    carries_fd = False
    firmware = "lawicel"
    # Slow enough for a process that has to wait for a processor, which hardware has to itself.
    bitrates: ClassVar = {"bitrate": 250_000}


class CanableBench(ClassicSlcanBench):
    firmware = "canable"
    has_listen_only = False


class Canable2Bench(SlcanBench):
    firmware = "canable2"
    has_listen_only = False
    bitrates: ClassVar = {"bitrate": 250_000, "fd": True, "data_bitrate": 2_000_000}


class CandapterBench(ClassicSlcanBench):
    firmware = "candapter"
    has_listen_only = False
    carries_remote = False


class ArduinoBench(ClassicSlcanBench):
    firmware = "arduino"
    has_listen_only = False


class Esp32Bench(ClassicSlcanBench):
    firmware = "esp32"
    has_listen_only = False


class PythonCanBench(Bench):
    """The other node is another bus of python-can's in this process, where its buses live."""

    interface = "virtual"
    unusable: ClassVar = [
        ({"listen_only": True}, "listen_only"),
        ({"receive_own_messages": True}, "receive_own_messages"),
        ({"channel": True}, "channel"),
    ]

    def __init__(self) -> None:
        with ExitStack() as stack:
            self._node = stack.enter_context(
                can.Bus("bench", interface="virtual", ignore_config=True)
            )
            super().__init__()
            self._cleanup = stack.pop_all()
        self._seen: list[str] = []

    def __exit__(self, *_: object) -> None:
        with self._cleanup:
            self.backend.close()

    @property
    def parameters(self) -> dict[str, object]:
        return {"channel": "bench", "fd": True}

    def open(self, **changes: object) -> Backend:
        # Not through the table, where the name is that of canbroker's own virtual bus.
        return python_can.open(python_can.parse(self.interface, self.parameters | changes))

    def inject(self, frames: Sequence[Frame]) -> None:
        for frame in frames:
            self._node.send(to_message(frame))

    def arrived(self, items: Sequence[Item]) -> list[Frame]:
        return [item for item in items if isinstance(item, Frame)]

    def seen(self) -> list[str]:
        while (message := self._node.recv(0)) is not None:
            self._seen.append(describe(to_frame(message, clock.wall_ns())))
        return self._seen


class SocketcanBench(Bench):
    """The other node is a socket of its own on the same virtual interface."""

    interface = "socketcan"
    unusable: ClassVar = [
        ({"channel": "nosuch0"}, "nosuch0"),
        ({"channel": "lo"}, "no CAN interface 'lo'"),
        ({"bitrate": 0}, "bitrate"),
    ]
    has_listen_only = True

    def __init__(self) -> None:
        if (reason := vcan.missing()) is not None:
            pytest.skip(reason)
        with ExitStack() as stack:
            self._node = stack.enter_context(vcan.Node())
            super().__init__()
            self._cleanup = stack.pop_all()

    def __exit__(self, *_: object) -> None:
        with self._cleanup:
            self.backend.close()

    @property
    def parameters(self) -> dict[str, object]:
        return {"channel": vcan.VCAN, "fd": True}

    def inject(self, frames: Sequence[Frame]) -> None:
        self._node.send(frames)

    def arrived(self, items: Sequence[Item]) -> list[Frame]:
        return [item for item in items if isinstance(item, Frame)]

    def seen(self) -> list[str]:
        return [describe(frame) for frame in self._node.drain()]


_SLCAN: tuple[type[SlcanBench], ...] = (
    ClassicSlcanBench,
    CanableBench,
    Canable2Bench,
    CandapterBench,
    ArduinoBench,
    Esp32Bench,
)

BENCHES: dict[str, type[Bench]] = {
    "virtual": VirtualBench,
    "virtual-bitrate": TimedVirtualBench,
    "slcan": SlcanBench,
    **{f"slcan-{bench.firmware}": bench for bench in _SLCAN if bench.firmware in FIRMWARES},
    "socketcan": SocketcanBench,
    "python-can": PythonCanBench,
}
