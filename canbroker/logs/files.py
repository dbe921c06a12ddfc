"""Files under the formats: compressed or not, written so that they survive, read with care."""

from __future__ import annotations

import gzip
import io
import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, BinaryIO, Final, cast

from canbroker.errors import CanInitializationError

#: No part of any format is longer; a damaged length must not make us read a whole file at once.
_MAX_READ: Final = 1 << 26


class Sink:
    """A new file, perhaps compressed by gzip, to write bytes to. Replaces an older one."""

    def __init__(self, path: Path, *, compressed: bool) -> None:
        """:raises OSError: the file cannot be created."""
        self._plain = path.open("wb")
        #: Where the format writes to.
        self.binary: BinaryIO = self._plain
        if compressed:
            self.binary = cast(BinaryIO, gzip.GzipFile("", "wb", 6, self._plain))

    @property
    def size(self) -> int:
        return self._plain.tell()

    def sync(self) -> None:
        """:raises OSError: the file system is at fault."""
        self.binary.flush()
        self._plain.flush()
        os.fsync(self._plain.fileno())

    def close(self) -> None:
        """:raises OSError: the file system is at fault; the file is closed all the same."""
        try:
            self.binary.close()
        finally:
            self._plain.close()


class Source(io.BufferedIOBase):
    """A file to read bytes from, decompressed if it is compressed by gzip.

    Where a compressed file is cut off or damaged it ends; :attr:`fault` says why.
    """

    def __init__(self, path: Path) -> None:
        """:raises CanInitializationError: the file cannot be read."""
        self.name = str(path)
        self.fault: str | None = None
        self._files = ExitStack()  # Python closes this object also if it could not be made
        try:
            self._plain = self._files.enter_context(path.open("rb"))
            self.total = os.fstat(self._plain.fileno()).st_size if self._plain.seekable() else None
            self._file: IO[bytes] = self._plain
            if self._plain.peek(2)[:2] == b"\x1f\x8b":
                unzipped = gzip.GzipFile(fileobj=self._plain, mode="rb")
                self._file = cast(IO[bytes], self._files.enter_context(unzipped))
        except OSError as error:
            self.close()
            raise unreadable(self.name, error) from error

    @property
    def position(self) -> int:
        """Bytes of the file, compressed as they may be, that have been read."""
        return self._plain.tell() if self._plain.seekable() else 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._plain.seekable()

    def tell(self) -> int:
        return self._file.tell()

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        self.fault = None
        return self._file.seek(offset, whence)

    def read(self, size: int | None = -1, /) -> bytes:
        """:raises ValueError: ``size`` is more than a part of any format has."""
        if size is None or not 0 <= size <= _MAX_READ:
            raise ValueError(f"a length of {size} bytes")
        return self._until_fault(self._file.read, size)

    def read1(self, size: int = -1, /) -> bytes:
        return self._until_fault(self._file.read1, size)  # type: ignore[attr-defined]

    def readline(self, size: int | None = -1, /) -> bytes:
        return self._until_fault(self._file.readline, -1 if size is None else size)

    def close(self) -> None:
        self._files.close()
        super().close()

    def _until_fault(self, read: Callable[[int], bytes], size: int) -> bytes:
        try:
            return read(size)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            self.fault = f"the compressed data is damaged or cut off: {error}"
            return b""


@contextmanager
def replaced(path: Path, suffix: str = ".part") -> Iterator[Path]:
    """Where to write what ``path`` is to hold: a file beside it, which gets its name at the end.

    If anything fails, nothing is left of that file, and ``path`` stays as it is. A link stays a
    link. A pipe or a device cannot be replaced: it is written to as it is.
    """
    if path.exists() and not path.is_file():
        yield path
        return
    path = path.resolve()
    part = path.with_name(path.name + suffix)
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def unreadable(name: str, error: OSError) -> CanInitializationError:
    """The error of a file that cannot be read."""
    return CanInitializationError(f"cannot read {name}: {error.strerror or error}")
