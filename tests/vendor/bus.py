"""The bus that the doubles of vendors' libraries share, and the tests' own node on it.

The libraries are in ``doubles/``: C of our own, built with gcc into a temporary directory, found
by python-can as the real ones are. ``doubles/bus.h`` says what the structures below mean.
"""

from __future__ import annotations

import ctypes
import functools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from canbroker.model.frame import BITRATE_SWITCH, ERROR, EXTENDED, FD, REMOTE, Frame

DIRECTORY_VARIABLE = "CANBROKER_VENDOR_BUS"

#: PCAN-Basic's codes that tests report or expect (PCANBasic.h).
BUSHEAVY, BUSOFF, OVERRUN = 0x8, 0x10, 0x2

#: The bus's number of a channel: python-can's interface, and what it calls the channel.
CHANNELS = {
    ("pcan", "PCAN_USBBUS1"): 0,
    ("pcan", "PCAN_USBBUS2"): 1,
    ("kvaser", "0"): 2,
    ("kvaser", "1"): 3,
}
_NODE = 7

_SOURCES = Path(__file__).parent / "doubles"
_FLAGS = ("-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC")

#: Our flag of a frame, and the bus's (FRAME_... of bus.h).
_KINDS = ((EXTENDED, 1), (REMOTE, 2), (FD, 4), (BITRATE_SWITCH, 8), (ERROR, 32))

_OK = 0


