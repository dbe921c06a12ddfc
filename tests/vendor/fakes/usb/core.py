"""``usb.core``: the adapter is there while the file ``plugged`` is; its bus is a Unix socket."""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
import time
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

DIRECTORY_VARIABLE = "CANBROKER_FAKE_USB"

#: struct gs_device_bt_const: features, a clock of 48 MHz, limits of the bit timing.
_CAPABILITY = struct.pack("<10I", 0, 48_000_000, 1, 16, 1, 8, 4, 1, 1024, 1)
_CONFIGURATION = struct.pack("<4B2I", 0, 0, 0, 0, 2, 1)

#: How soon a transfer that waits notices that the device is gone.
_LOOK_S = 0.005


class USBError(OSError):
    """As PyUSB's: ``errno`` is the system's."""


class USBTimeoutError(USBError):
    """A transfer took too long."""


class Device:
    idVendor = 0x1D50  # noqa: N815 - PyUSB's names
    idProduct = 0x606F  # noqa: N815
    bus = 1
    address = 4
    product = "candleLight USB to CAN adapter"
    serial_number = "004B002F5542501320303438"

    def __init__(self, directory: Path) -> None:
        self._plug = directory / "plugged"
        self._plugged = self._plug.read_text()
        self._host = str(directory / "host")
        self._path = directory / "device"
        self._socket: socket.socket | None = None
        self._echoes: deque[bytes] = deque()

    def reset(self) -> None:
        self._look()

    def is_kernel_driver_active(self, interface: int) -> bool:
        return interface == 0

    def detach_kernel_driver(self, interface: int) -> None:  # noqa: ARG002 - PyUSB's
        self._look()

    def ctrl_transfer(
        self,
        kind: int,
        request: int,
        value: int = 0,  # noqa: ARG002 - PyUSB's
        index: int = 0,  # noqa: ARG002
        data: Any = None,
    ) -> bytes:
        self._look()
        if kind == 0xC1:
            return {4: _CAPABILITY, 5: _CONFIGURATION}[request]
        if request == 2 and struct.unpack("<II", data)[0] == 1:  # starts
            self._open()
        return b""

    def write(self, endpoint: int, data: bytes) -> int:  # noqa: ARG002 - PyUSB's
        self._look()
        assert self._socket is not None
        self._socket.sendto(data, self._host)
        self._echoes.append(data)
        return len(data)

    def read(self, endpoint: int, size: int, timeout_ms: int) -> bytes:  # noqa: ARG002 - PyUSB's
        deadline = time.monotonic() + timeout_ms / 1000
        assert self._socket is not None
        while True:
            self._look()
            if self._echoes:
                return self._echoes.popleft()
            left = deadline - time.monotonic()
            if select.select([self._socket], [], [], max(0, min(_LOOK_S, left)))[0]:
                return self._socket.recv(size)
            if left <= 0:
                raise USBTimeoutError(errno.ETIMEDOUT, "Operation timed out")

    def _look(self) -> None:
        try:
            is_same = self._plug.read_text() == self._plugged
        except FileNotFoundError:
            is_same = False
        if not is_same:
            raise USBError(errno.ENODEV, "No such device (it may have been disconnected)")

    def _open(self) -> None:
        if self._socket is not None:
            self._socket.close()
        self._path.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(self._path))

    def __del__(self) -> None:
        if self._socket is not None:
            self._socket.close()


def find(
    *,
    find_all: bool = False,
    custom_match: Callable[[Device], bool] | None = None,
    backend: object = None,
    bus: int | None = None,
    address: int | None = None,
) -> Iterable[Device] | Device | None:
    directory = Path(os.environ[DIRECTORY_VARIABLE])
    found = [Device(directory)] if (directory / "plugged").exists() else []
    found = [
        device
        for device in found
        if (custom_match is None or custom_match(device))
        and bus in {None, device.bus}
        and address in {None, device.address}
    ]
    if find_all:
        return found
    return found[0] if found else None
