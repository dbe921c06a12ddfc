"""The adapter of the double of PyUSB in ``fakes``, from the side of its bus."""

from __future__ import annotations

import os
import shutil
import socket
import struct
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from canbroker.model.frame import EXTENDED, Frame
from tests.vendor import fakes
from tests.vendor.fakes.usb.core import DIRECTORY_VARIABLE

#: struct gs_host_frame (drivers/net/can/usb/gs_usb.c): echo_id, can_id, dlc, channel, flags,
#: reserved, data.
_FRAME = struct.Struct("<2I4B8s")
_RECEIVED = 0xFFFFFFFF
_EXTENDED = 1 << 31


class GsUsbAdapter:
    """One candleLight adapter, plugged in."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._plugs = 0
        self._seen: list[int] = []
        self._host = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._host.bind(str(directory / "host"))
        self._host.setblocking(False)
        self.plug()

    def plug(self) -> None:
        """It is another device each time, as far as the system is concerned."""
        self._plugs += 1
        new = self._directory / "new"
        new.write_text(str(self._plugs))
        new.rename(self._directory / "plugged")

    def unplug(self) -> None:
        (self._directory / "plugged").unlink()

    def inject(self, frames: Sequence[Frame]) -> None:
        for frame in frames:
            number = frame.arbitration_id | (_EXTENDED if frame.flags & EXTENDED else 0)
            assert isinstance(frame.data, bytes)
            packed = _FRAME.pack(_RECEIVED, number, len(frame.data), 0, 0, 0, frame.data)
            self._host.sendto(packed, str(self._directory / "device"))

    def seen(self) -> list[int]:
        """Identifiers of all that it was told to send."""
        while True:
            try:
                self._seen.append(_FRAME.unpack(self._host.recv(64)[: _FRAME.size])[1])
            except BlockingIOError:
                return self._seen

    def close(self) -> None:
        self._host.close()


@contextmanager
def plugged_in() -> Iterator[GsUsbAdapter]:
    """Processes that start meanwhile find it, and the double of PyUSB."""
    pytest.importorskip("gs_usb.constants", reason="the package gs_usb is not installed")
    directory = Path(tempfile.mkdtemp(prefix="cb-usb-", dir="/tmp"))
    [modules] = fakes.__path__
    adapter = GsUsbAdapter(directory)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(DIRECTORY_VARIABLE, str(directory))
        patch.setenv("PYTHONPATH", modules, prepend=os.pathsep)
        try:
            yield adapter
        finally:
            adapter.close()
            shutil.rmtree(directory)
