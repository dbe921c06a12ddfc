"""A recorded log as traffic in time; no I/O after loading."""

from __future__ import annotations

from pathlib import Path

from canbroker.candump import read_log
from canbroker.clock import MILLISECOND
from canbroker.errors import CanInitializationError
from canbroker.frame import Frame

#: Between the last frame of a log and its first one when it starts again.
_LOOP_GAP_NS = 1 * MILLISECOND


def load(path: str) -> list[Frame]:
    """The frames of a candump log, with their times.

    :raises CanInitializationError: the file cannot be read, or names the line that is wrong.
    """
    try:
        with Path(path).open(encoding="utf-8", errors="replace") as file:
            return [entry.frame for entry in read_log(file, path)]
    except OSError as error:
        raise CanInitializationError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise CanInitializationError(str(error)) from error


class Replay:
    """Says which frame is due when; stands still until :meth:`resume`. Monotonic ns."""

    def __init__(self, frames: list[Frame], rate: float, loop: bool) -> None:
        self._frames = frames
        self._rate = rate
        self._loop = loop and bool(frames)
        self._next = 0
        self._origin_ns = 0  # when offset 0 of the log is due
        self._still_since_ns: int | None = 0

    @property
    def finished(self) -> bool:
        return self._next >= len(self._frames)

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
        return self._origin_ns + self._offset_ns(self._next)

    def take(self, now_ns: int) -> Frame | None:
        """The next frame if it is due."""
        due = self.due_ns()
        if due is None or due > now_ns:
            return None
        frame = self._frames[self._next]
        self._next += 1
        if self.finished and self._loop:
            self._origin_ns = due + (int(_LOOP_GAP_NS / self._rate) if self._rate else 0)
            self._next = 0
        return frame

    def _offset_ns(self, index: int) -> int:
        if not self._rate:
            return 0
        # A log that was merged from several may step back in time; its order is what counts.
        offset = self._frames[index].timestamp_ns - self._frames[0].timestamp_ns
        return int(max(0, offset) / self._rate)
