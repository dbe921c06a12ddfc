"""Adapters that a broker opens by the name of their interface, with another node on their bus."""

from __future__ import annotations

import os
import select
import shutil
import socket
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar, Self

import can
import pytest

from canbroker import Bus
from canbroker.backends.python_can.messages import to_frame, to_message
from canbroker.model.frame import EXTENDED, REMOTE, Frame, describe
from canbroker.model.message import to_frame as frame_of
from tests.support import vcan
from tests.support.simulated import FIRMWARES, Peer, Simulated
from tests.support.systems import is_root
from tests.vendor.bus import vendor_bus


class Adapter(ABC):
    """One kind of adapter, there before a broker opens it. A context manager."""

    interface: ClassVar[str]
    fd: ClassVar[bool] = False
    remote: ClassVar[bool] = True  # it knows remote frames

    def __init__(self) -> None:
        self.cleanup = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.cleanup.close()

    @property
    @abstractmethod
    def channel(self) -> str:
        """What a user names; the same after the adapter was unplugged."""

    @property
    def parameters(self) -> dict[str, Any]:
        return {}

    def open(self, kind: type[Bus] = Bus, **more: Any) -> Bus:
        """A bus on the adapter, from the test's broker."""
        return kind(self.channel, self.interface, **{**self.parameters, **more})

    @abstractmethod
    def inject(self, frames: Sequence[Frame]) -> None:
        """The other node sends frames; returns before they have arrived."""

    @abstractmethod
    def seen(self) -> list[str]:
        """All that the other node has received since the adapter was plugged in, as
        :func:`describe` writes it."""


class Removable(Adapter):
    """An adapter that can be taken away, and come back."""

    #: So many frames of 8 bytes, with these parameters, wait for it for a while...
    burst: ClassVar[int]
    slow: ClassVar[dict[str, Any]] = {}
    #: ...if frames wait for it at all.
    queues: ClassVar[bool] = True

    @abstractmethod
    def unplug(self) -> None: ...

    @abstractmethod
    def replug(self) -> None: ...


class VirtualAdapter(Adapter):
    """The other node is another client."""

    interface = "virtual"
    fd = True
    channel = "contract"

    def __init__(self) -> None:
        super().__init__()
        self._node: Bus | None = None
        self._seen: list[str] = []

    def inject(self, frames: Sequence[Frame]) -> None:
        for frame in frames:
            self._bus().send(to_message(frame))  # type: ignore[arg-type]

    def seen(self) -> list[str]:
        self._seen += [describe(frame_of(message)) for message in self._bus().recv_batch(1000, 0)]
        return self._seen

    def open(self, kind: type[Bus] = Bus, **more: Any) -> Bus:
        self._bus()  # it is there before anyone sends
        return super().open(kind, **more)

    def _bus(self) -> Bus:
        if self._node is None:
            self._node = self.cleanup.enter_context(super().open())
        return self._node


class SlcanAdapter(Removable):
    """A simulated serial adapter; its subclasses have other firmware."""

    interface = "slcan"
    fd = True
    burst = 300
    slow: ClassVar = {"bitrate": 10_000, "data_bitrate": None}
    firmware: ClassVar = "canable2-lawicel"
    bitrates: ClassVar = {"bitrate": 1_000_000, "fd": True, "data_bitrate": 5_000_000}

    def __init__(self) -> None:
        super().__init__()
        directory = _directory(self.cleanup)
        self._adapter = self.cleanup.enter_context(
            Simulated(directory, firmware=self.firmware, **self.shortened)
        )
        self._before = 0  # frames that it had accepted when it was unplugged

    @property
    def shortened(self) -> dict[str, Any]:
        return {}

    @property
    def channel(self) -> str:
        return self._adapter.link

    @property
    def parameters(self) -> dict[str, Any]:
        return self.bitrates

    def inject(self, frames: Sequence[Frame]) -> None:
        self._adapter.command("\n".join(f"receive {describe(frame)}" for frame in frames))

    def seen(self) -> list[str]:
        return self._adapter.accepted()[self._before :]

    def unplug(self) -> None:
        self._adapter.command("unplug")
        self._before = len(self._adapter.accepted())

    def replug(self) -> None:
        self._adapter.replug()


class LawicelAdapter(SlcanAdapter):
    fd = False
    firmware = "lawicel"
    slow: ClassVar = {"bitrate": 10_000}
    bitrates: ClassVar = {"bitrate": 1_000_000}


