"""Memory that a process keeps for its children: they may end, and the memory stays."""

from __future__ import annotations

import logging
import mmap
import os
import sys
import weakref
from pathlib import Path
from typing import Final

from canbroker.system.descriptors import beyond_standard
from canbroker.system.files import BINARY, is_full
from canbroker.system.portable import PORTABLE

_CHUNK: Final = 1 << 20

_logger = logging.getLogger(__name__)


class SharedMemory:
    """Memory of a number of bytes, all 0, that lives as long as this object.

    On Linux it is a file without a name, and the process that maps it needs :attr:`descriptor`.
    Elsewhere it is the file :attr:`path`, which only its owner may read, and ``descriptor`` is
    ``None``.
    """

    def __init__(self, size: int, path: Path) -> None:
        """``path``: of the file, where it has a name. One that is there is replaced.

        :raises OSError: no memory or no descriptor is left.
        """
        self.descriptor: int | None = None
        self.path: Path | None = None
        if sys.platform == "linux" and not PORTABLE:
            self.descriptor = os.memfd_create("canbroker ring")
            weakref.finalize(self, os.close, self.descriptor)
            os.ftruncate(self.descriptor, size)
            return
        path.unlink(missing_ok=True)
        opened = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | BINARY, 0o600)
        self.path = path
        weakref.finalize(self, _remove, opened, path)
        # Not truncated to that size: if the disk is full later, writing to the mapped file ends
        # the process.
        nothing = bytes(_CHUNK)
        for begin in range(0, size, _CHUNK):
            left = memoryview(nothing)[: size - begin]
            while left:
                left = left[os.write(opened, left) :]


def kept(size: int, path: Path) -> SharedMemory | None:
    """Memory as of :class:`SharedMemory`; ``None`` if it is a file, and the disk is full.

    :raises OSError: no memory or no descriptor is left.
    """
    try:
        return SharedMemory(size, path)
    except OSError as error:
        if not is_full(error):
            raise
        _logger.warning("no memory that outlives its process, for %s: %s", path.name, error)
        return None


def unnamed_file(content: bytes) -> int:
    """A descriptor of a file without a name with this ``content``, at its start. Linux.

    :raises OSError: no memory or no descriptor is left.
    """
    if sys.platform != "linux":
        raise NotImplementedError
    descriptor = beyond_standard(os.memfd_create("canbroker specification"))
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(content)
        os.lseek(descriptor, 0, os.SEEK_SET)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def mapped(descriptor: int | None, path: str) -> mmap.mmap | None:
    """[child] The memory that the parent keeps, as of :class:`SharedMemory`; ``None`` if somebody
    has removed its file.

    :param descriptor: inherited; it is closed.
    """
    if descriptor is not None:
        try:
            return mmap.mmap(descriptor, 0)
        finally:
            os.close(descriptor)
    try:
        with open(path, "r+b") as file:  # noqa: PTH123 - as it came
            return mmap.mmap(file.fileno(), 0)
    except FileNotFoundError:
        return None


def _remove(descriptor: int, path: Path) -> None:
    os.close(descriptor)
    try:
        path.unlink(missing_ok=True)
    except OSError as error:  # Windows, while a child that was not waited for has it mapped
        _logger.warning("cannot remove %s: %s", path, error)
