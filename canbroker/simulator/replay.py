"""A recorded log as traffic in time; the log is read while it is replayed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from canbroker.logs.reader import LogReader, Skipped
from canbroker.logs.timing import RecordedTime
from canbroker.model.frame import Frame


class Recording:
    """The frames of a candump log, in the order of the file; each iteration reads it anew."""

    def __init__(self, path: str) -> None:
        """:raises CanInitializationError: the file cannot be read, or contains no frames."""
        self.path = path
        #: What was not a frame when the log was read first.
        self.skipped = Skipped()
        self._is_counted = False
        with LogReader.open(path) as log:
            next(iter(log))

    def __iter__(self) -> Iterator[Frame]:
        with LogReader.open(self.path) as log:
            if not self._is_counted:
                self.skipped, self._is_counted = log.skipped, True
            yield from (entry.frame for entry in log)


class Replay:
    """Says which frame is due when; stands still until :meth:`resume`. Monotonic ns.

    :param frames: are iterated once for each time that they are replayed.
    """

    def __init__(self, frames: Iterable[Frame], rate: float, loop: bool) -> None:
        self._frames = frames
        self._loop = loop
        self._timing = RecordedTime(rate)
        self._upcoming: Iterator[Frame] = iter(())
        self._next: Frame | None = None
        self._next_ns = 0  # after the first frame
        self._origin_ns = 0  # when the first frame is due
        self._still_since_ns: int | None = 0
        self._rewind()

    @property
    def finished(self) -> bool:
        return self._next is None

    def resume(self, now_ns: int) -> None:
        """Time goes on from where it stood still."""
        if self._still_since_ns is not None:
            self._origin_ns += now_ns - self._still_since_ns
            self._still_since_ns = None

    def pause(self, now_ns: int) -> None:
        if self._still_since_ns is None:
            self._still_since_ns = now_ns

    def due_ns(self) -> int | None:
        """When the next frame is due; ``None`` while it stands still, or after the last one."""
        if self._still_since_ns is not None or self.finished:
            return None
        return self._origin_ns + self._next_ns

    def take(self, now_ns: int) -> Frame | None:
        """The next frame if it is due.

        :raises CanInitializationError: the log cannot be read any more.
        """
        due = self.due_ns()
        if due is None or due > now_ns:
            return None
        frame = self._next
        self._advance()
        if self.finished and self._loop:
            self._timing.restart()
            self._rewind()
        return frame

    def _rewind(self) -> None:
        self._upcoming = iter(self._frames)
        self._advance()

    def _advance(self) -> None:
        self._next = next(self._upcoming, None)
        if self._next is not None:
            self._next_ns = self._timing.due_ns(self._next.timestamp_ns)
