"""Logs to replay: every format that canbroker reads, and candump's from a pipe."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final, cast

from canbroker.errors import CanInitializationError
from canbroker.logs.files import Source
from canbroker.logs.formats import FORMATS, open_reader
from canbroker.logs.reader import LogReader
from canbroker.logs.records import Record
from canbroker.logs.streams import Reader
from canbroker.system.closing import Closing

#: An error names at most this many channels.
_MAX_NAMES: Final = 32


class Log(Closing):
    """A log that is read as a stream, and again if it is ``seekable``. One thread."""

    name: str

    @property
    @abstractmethod
    def seekable(self) -> bool:
        """Whether it can be read more than once."""

    @property
    @abstractmethod
    def position(self) -> float | None:
        """How much has been read, 0 to 1; ``None`` is unknown."""

    @abstractmethod
    def batches(self) -> Iterator[list[Record]]:
        """Yields what is available together, from the beginning.

        :raises CanInitializationError: it cannot be read.
        """

    @abstractmethod
    def faults(self) -> list[str]:
        """Sentences about what in the first reading was no frame, or not readable."""

    @abstractmethod
    def check(self) -> None:
        """Reads it to its end.

        :raises CanInitializationError: something in it is not a frame.
        """

    @abstractmethod
    def close(self) -> None: ...

    def missing(self, channels: set[str]) -> tuple[set[str], list[str]]:
        """The ``channels`` that it does not have, and those that were found in it.

        Stops reading as soon as all are found.
        """
        seen: dict[str, None] = {}
        for batch in self.batches():
            for record in batch:
                if len(seen) < _MAX_NAMES or record.channel in channels:
                    seen[record.channel] = None
            if channels <= seen.keys():
                break
        return channels - seen.keys(), list(seen)


class CandumpLog(Log):
    """A log of ``candump -L``, a file or a pipe."""

    def __init__(self, file: Source | BinaryIO, name: str, *, strict: bool = False) -> None:
        self.name = name
        self._file = file
        self._reader = LogReader(cast(Source, file), name, strict=strict)

    @property
    def seekable(self) -> bool:
        return self._file.seekable()

    @property
    def position(self) -> float | None:
        if not isinstance(self._file, Source) or self._file.total is None:
            return None
        return _share(self._file.position, self._file.total)

    def batches(self) -> Iterator[list[Record]]:
        for batch in self._reader.batches():
            yield [Record(entry.frame, entry.interface, entry.sent) for entry in batch]

    def faults(self) -> list[str]:
        reader = self._reader
        found = [str(reader.skipped)] if reader.skipped and reader.found else []
        cut = self._file.fault if isinstance(self._file, Source) else None
        return found + ([cut] if cut else [])

    def check(self) -> None:
        for _ in self._reader.batches():  # raises at the first line that is not a frame
            pass

    def missing(self, channels: set[str]) -> tuple[set[str], list[str]]:
        return self._reader.missing(channels)

    def close(self) -> None:
        self._file.close()


class RecordLog(Log):
    """A file of any other format."""

    def __init__(self, reader: Reader) -> None:
        self.name = reader.name
        self._reader = reader
        self._faults: list[str] | None = None

    @property
    def seekable(self) -> bool:
        return self._reader.seekable

    @property
    def position(self) -> float | None:
        read, total = self._reader.progress
        return None if total is None else _share(read, total)

    def batches(self) -> Iterator[list[Record]]:
        found = False
        for batch in self._reader.batches():
            found = True
            yield batch
        faults = self._told()
        if self._faults is None:
            self._faults = faults
        if not found:
            raise CanInitializationError(": ".join([f"{self.name} contains no frames", *faults]))

    def faults(self) -> list[str]:
        return self._told() if self._faults is None else self._faults

    def check(self) -> None:
        for _ in self.batches():
            pass
        if faults := self._told():
            raise CanInitializationError(f"{self.name}: {'; '.join(faults)}")

    def close(self) -> None:
        self._reader.close()

    def _told(self) -> list[str]:
        skipped, end = self._reader.skipped, self._reader.end
        return ([str(skipped)] if skipped else []) + ([f"it is {end}"] if end else [])


def open_log(path: Path | str, *, strict: bool = False) -> Log:
    """Opens a log; its suffix says the format, and without a known one it is candump's.

    :param strict: refuses what is not a frame, instead of skipping it.
    :raises CanInitializationError: it cannot be read, or needs a package that is missing.
    """
    path = Path(path)
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() != ".gz"]
    last = suffixes[-1] if suffixes else ""
    is_other = any(last in row.suffixes for name, row in FORMATS.items() if name != "log")
    if is_other:
        return RecordLog(open_reader(path))
    return CandumpLog(Source(path), str(path), strict=strict)


def _share(read: int, total: int) -> float:
    return min(1.0, read / total) if total else 1.0
