"""What reads and writes a virtual CAN interface, and how to take frames from it."""

from __future__ import annotations

import os
import select
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import can

from canbroker import Bus
from canbroker.backends import open_backend, parse_options
from canbroker.backends.base import Backend
from canbroker.model.frame import Frame

#: Who gets nothing for so long gives up.
SILENCE_S: Final = 2.0
_LAYOUT: Final = struct.Struct("=IB3x8s")  # struct can_frame


def frame(number: int) -> bytes:
    """A frame with the number as its data."""
    return _LAYOUT.pack(number % 0x700, 8, number.to_bytes(8, "big"))


@contextmanager
def raw(interface: str) -> Iterator[socket.socket]:
    """The kernel's own socket."""
    with socket.socket(socket.AF_CAN, socket.SOCK_RAW, socket.CAN_RAW) as raw:
        raw.bind((interface,))
        yield raw


@contextmanager
def backend(interface: str) -> Iterator[Backend]:
    """Our driver, without a broker."""
    backend = open_backend("socketcan", parse_options("socketcan", {"channel": interface}))
    try:
        yield backend
    finally:
        backend.close()


@contextmanager
def python_can(interface: str) -> Iterator[can.BusABC]:
    """python-can's bus, which may have a window of frames waiting."""
    with can.Bus(channel=interface, interface="socketcan", ignore_config=True) as bus:
        # It does not ask for more than the kernel's default, which may hold less than a window.
        with socket.socket(fileno=os.dup(bus.fileno())) as raw:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        yield bus


def read(backend: Backend) -> int:
    """How many frames are there, when some are."""
    ready, _, _ = select.select([backend.fileno()], [], [], SILENCE_S)
    return len(backend.read()) if ready else 0


def read_data(backend: Backend) -> list[bytes]:
    """The data of what is there, when something is."""
    ready, _, _ = select.select([backend.fileno()], [], [], SILENCE_S)
    items = backend.read() if ready else []
    return [item.data for item in items if isinstance(item, Frame) and isinstance(item.data, bytes)]


def recv_data(bus: Bus | can.BusABC) -> list[bytearray]:
    """The data of the next message, when there is one."""
    message = bus.recv(SILENCE_S)
    return [] if message is None else [message.data]


def recv(bus: Bus | can.BusABC, count: int) -> int:
    """Takes so many messages; returns how many came."""
    received = 0
    while received < count and bus.recv(SILENCE_S) is not None:
        received += 1
    return received