class BusFrame(ctypes.Structure):
    """``struct bus_frame``."""

    _fields_ = (
        ("time_us", ctypes.c_int64),
        ("id", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("status", ctypes.c_uint32),
        ("length", ctypes.c_uint32),
        ("data", ctypes.c_uint8 * 64),
    )


class Channel(ctypes.Structure):
    """``struct bus_channel``: what a test does to one channel of an adapter, and its counts."""

    absent: int
    frame_us: int
    off: int
    heavy: int
    silent: int
    queue: int
    sent: int
    lost: int
    syncs: int
    reads: int

    _fields_ = (
        *((name, ctypes.c_int32) for name in ("absent", "frame_us", "off", "heavy")),
        *((name, ctypes.c_int32) for name in ("silent", "queue")),
        *((name, ctypes.c_uint32) for name in ("sent", "lost", "syncs", "reads")),
    )


@functools.cache
def libraries() -> Path:
    """The directory of the built libraries; built once, removed when the process ends."""
    if sys.platform != "linux" or shutil.which("gcc") is None:
        pytest.skip("the doubles of vendors' libraries need Linux and gcc")
    directory = Path(tempfile.mkdtemp(prefix="cb-vendor-", dir="/tmp"))
    _removed_at_exit(directory)
    hidden = "-fvisibility=hidden"
    _build(directory / "libvendorbus.so", "bus.c")
    _build(directory / "libcanlib.so", "canlib.c", "bus.c", options=[hidden])
    soname = "libpcanbasic.so.0"
    options = [hidden, f"-Wl,-soname,{soname}"]
    _build(directory / soname, "pcanbasic.c", "bus.c", options=options)
    # gcc -lpcanbasic finds this one, and in it the name by which it is loaded.
    (directory / "libpcanbasic.so").symlink_to(soname)
    return directory


def _build(target: Path, *sources: str, options: Sequence[str] = ()) -> None:
    command = ["gcc", *_FLAGS, *options, "-o", str(target), *sources, "-lpthread"]
    subprocess.run(command, cwd=_SOURCES, check=True)  # noqa: S603,RUF100 - a list of our own


def _removed_at_exit(directory: Path) -> None:
    import atexit  # noqa: PLC0415 - of no other use here

    atexit.register(shutil.rmtree, directory, ignore_errors=True)


class VendorBus:
    """A bus with all the adapters of the doubles on it, and a node that the test is.

    Its directory is named by the environment while it is open, for this process's children.
    """

    def __init__(self, directory: Path) -> None:
        self._library = _library()
        self._bus = self._library.bus_attach(os.fsencode(directory))
        assert self._bus is not None
        node = ctypes.c_void_p()
        assert self._library.bus_open(self._bus, _NODE, 0, 0, 0, ctypes.byref(node)) == _OK
        self._node = node
        self._seen: list[Frame] = []

    def close(self) -> None:
        self._library.bus_close(self._node)
        self._library.bus_detach(self._bus)

    def channel(self, interface: str, channel: str) -> Channel:
        """The state of a channel of an adapter, to look at and to change."""
        number = CHANNELS[interface, channel]
        pointer = self._library.bus_channel(self._bus, number)
        found: Channel = pointer.contents
        return found

    def send(self, frames: Sequence[Frame]) -> None:
        """The test's node sends frames; they are at all others when it returns."""
        for frame in frames:
            self._library.bus_send_now(self._node, ctypes.byref(_to_bus(frame)))

    def generate(self, rate: int, count: int) -> None:
        """Sends frames evenly, ``rate`` a second; their data is when, in ns, little-endian."""
        self._library.bus_generate(self._node, rate, count)

    def seen(self) -> list[Frame]:
        """All that the test's node has received."""
        frame = BusFrame()
        while self._library.bus_read(self._node, ctypes.byref(frame)) == _OK:
            self._seen.append(_from_bus(frame))
        return self._seen

    def last(self) -> int | None:
        """The identifier of the last frame that the test's node has received."""
        seen = self.seen()
        return seen[-1].arbitration_id if seen else None

    def unplug(self, interface: str, channel: str) -> None:
        self._library.bus_unplug(self._bus, CHANNELS[interface, channel], 1)

    def replug(self, interface: str, channel: str) -> None:
        self._library.bus_unplug(self._bus, CHANNELS[interface, channel], 0)

    def report(self, channel: str, status: int) -> None:
        """A PCAN channel reports a status once."""
        self._library.bus_report(self._bus, CHANNELS["pcan", channel], status)

    def is_open(self, interface: str, channel: str) -> bool:
        """Whether a living process has the channel open."""
        return bool(self._library.bus_is_open(self._bus, CHANNELS[interface, channel]))


@contextmanager
def vendor_bus() -> Iterator[VendorBus]:
    """A bus of its own, in a directory of its own; child processes find it and the libraries."""
    built = libraries()
    directory = Path(tempfile.mkdtemp(prefix="cb-bus-", dir="/tmp"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(DIRECTORY_VARIABLE, str(directory))
        patch.setenv("LD_LIBRARY_PATH", str(built), prepend=os.pathsep)  # how libraries load
        patch.setenv("LIBRARY_PATH", str(built), prepend=os.pathsep)  # how ctypes finds them
        bus = VendorBus(directory)
        try:
            yield bus
        finally:
            bus.close()
            shutil.rmtree(directory)


def _to_bus(frame: Frame) -> BusFrame:
    made = BusFrame(id=frame.arbitration_id)
    made.flags = sum(theirs for ours, theirs in _KINDS if frame.flags & ours)
    if isinstance(frame.data, bytes):
        made.length = len(frame.data)
        made.data[: made.length] = frame.data
    else:
        made.length = frame.data
    return made


def _from_bus(frame: BusFrame) -> Frame:
    flags = sum(ours for ours, theirs in _KINDS if frame.flags & theirs)
    data: bytes | int = bytes(frame.data[: frame.length])
    if flags & REMOTE:
        data = frame.length
    return Frame(frame.time_us * 1000, frame.id, flags, data)


@functools.cache
def _library() -> Any:
    library = ctypes.CDLL(str(libraries() / "libvendorbus.so"))
    library.bus_attach.argtypes = [ctypes.c_char_p]
    library.bus_attach.restype = ctypes.c_void_p
    library.bus_detach.argtypes = [ctypes.c_void_p]
    library.bus_channel.argtypes = [ctypes.c_void_p, ctypes.c_int]
    library.bus_channel.restype = ctypes.POINTER(Channel)
    library.bus_open.argtypes = [
        *(ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32, ctypes.c_int, ctypes.c_int),
        ctypes.POINTER(ctypes.c_void_p),
    ]
    for name in ("bus_close",):
        getattr(library, name).argtypes = [ctypes.c_void_p]
    for name in ("bus_send_now", "bus_read"):
        getattr(library, name).argtypes = [ctypes.c_void_p, ctypes.POINTER(BusFrame)]
    library.bus_generate.argtypes = [ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
    library.bus_unplug.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_int]
    library.bus_report.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32]
    library.bus_is_open.argtypes = [ctypes.c_void_p, ctypes.c_int]
    return library