class CanableAdapter(LawicelAdapter):
    firmware = "canable"


class Canable2Adapter(SlcanAdapter):
    firmware = "canable2"
    slow: ClassVar = {"bitrate": 20_000, "data_bitrate": None}


class CandapterAdapter(LawicelAdapter):
    firmware = "candapter"
    remote = False


class ArduinoAdapter(LawicelAdapter):
    firmware = "arduino"
    slow: ClassVar = {"bitrate": 100_000}

    @property
    def shortened(self) -> dict[str, Any]:
        return {"boot": 0.3}  # 2 s, which would be waited for in each test


class Esp32Adapter(ArduinoAdapter):
    firmware = "esp32"


class SocketcanAdapter(Removable):
    """A virtual interface of the kernel, of its own, that is taken down and up again."""

    interface = "socketcan"
    fd = True
    burst = 1000
    queues = False
    channel = "cbtest0"

    def __init__(self) -> None:
        super().__init__()
        if (reason := vcan.missing()) is not None:
            pytest.skip(reason)
        if not is_root():
            pytest.skip("only root may add interfaces")
        self.cleanup.callback(self._remove)
        self._add()
        self._node = vcan.Node(self.channel)
        self.cleanup.callback(self._close_node)

    @property
    def parameters(self) -> dict[str, Any]:
        return {"fd": True}

    def inject(self, frames: Sequence[Frame]) -> None:
        self._node.send(frames)

    def seen(self) -> list[str]:
        return [describe(frame) for frame in self._node.drain()]

    def unplug(self) -> None:
        self._close_node()
        vcan.ip("set", self.channel, "down")

    def replug(self) -> None:
        vcan.ip("set", self.channel, "up")
        self._node = vcan.Node(self.channel)

    def _close_node(self) -> None:
        self._node.socket.close()

    def _add(self) -> None:
        vcan.ip("add", self.channel, "mtu", "72", "type", "vcan")
        vcan.ip("set", self.channel, "up")

    def _remove(self) -> None:
        if vcan.exists(self.channel):
            vcan.ip("del", self.channel)


class VanishingAdapter(SocketcanAdapter):
    """The same, deleted and created again."""

    def unplug(self) -> None:
        self._close_node()
        self._remove()

    def replug(self) -> None:
        self._add()
        self._node = vcan.Node(self.channel)


#: Bits of an identifier on the line (struct can_frame, linux/can.h)
_EXTENDED, _REMOTE = 1 << 31, 1 << 30


class SerialAdapter(Removable):
    """python-can's ``serial`` on a pseudo-terminal; the other node is at its other end.

    Source of the format: python-can's documentation of the interface ``serial``.
    """

    interface = "serial"
    burst = 1500  # more than a pseudo-terminal holds

    def __init__(self) -> None:
        super().__init__()
        self._link = _directory(self.cleanup) / "ttyCAN"
        self._unread = b""
        self._seen: list[str] = []
        self._peer = self._plug()

    @property
    def channel(self) -> str:
        return str(self._link)

    def inject(self, frames: Sequence[Frame]) -> None:
        for frame in frames:
            data = frame.data if isinstance(frame.data, bytes) else b""
            number = frame.arbitration_id | (_EXTENDED if frame.flags & EXTENDED else 0)
            number |= _REMOTE if frame.flags & REMOTE else 0
            head = b"\xaa" + bytes(4) + bytes((len(data),)) + number.to_bytes(4, "little")
            self._peer.say(head + data + b"\xbb")

    def seen(self) -> list[str]:
        while select.select([self._peer.master], [], [], 0)[0]:
            self._unread += os.read(self._peer.master, 65_536)
        while len(self._unread) > 5 and len(self._unread) >= (size := 11 + self._unread[5]):
            packet, self._unread = self._unread[:size], self._unread[size:]
            assert (packet[0], packet[-1]) == (0xAA, 0xBB)
            number = int.from_bytes(packet[6:10], "little")
            flags = EXTENDED if number & _EXTENDED else 0
            data: bytes | int = packet[10:-1]
            if number & _REMOTE:
                flags, data = flags | REMOTE, 0
            self._seen.append(describe(Frame(0, number & 0x1FFFFFFF, flags, data)))
        return self._seen

    def unplug(self) -> None:
        self._link.unlink()
        self._peer.unplug()
        self._unread = b""
        self._seen = []

    def replug(self) -> None:
        self._peer = self._plug()

    def _plug(self) -> Peer:
        """A new pseudo-terminal under the old name, as a serial port that is plugged in gets."""
        peer = self.cleanup.enter_context(Peer())
        self._link.symlink_to(peer.path)
        return peer


