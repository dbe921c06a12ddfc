"""What all readers and writers of files have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Self

from canbroker.logs.losses import Holds, Losses
from canbroker.logs.records import Record, Skipped, SkippedParts


class Reader(ABC):
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

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class Writer(ABC):
    """Writes a file as a stream. One thread.

    Faults of the file system are :class:`OSError`. After one, the writer can only be closed.
    """

    def __init__(self, holds: Holds, metadata: Mapping[str, str] | None = None) -> None:
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

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
