"""What all readers and writers of files have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from canbroker.logs.files import Sink, Source, unreadable
from canbroker.logs.losses import Holds, Losses
from canbroker.logs.records import Record, Skipped, SkippedParts, gathered
from canbroker.system.closing import Closing


class Reader(Closing):
    """Reads a file as a stream; memory is bounded, however long the file is. One thread."""

    def __init__(self, name: str) -> None:
        """``name``: the file's, for messages."""
        self.name = name
        #: What the file says about itself.
        self.metadata: Mapping[str, str] = {}
        #: Of the last reading.
        self.skipped: SkippedParts = Skipped()
        #: Why the last reading ended before the file did, or ``None``.
        self.end: str | None = None

    @abstractmethod
    def batches(self) -> Iterator[list[Record]]:
        """Yields records in the order of the file, each valid; starts again at each call.

        What is damaged is skipped and counted. A file that was cut off ends there, and
        :attr:`end` says where.

        :raises CanInitializationError: the file cannot be read, or is not of this format.
        """

    def __iter__(self) -> Iterator[Record]:
        """Yields the records one by one; see :meth:`batches`."""
        for batch in self.batches():
            yield from batch

    @property
    @abstractmethod
    def progress(self) -> tuple[int, int | None]:
        """How much has been read, and of how much: in bytes, or rows; ``None`` is unknown."""

    @property
    def seekable(self) -> bool:
        """Whether the file can be read again."""
        return True

    @abstractmethod
    def close(self) -> None:
        """Closes the file; can be called again."""


class SourceReader(Reader):
    """Reads a :class:`Source`."""

    def __init__(self, path: Path) -> None:
        """:raises CanInitializationError: the file cannot be read."""
        super().__init__(str(path))
        self._source = Source(path)

    @property
    def progress(self) -> tuple[int, int | None]:
        return self._source.position, self._source.total

    @property
    def seekable(self) -> bool:
        return self._source.seekable()

    def close(self) -> None:
        self._source.close()


class RecordReader(SourceReader):
    """Reads a :class:`Source` record by record."""

    def batches(self) -> Iterator[list[Record]]:
        skipped = self.skipped = Skipped()
        self.end = None
        try:
            if self.seekable:
                self._source.seek(0)
            yield from gathered(self._records(skipped))
        except OSError as error:
            raise unreadable(self.name, error) from error
        finally:
            self.end = self._source.fault or self.end

    @abstractmethod
    def _records(self, skipped: Skipped) -> Iterator[Record]:
        """Yields valid records; says in :attr:`end` why it stops early."""


class Writer(Closing):
    """Writes a file as a stream. One thread.

    Faults of the file system are :class:`OSError`. After one, the writer can only be closed.
    """

    def __init__(self, holds: Holds, metadata: Mapping[str, str] | None = None) -> None:
        self.holds = holds
        self.losses = Losses(holds)
        #: What the file says about itself, if its format can; some formats take it at the end.
        self.metadata: dict[str, str] = dict(metadata or {})

    def write(self, records: Sequence[Record]) -> None:
        """Adds records; those that the format cannot hold are counted instead.

        :raises OSError: the file system is at fault.
        """
        if kept := self.losses.sift(records):
            self._write(kept)

    @abstractmethod
    def _write(self, records: Sequence[Record]) -> None:
        """Adds records that the format can hold, at least one."""

    @abstractmethod
    def sync(self) -> None:
        """Makes what was written survive the end of this process and, with the disk, the system's.

        Whether the format can then be read is said in its row of the table.

        :raises OSError: the file system is at fault.
        """

    @property
    @abstractmethod
    def size(self) -> int:
        """Bytes in the file so far, about."""

    @abstractmethod
    def close(self) -> None:
        """Completes and closes the file; can be called again.

        :raises OSError: it could not be completed; it is closed all the same.
        """


class SinkWriter(Writer):
    """Writes to a :class:`Sink`."""

    def __init__(
        self,
        path: Path,
        *,
        compressed: bool,
        holds: Holds,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """:raises OSError: the file cannot be created."""
        super().__init__(holds, metadata)
        self._sink = Sink(path, compressed=compressed)

    @property
    def size(self) -> int:
        return self._sink.size

    def sync(self) -> None:
        self._sink.sync()

    def close(self) -> None:
        self._sink.close()