class MulticastAdapter(Adapter):
    """python-can's ``udp_multicast``; the other node is a bus of python-can's in this process.

    A multicast group of interface-local scope never leaves the machine, nor does hop limit 0.
    """

    interface = "udp_multicast"
    fd = True
    channel = "ff01::6361:6e63"

    def __init__(self) -> None:
        super().__init__()
        try:
            with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as free:
                free.bind(("::1", 0))
                self._port = int(free.getsockname()[1])
        except OSError as error:
            pytest.skip(f"no IPv6 here: {error}")
        node = can.Bus(
            self.channel, self.interface, ignore_config=True, port=self._port, hop_limit=0
        )
        self._node = self.cleanup.enter_context(node)
        self._seen: list[str] = []

    @property
    def parameters(self) -> dict[str, Any]:
        return {"port": self._port, "hop_limit": 0, "fd": True}

    def inject(self, frames: Sequence[Frame]) -> None:
        for frame in frames:
            self._node.send(to_message(frame))

    def seen(self) -> list[str]:
        while (message := self._node.recv(0)) is not None:
            self._seen.append(describe(to_frame(message, 0)))
        return self._seen


class VendorAdapter(Removable):
    """An adapter whose vendor's library is a double, under python-can's driver for it."""

    fd = True
    burst = 1500  # three times what waits in the library
    #: Of all that are on the bus; the other node is the test.
    timing: ClassVar[dict[str, Any]] = {}

    def __init__(self) -> None:
        super().__init__()
        self._bus = self.cleanup.enter_context(vendor_bus())
        self._bus.channel(self.interface, self.channel).frame_us = 300
        self._before = 0  # frames that were seen when it was unplugged

    @property
    def parameters(self) -> dict[str, Any]:
        return {"fd": True, **self.timing}

    def inject(self, frames: Sequence[Frame]) -> None:
        self._bus.send(frames)

    def seen(self) -> list[str]:
        return [describe(frame) for frame in self._bus.seen()[self._before :]]

    def unplug(self) -> None:
        self._bus.unplug(self.interface, self.channel)
        self._before = len(self._bus.seen())

    def replug(self) -> None:
        self._bus.replug(self.interface, self.channel)


class PcanAdapter(VendorAdapter):
    """One channel of a PCAN-USB Pro FD."""

    interface = "pcan"
    channel = "PCAN_USBBUS2"
    timing: ClassVar = {
        "f_clock": 80_000_000,
        "nom_brp": 10,
        "nom_tseg1": 5,
        "nom_tseg2": 2,
        "nom_sjw": 1,
        "data_brp": 4,
        "data_tseg1": 7,
        "data_tseg2": 2,
        "data_sjw": 1,
    }


class KvaserAdapter(VendorAdapter):
    """One channel of a Kvaser Leaf Pro."""

    interface = "kvaser"
    channel = "1"
    timing: ClassVar = {"bitrate": 500_000, "data_bitrate": 2_000_000}


def _directory(cleanup: ExitStack) -> Path:
    directory = tempfile.mkdtemp(prefix="cb-", dir="/tmp")
    cleanup.callback(shutil.rmtree, directory, ignore_errors=True)
    return Path(directory)


_SLCAN: tuple[type[SlcanAdapter], ...] = (
    LawicelAdapter,
    CanableAdapter,
    Canable2Adapter,
    CandapterAdapter,
    ArduinoAdapter,
    Esp32Adapter,
)
_FIRMWARES = {f"slcan-{kind.firmware}": kind for kind in _SLCAN if kind.firmware in FIRMWARES}

REMOVABLE: dict[str, type[Removable]] = {
    "slcan": SlcanAdapter,
    **_FIRMWARES,
    "socketcan": SocketcanAdapter,
    "socketcan-deleted": VanishingAdapter,
    "python-can": SerialAdapter,
    "pcan": PcanAdapter,
    "kvaser": KvaserAdapter,
}

ADAPTERS: dict[str, type[Adapter]] = {
    "virtual": VirtualAdapter,
    "slcan": SlcanAdapter,
    **_FIRMWARES,
    "socketcan": SocketcanAdapter,
    "python-can": SerialAdapter,
    "python-can-multicast": MulticastAdapter,
    "pcan": PcanAdapter,
    "kvaser": KvaserAdapter,
}
